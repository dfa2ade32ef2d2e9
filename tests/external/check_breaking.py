"""`make breaking` in repositories of every shape, with the real buf, at $BUF: `make test-breaking`."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROTO = "protos/userprofile/v1/user_profile.proto"
PROTOS = [str(path.relative_to(ROOT)) for path in ROOT.glob("protos/**/*.proto")]
RELEASED = "protos/RELEASED"
RENUMBERED = ("optional bool disabled = 4;", "optional bool disabled = 5;")
NEW_FIELD = ("optional bool disabled = 4;", "optional bool disabled = 4;\n  optional string shoe_size = 1000;")


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

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def release(self, text: str | None = None) -> None:
        """Names the newest commit as that of the last release, or whatever else stands in the file."""
        commit = self.git("rev-parse", "HEAD")
        (self.folder / RELEASED).write_bytes((f"# the last release\n{commit}\n" if text is None else text).encode())

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
    for name in ["buf.yaml", ".ci/breaking", RELEASED, *PROTOS]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / RELEASED).write_text("# nothing yet\n")
    (folder / ".gitignore").write_text("/build/\n")
    repository = with_imported_protos(folder)
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.commit("first")
    return repository


def test_where_nothing_is_released_nothing_is_compared_and_it_says_so(repository: Repository) -> None:
    repository.change(*RENUMBERED)
    for text in ("", "\n", "# nothing yet\n", "  \r\n# nothing\r\n"):
        repository.release(text)
        done = repository.breaking()
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == (
            "breaking: NOTHING WAS COMPARED: nothing has been released yet (protos/RELEASED names no commit).\n"
        )


def test_this_repository_names_a_commit_that_it_has_or_none() -> None:
    """So that the first release can't be forgotten half: what is named can be compared with."""
    named = "".join(line.partition("#")[0].strip() for line in (ROOT / RELEASED).read_text().splitlines())
    if named:
        subprocess.run(["git", "rev-parse", "--verify", f"{named}^{{commit}}"], cwd=ROOT, check=True)


def test_a_change_in_the_working_tree_is_seen(repository: Repository) -> None:
    repository.release()
    repository.change(*RENUMBERED)
    done = repository.breaking()
    assert done.returncode != 0
    assert 'field "4" with name "disabled" on message "User" was deleted' in done.stdout + done.stderr


def test_a_change_is_seen_however_old_it_is_and_on_every_branch(repository: Repository) -> None:
    repository.release()
    repository.commit("the release is named")
    repository.change(*RENUMBERED)
    repository.commit("break it")
    repository.commit("something else")
    assert repository.breaking().returncode != 0
    repository.git("switch", "--quiet", "--create", "branch")
    repository.commit("something of the branch")
    assert repository.breaking().returncode != 0


def test_what_came_after_the_release_may_go_again(repository: Repository) -> None:
    repository.release()
    repository.change(*NEW_FIELD)
    repository.commit("a field that nobody has been given yet")
    repository.change(*reversed(NEW_FIELD))
    done = repository.breaking()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "breaks nobody who relies on" in done.stderr
    assert "(first)" in done.stderr


def test_what_a_release_has_added_is_held_from_then_on(repository: Repository) -> None:
    repository.change(*NEW_FIELD)
    repository.commit("second")
    repository.release()
    assert repository.breaking().returncode == 0
    repository.change(*reversed(NEW_FIELD))
    assert repository.breaking().returncode != 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("userprofile.example/go/gen/", "another.example/go/gen/"),
        ("example.userprofile.v1", "com.example.userprofile.v1"),
        ('option java_outer_classname = "UserProfileProto";\n', ""),
    ],
)
def test_where_generated_code_belongs_is_held_too(repository: Repository, old: str, new: str) -> None:
    repository.release()
    repository.change(old, new)
    assert repository.breaking().returncode != 0


@pytest.mark.parametrize("form", ["{commit}", "{commit}\r\n", "v1\n", "# a\n\n  v1  # b\n# c", "{short}\n"])
def test_a_release_is_named_by_hash_or_tag_in_any_text_file(repository: Repository, form: str) -> None:
    repository.git("tag", "v1")
    commit = repository.git("rev-parse", "HEAD")
    repository.release(form.format(commit=commit, short=commit[:8]))
    assert repository.breaking().returncode == 0
    repository.change(*RENUMBERED)
    assert repository.breaking().returncode not in (0, 2)


@pytest.mark.parametrize("named", ["v9", "0" * 40, "v1 v1", "--help", "-x", "HEAD:buf.yaml"])
def test_a_release_that_is_not_there_is_no_success(repository: Repository, named: str) -> None:
    repository.git("tag", "v1")
    repository.release(named)
    done = repository.breaking()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"breaking: there is no commit '{named.split()[0]}")
    assert "fetch the history" in done.stderr


def test_a_file_that_is_missing_is_no_success(repository: Repository) -> None:
    (repository.folder / RELEASED).unlink()
    done = repository.breaking()
    assert (done.returncode, done.stderr) == (
        2, "breaking: protos/RELEASED, which names the last release, can't be read\n",
    )  # fmt: skip


def test_another_commit_can_be_chosen(repository: Repository) -> None:
    repository.git("tag", "v1")
    repository.change(*RENUMBERED)
    repository.commit("break it")
    repository.release()
    assert repository.breaking().returncode == 0
    assert repository.breaking("v1").returncode != 0
    assert repository.breaking("v9").returncode == 2


def test_a_shallow_clone_says_what_it_lacks(repository: Repository, tmp_path: Path) -> None:
    repository.release()
    repository.commit("the release is named")
    repository.commit("something else")
    clone = repository.clone(tmp_path / "clone", "--depth=1")
    done = clone.breaking()
    assert done.returncode == 2
    assert "If this clone is a shallow one, fetch the history." in done.stderr
    clone.git("fetch", "--quiet", "--unshallow")
    assert clone.breaking().returncode == 0


def test_a_release_without_imports_and_in_one_file_can_be_compared_with(repository: Repository) -> None:
    """buf.yaml had nothing then to find google.rpc by."""
    (repository.folder / "buf.yaml").write_text("version: v2\nmodules:\n  - path: protos\n")
    path = repository.folder / PROTO
    today = {name: (repository.folder / name).read_text() for name in PROTOS}
    for name in PROTOS:
        (repository.folder / name).unlink()
    options = "\n".join(line for line in today[PROTO].splitlines() if line.startswith("option "))
    path.write_text(
        f'syntax = "proto3";\npackage userprofile.v1;\n{options}\n'
        "message User {\n  string username = 1;\n  optional bool disabled = 4;\n}\n"
    )
    repository.commit("the first contract")
    repository.release()
    for name, text in today.items():
        (repository.folder / name).write_text(text)
    shutil.copy(ROOT / "buf.yaml", repository.folder)
    repository.commit("today's")
    done = repository.breaking()
    assert done.returncode == 0, done.stdout + done.stderr
    repository.change(*RENUMBERED)
    assert repository.breaking().returncode not in (0, 2)
