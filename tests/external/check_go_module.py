"""The Go client as others get it: the module of the release, in an empty module, and tested alone."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.external.release import RELEASE, ROOT, VERSION, blocks, command, demo

pytestmark = pytest.mark.timeout(600)

MODULE = f"userprofile.example/go@v{VERSION}"
README = "clients/go/README.md"


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs a command with a Go that has seen none of our versions before, and the release as its module proxy."""
    cache = tmp_path_factory.mktemp("go")
    known, proxy = command("go env GOMODCACHE GOPROXY", cache).split()  # what is there isn't downloaded again
    environment = {
        "GOPROXY": f"file://{RELEASE}/goproxy,file://{known}/cache/download,{proxy}",
        "GONOSUMDB": "userprofile.example",
        "GOMODCACHE": str(cache),
        "GOFLAGS": "-modcacherw -trimpath",
    }
    return lambda line, folder, **more: command(line, folder, **environment | more)


def test_the_example_of_the_readme_works_as_printed_in_an_empty_module(go: Callable[..., str], tmp_path: Path) -> None:
    [program], [output] = blocks(README, "go"), blocks(README, "text")
    [commands] = [block for block in blocks(README, "sh") if "go mod init" in block]
    assert MODULE in commands
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "main.go").write_text(program)
    *get, run = commands.splitlines()
    for line in get:
        go(line, folder)
    with demo(tmp_path) as target:
        assert go(run, folder, USERPROFILE_TARGET=target) == output
        go("go mod vendor", folder)
        vendored = {"GOPROXY": "off", "GOFLAGS": "-mod=vendor -trimpath"}
        assert go(run, folder, USERPROFILE_TARGET=target, **vendored) == output


def test_it_can_be_kept_in_a_repository_of_ones_own(go: Callable[..., str], tmp_path: Path) -> None:
    [unpacked] = re.findall(r"`(go mod edit -replace [^`]*)`", (ROOT / README).read_text())
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    (mine / "main.go").write_text(blocks(README, "go")[0])
    with zipfile.ZipFile(RELEASE / f"goproxy/userprofile.example/go/@v/v{VERSION}.zip") as archive:
        archive.extractall(mine / "third_party")
    for line in ("go mod init example.com/hello", unpacked, "go mod tidy"):
        go(line, mine)
    for line in (
        "git init --quiet",
        "git add .",
        "git -c user.name=me -c user.email=me@localhost commit --quiet -m mine",
    ):
        command(line, mine)
    command(f"git clone --quiet {mine} {theirs}", tmp_path)
    go("go build -o /dev/null .", theirs)


def test_it_is_tested_without_python_and_says_what_it_skips(go: Callable[..., str], tmp_path: Path) -> None:
    with zipfile.ZipFile(RELEASE / f"goproxy/userprofile.example/go/@v/v{VERSION}.zip") as archive:
        archive.extractall(tmp_path)
    needs_a_server = "TestErrorsOfARealServer|TestIdentities"
    printed = go(f"go test -v -run {needs_a_server}|TestTheReadme|TestRetries ./...", tmp_path / MODULE)
    assert sorted(re.findall(r"^--- SKIP: (\w+)", printed, re.MULTILINE)) == needs_a_server.split("|")
    assert printed.count("needs the server of `python -m tests.client_conformance`") == 2
