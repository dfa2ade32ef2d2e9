"""The Go client as others get it: the module that `make go-module` writes, in an empty module, and tested alone."""

import os
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ServerProcess, run
from tools import go_module

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "clients/go/README.md").read_text()


class Module:
    """The module in a proxy of its own, and a Go that has seen none of its versions before."""

    def __init__(self, folder: Path) -> None:
        self.version = go_module.write(folder / "goproxy")
        [self.archive] = folder.glob("goproxy/**/*.zip")
        known = self._go_env("GOMODCACHE")  # what was downloaded before is not downloaded again
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("USERPROFILE_")}
        self._environment = inherited | {
            "GOPROXY": f"file://{folder}/goproxy,file://{known}/cache/download,{self._go_env('GOPROXY')}",
            "GONOSUMDB": "userprofile.example",
            "GOMODCACHE": str(folder / "cache"),
            "GOFLAGS": "-modcacherw",
        }

    def run(self, command: str, cwd: Path, **env: str) -> str:
        """Runs a command, which must succeed; returns what it prints."""
        environment = self._environment | env
        done = subprocess.run(command.split(), cwd=cwd, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return done.stdout

    @staticmethod
    def _go_env(name: str) -> str:
        return subprocess.run(["go", "env", name], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Module:
    return Module(tmp_path_factory.mktemp("go"))


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[str]:
    """The users of `make run`."""
    store = f"sqlite:///{tmp_path}/demo.db"
    assert run("userprofile-server", "import", str(ROOT / "demo/users.jsonl"), "--store", store).returncode == 0
    with ServerProcess(store) as server:
        yield server.address


def shown(language: str) -> list[str]:
    """The blocks of the README in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_example_of_the_readme_works_as_printed_in_an_empty_module(
    module: Module, demo: str, tmp_path: Path
) -> None:
    [program], [output] = shown("go"), shown("text")
    [commands] = [block for block in shown("sh") if "go mod init" in block]
    assert module.version in commands
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "main.go").write_text(program)
    *get, run = commands.splitlines()
    for command in get:
        module.run(command, folder)
    assert module.run(run, folder, USERPROFILE_TARGET=demo) == output
    module.run("go mod vendor", folder)
    assert module.run(run, folder, USERPROFILE_TARGET=demo, GOPROXY="off", GOFLAGS="-mod=vendor") == output


def test_it_is_tested_without_python_and_says_what_it_skips(module: Module, tmp_path: Path) -> None:
    with zipfile.ZipFile(module.archive) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / module.version
    needs_a_server = "TestErrorsOfARealServer|TestIdentities"
    printed = module.run(f"go test -v -run {needs_a_server}|TestTheReadme|TestRetries ./...", folder)
    assert sorted(re.findall(r"^--- SKIP: (\w+)", printed, re.MULTILINE)) == needs_a_server.split("|")
    assert printed.count("needs the server of `python -m tests.client_conformance`") == 2
