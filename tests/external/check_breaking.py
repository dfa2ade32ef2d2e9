"""`make breaking` in repositories of every shape, with the real buf, at $BUF: `make test-breaking`."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROTO = "protos/userprofile/v1/user_profile.proto"
RENUMBERED = ("optional bool disabled = 4;", "optional bool disabled = 5;")
NEW_FIELD = ("optional bool disabled = 4;", "optional bool disabled = 4;\n  optional string phone = 5;")


class Repository:
    """A repository with the contract and the comparison, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def git(self, *args: str) -> str:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, *args]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def change(self, old: str, new: str) -> None:
        path = self.folder / PROTO
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def clone(self, folder: Path, *options: str) -> "Repository":
        self.git("clone", "--quiet", *options, f"file://{self.folder}", str(folder))
        return with_imported_protos(folder)

    def breaking(self, *args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [".ci/breaking", *args],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )


def with_imported_protos(folder: Path) -> Repository:
    """Puts others' protos where the Makefile does."""
    shutil.copytree(ROOT / "build" / "googleapis", folder / "build" / "googleapis")
    return Repository(folder)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """One commit on main: the contract of today."""
    folder = tmp_path / "repository"
    for name in ["buf.yaml", ".ci/breaking", PROTO]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".gitignore").write_text("/build/\n")
    repository = with_imported_protos(folder)
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.commit("first")
    return repository


def test_a_change_in_the_working_tree_is_seen(repository: Repository) -> None:
    repository.commit("second")
    repository.change(*RENUMBERED)
    done = repository.breaking()
    assert done.returncode != 0
    assert 'field "4" with name "disabled" on message "User" was deleted' in done.stdout + done.stderr


def test_a_change_of_the_branch_is_seen_however_old_it_is(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create", "branch")
    repository.change(*RENUMBERED)
    repository.commit("break it")
    repository.commit("something else")
    assert repository.breaking().returncode != 0


def test_what_main_did_since_is_not_held_against_the_branch(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--create", "branch")
    repository.commit("something else")
    repository.git("switch", "--quiet", "main")
    repository.change(*NEW_FIELD)
    repository.commit("a field that the branch doesn't have")
    repository.git("switch", "--quiet", "branch")
    done = repository.breaking()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(first)" in done.stderr


def test_main_is_compared_with_the_commit_before(repository: Repository) -> None:
    repository.change(*RENUMBERED)
    repository.commit("break it")
    assert repository.breaking().returncode != 0


def test_a_new_field_breaks_nobody(repository: Repository) -> None:
    repository.change(*NEW_FIELD)
    repository.commit("second")
    done = repository.breaking()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "breaks nobody who relies on" in done.stderr


def test_a_commit_that_imported_nothing_can_be_compared_with(repository: Repository) -> None:
    """The first contract had no google.rpc.Status, and its buf.yaml nothing to find it by."""
    (repository.folder / "buf.yaml").write_text("version: v2\nmodules:\n  - path: protos\n")
    path = repository.folder / PROTO
    today = path.read_text()
    path.write_text(
        'syntax = "proto3";\npackage userprofile.v1;\n'
        "message User {\n  string username = 1;\n  optional bool disabled = 4;\n}\n"
    )
    repository.commit("the first contract")
    path.write_text(today)
    shutil.copy(ROOT / "buf.yaml", repository.folder)
    repository.commit("today's")
    done = repository.breaking()
    assert done.returncode == 0, done.stdout + done.stderr
    repository.change(*RENUMBERED)
    assert repository.breaking("HEAD~1").returncode != 0


def test_another_commit_can_be_asked_for(repository: Repository) -> None:
    repository.git("tag", "v1")
    repository.change(*RENUMBERED)
    repository.commit("break it")
    repository.commit("something else")
    assert repository.breaking().returncode == 0
    assert repository.breaking("v1").returncode != 0


def test_a_commit_that_is_not_there_is_no_success(repository: Repository) -> None:
    done = repository.breaking("v9")
    assert (done.returncode, done.stderr) == (2, "breaking: there is no commit 'v9' here\n")


def test_a_shallow_clone_of_one_commit_says_that_it_compared_nothing(repository: Repository, tmp_path: Path) -> None:
    repository.commit("second")
    for number, branch in enumerate(["main", "branch"]):
        repository.git("switch", "--quiet", "--force-create", branch)
        clone = repository.clone(tmp_path / f"clone{number}", "--depth=1", f"--branch={branch}")
        done = clone.breaking()
        assert done.returncode == 0, done.stderr
        assert "NOTHING WAS COMPARED" in done.stderr


def test_a_clone_without_main_is_compared_with_its_oldest_commit(repository: Repository, tmp_path: Path) -> None:
    repository.commit("second")
    repository.git("switch", "--quiet", "--create", "branch")
    repository.change(*RENUMBERED)
    repository.commit("break it")
    repository.commit("something else")
    clone = repository.clone(tmp_path / "clone", "--depth=3", "--branch=branch", "--single-branch")
    done = clone.breaking()
    assert "comparing with the oldest commit there is" in done.stderr
    assert done.returncode != 0
    clone.git("checkout", "--quiet", "HEAD~1")
    assert clone.breaking().returncode != 0
