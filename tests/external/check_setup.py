"""`make setup` after everything that can go wrong with it: `make test-setup`. The last test needs the package index.

The others set up a package of three lines, which needs nothing from anywhere.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually

ROOT = Path(__file__).parent.parent.parent
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "thing"
version = "1"
"""
BACKEND = """\
import os, zipfile

def build_editable(directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(os.path.join(directory, "thing-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("_thing.pth", os.path.join(os.getcwd(), "client"))
        wheel.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: thing\\nVersion: 1\\n" + REQUIRES)
        wheel.writestr("thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("thing-1.dist-info/entry_points.txt", "[console_scripts]\\nthing = thing:main\\n")
        wheel.writestr("thing-1.dist-info/RECORD", "")
    return "thing-1-py3-none-any.whl"

REQUIRES = "Provides-Extra: server\\nProvides-Extra: dev\\nProvides-Extra: bench\\n"
"""
ANOTHER_PYTHON = """\
#!/bin/sh
shift
exec "{python}" -c '
import importlib.util, runpy, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *package: None if name == "{lacks}" else found(name, *package)
sys.version_info = {version}
sys.executable = "{name}"
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")' "$@"
"""


class Checkout:
    """A checkout of the small package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("tools", "client", "protos"):
            (folder / name).mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", folder)
        shutil.copy(ROOT / "tools" / "set_up.py", folder / "tools")
        (folder / "client" / "thing.py").write_text("def main():\n    print('it works')\n")
        (folder / "pyproject.toml").write_text(PYPROJECT)
        (folder / "backend.py").write_text(BACKEND)
        for name in ("constraints.txt", "hatch_build.py"):
            (folder / name).touch()

    def start(self, *args: str, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["make", "--no-print-directory", *args],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""} | env,
            start_new_session=True,
        )

    def make(self, *args: str, status: int = 0, **env: str) -> str:
        process = self.start(*args, **env)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == status, output
        assert "Traceback" not in output
        return output

    def works(self, **env: str) -> bool:
        command = [self.folder / ".venv" / "bin" / "thing"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | env)
        assert done.stdout == "it works\n", done.stderr
        return True


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Several tests damage it, one after the other; the next one repairs it."""
    return Checkout(tmp_path_factory.mktemp("healthy") / "checkout")


@pytest.fixture
def made(healthy: Checkout) -> Checkout:
    healthy.make("setup")
    return healthy


def another_python(folder: Path, lacks: str = "", version: tuple[int, ...] = sys.version_info[:3]) -> str:
    path = folder / "another-python"
    path.write_text(ANOTHER_PYTHON.format(python=sys.executable, lacks=lacks, version=version, name="/usr/bin/python3"))
    path.chmod(0o755)
    return str(path)


def test_says_what_goes_on_and_nothing_where_nothing_is_to_be_done(checkout: Checkout) -> None:
    assert ".venv is complete" in checkout.make("setup")
    assert checkout.works()
    assert checkout.make("setup") == ""
    assert checkout.make("setup-serve") == "", "the tools came with what serving needs"
    (checkout.folder / "constraints.txt").write_text("# another version\n")
    assert "setting up .venv with the tools" in checkout.make("setup-serve")


def no_pip(venv: Path) -> None:
    shutil.rmtree(venv)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)


def bare_folders(venv: Path) -> None:
    shutil.rmtree(venv)
    (venv / "bin").mkdir(parents=True)


def no_interpreter(venv: Path) -> None:
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/nowhere/python3")


def another_version(venv: Path) -> None:
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").write_text("#!/bin/sh\necho 3.99.0\n")
    (venv / "bin" / "python").chmod(0o755)


def unstartable(venv: Path) -> None:
    (venv / "pyvenv.cfg").unlink()
    (venv / "pyvenv.cfg").mkdir()


def no_command(venv: Path) -> None:
    (venv / "bin" / "thing").unlink()


def no_package(venv: Path) -> None:
    next(venv.glob("lib/*/site-packages/_thing.pth")).unlink()


def no_record(venv: Path) -> None:
    (venv / "setup.json").write_text("{")


def a_file(venv: Path) -> None:
    shutil.rmtree(venv)
    venv.touch()


def a_dangling_link(venv: Path) -> None:
    shutil.rmtree(venv)
    venv.symlink_to("/nowhere")


@pytest.mark.parametrize(
    "damage",
    [
        no_pip,
        bare_folders,
        no_interpreter,
        another_version,
        unstartable,
        no_command,
        no_package,
        no_record,
        a_file,
        a_dangling_link,
    ],
)
def test_mends_a_damaged_environment(made: Checkout, damage: Any) -> None:
    damage(made.folder / ".venv")
    made.make("setup-serve")
    assert made.works()
    assert made.make("setup-serve") == ""


@pytest.mark.parametrize(
    ("number", "sign"),
    [(signal.SIGINT, "lib/python*/site-packages/pip"), (signal.SIGKILL, "pyvenv.cfg"), (signal.SIGTERM, "bin/thing")],
)
def test_goes_on_after_it_was_stopped(checkout: Checkout, number: signal.Signals, sign: str) -> None:
    """As by Ctrl-C in a terminal, or by a machine that goes down: all processes get the signal."""
    process = checkout.start("setup")
    eventually(lambda: list((checkout.folder / ".venv").glob(sign)), f"{sign} of a new environment", timeout=100)
    os.killpg(process.pid, number)
    process.communicate(timeout=100)
    checkout.make("setup")
    assert checkout.works()


@pytest.mark.parametrize("how", [shutil.move, lambda old, new: shutil.copytree(old, new, symlinks=True)])
def test_a_checkout_that_was_moved_or_copied_gets_its_own(made: Checkout, tmp_path: Path, how: Any) -> None:
    how(made.folder, tmp_path / "new")
    made.folder = tmp_path / "new"
    assert "this checkout was moved or copied" in made.make("setup")
    assert made.works()


@pytest.mark.parametrize("lacks", ["venv", "ensurepip"])
def test_says_which_package_of_debian_is_missing(checkout: Checkout, tmp_path: Path, lacks: str) -> None:
    output = checkout.make("setup", status=2, PYTHON=another_python(tmp_path, lacks=lacks))
    assert f"lacks the module {lacks}" in output
    assert "apt install python3-venv" in output
    assert not (checkout.folder / ".venv").exists(), "nothing is left half made"
    checkout.make("setup")
    assert checkout.works()


def test_says_which_python_is_needed(checkout: Checkout, tmp_path: Path) -> None:
    output = checkout.make("setup", status=2, PYTHON=another_python(tmp_path, version=(3, 10, 13)))
    assert "Python 3.11 or newer is needed, and /usr/bin/python3 is 3.10.13." in output
    assert "nobody is not found" in checkout.make("setup", status=2, PYTHON="nobody")


def test_make_uses_the_python_that_is_named(made: Checkout) -> None:
    record = made.folder / ".venv" / "setup.json"
    record.write_text(record.read_text().replace('"base": "', '"base": "/another'))
    assert "is of another Python" in made.make("setup")
    assert made.works()


def test_a_folder_that_is_somebodys_own_is_kept(checkout: Checkout) -> None:
    (checkout.folder / ".venv").mkdir()
    (checkout.folder / ".venv" / "thesis.txt").touch()
    assert "isn't a virtual environment" in checkout.make("setup", status=2)
    assert (checkout.folder / ".venv" / "thesis.txt").exists()


def test_what_fails_to_install_leaves_what_works(made: Checkout) -> None:
    pyproject = made.folder / "pyproject.toml"
    pyproject.write_text(PYPROJECT.replace("requires = []", 'requires = ["a-package-that-is-nowhere"]'))
    output = made.make("setup", status=2)
    assert "a-package-that-is-nowhere" in output
    assert made.works()
    pyproject.write_text(PYPROJECT)
    assert made.make("setup") == ""


def test_several_at_once_do_not_disturb_each_other(checkout: Checkout) -> None:
    others = [checkout.start("-j2", "setup-serve", "setup") for _ in range(2)]
    outputs = [process.communicate(timeout=100)[0] for process in others]
    assert [process.returncode for process in others] == [0, 0], outputs
    assert "waiting for another make" in "".join(outputs)
    assert checkout.works()
    assert checkout.make("setup") == ""


ODD = "čaj 'a' \"b\" & $HOME `x` ünd Ω"


@pytest.mark.parametrize("env", [{"LC_ALL": "POSIX"}, {"PYTHONPATH": "/x", "PIP_USER": "1"}])
def test_a_folder_may_have_any_name(tmp_path: Path, env: dict[str, Any]) -> None:
    checkout = Checkout(tmp_path / ODD)
    checkout.make("setup", **env)
    assert checkout.works(**env)
    assert checkout.make("setup", **env) == ""


@pytest.mark.timeout(500)
def test_make_run_in_such_a_folder_serves_and_installs_no_tools(tmp_path: Path) -> None:
    """The real thing, with nothing but what serving needs."""
    folder = tmp_path / ODD
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    makefile = folder / "Makefile"
    makefile.write_text(makefile.read_text().replace("127.0.0.1:50051\n", "127.0.0.1:0\n"))
    env = os.environ | {"LC_ALL": "POSIX", "PYTHON": sys.executable}
    with subprocess.Popen(["make", "run"], cwd=folder, stdout=subprocess.PIPE, encoding="utf-8", env=env) as make:
        assert make.stdout is not None
        lines = []
        before = time.monotonic()
        for line in make.stdout:
            lines.append((time.monotonic() - before, line))
            before = time.monotonic()
            if line.startswith("listening on "):
                break
        else:
            raise AssertionError(lines)
        target = line.removeprefix("listening on ").strip()
        found = subprocess.run(
            [folder / ".venv" / "bin" / "userprofile", "get", "johndoe", "--target", target],
            capture_output=True,
            text=True,
            check=False,
            env=env,
        )
        make.terminate()
        make.wait()
    assert "johndoe@example.com" in found.stdout, found.stderr
    packages = {path.name.partition("-")[0] for path in folder.glob(".venv/lib/*/site-packages/*.dist-info")}
    assert not packages & {"mypy", "ruff", "pytest", "trustme"}
