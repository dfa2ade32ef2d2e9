#!/usr/bin/env python3
"""Makes, completes and repairs the virtual environment: `python3 tools/set_up.py FOLDER serve|dev|bench [--chosen]`.

Every make target that needs Python comes here first. `--chosen` says that this very Python was asked for: an
environment of another one is then made anew.

This has to start on any Python 3, to say in words that a newer one is needed. It uses the standard library alone.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {"serve": "server", "dev": "dev", "bench": "dev,bench"}
"""What each level installs, beside the package itself. Each has all of the one before."""
PURPOSE = {"serve": "for serving", "dev": "with the tools for tests", "bench": "with the tools for measuring"}
LEVELS = list(EXTRAS)
SILENCE = 5
"""Seconds after which somebody who waits is told that work goes on."""


class SetupError(Exception):
    """There can be no environment. The text says why, and what to do."""


class Environment:
    """The virtual environment in a folder, and the record of what is complete in it."""

    def __init__(self, folder):
        """`folder` is relative to the checkout."""
        self.folder = ROOT / folder
        self.name = folder
        self.python = self.folder / "bin" / "python"
        self._record = self.folder / "setup.json"

    def has(self, level):
        """Whether everything of this level is installed, for the files as they are now."""
        record = self._read()
        stubs = [
            ROOT / "client" / proto.relative_to(ROOT / "protos").with_name(proto.stem + suffix)
            for proto in ROOT.glob("protos/**/*.proto")
            for suffix in ("_pb2.py", "_pb2.pyi")
        ]
        levels = LEVELS[LEVELS.index(level) :]
        copies = [ROOT / "client" / path.relative_to(ROOT / "protos") for path in ROOT.glob("protos/**/*.json")]
        made = all(map(Path.exists, [*stubs, *copies]))
        return record.get("inputs") == inputs() and record.get("level") in levels and made

    def level(self, asked):
        """The level to install where this one is asked for: what is there stays."""
        return max(asked, self._read().get("level", asked), key=LEVELS.index)

    def fault(self, chosen):
        """Says why the environment can't be used and has to be made anew, or returns None."""
        record = self._read()
        if not record:
            return "isn't complete"
        if record["root"] != str(ROOT):
            return "was made in another folder: this checkout was moved or copied"
        found = python_of(self.python)
        if found is None:
            return f"can't start its Python ({record['base']})"
        if found != record["python"]:
            return f"was made by Python {record['python']}, which is {found} now"
        if chosen and [record["python"], record["base"]] != this_python():
            return f"is of another Python ({record['python']}, {record['base']})"
        missing = sorted(set(record["content"]) - set(self._content()))
        if missing:
            return f"lacks {missing[0]}"
        return None

    def make(self):
        """Makes a bare environment, in place of what is there."""
        _refuse_an_unfit_python()
        if os.pathsep in str(self.folder):
            raise SetupError("a virtual environment can't be in a folder with ':' in its path; rename the folder.")
        self._remove()
        run([sys.executable, "-I", "-m", "venv", str(self.folder)], f"making {self.name}")

    def install(self, level):
        """Installs everything of this level. When it is interrupted the environment counts as incomplete."""
        before = self._read()
        with contextlib.suppress(FileNotFoundError):
            self._record.unlink()
        pip = [str(self.python), "-I", "-m", "pip", "--no-input", "--disable-pip-version-check"]
        try:
            run([*pip, "install", "-c", "constraints.txt", "-e", f".[{EXTRAS[level]}]"], "installing")
        except SetupError:
            if before:  # pip has changed nothing yet, so that what was complete still is
                self._write(before)
            raise
        self._allow_any_folder()
        python, base = this_python() if not before else (before["python"], before["base"])
        self._write(
            {
                "root": str(ROOT),
                "python": python,
                "base": base,
                "level": level,
                "inputs": inputs(),
                "content": self._content(),
            }
        )

    def has_pip(self):
        """Whether pip can be started."""
        command = [str(self.python), "-I", "-m", "pip", "--version"]
        return subprocess.call(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0

    def _content(self):
        """The names in it, without those that only say a version: a developer may try another one by hand."""
        folders = [self.folder / "bin", *self.folder.glob("lib/python*/site-packages")]
        names = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
        return sorted(name for name in names if not name.endswith((".dist-info", "__pycache__")))

    def _allow_any_folder(self):
        """Makes everything work in folders of any name: with quotes, and with letters that the locale doesn't know."""
        for packages in self.folder.glob("lib/python*/site-packages"):
            for path in packages.glob("*.pth"):  # Python before 3.13 reads it in the locale's encoding
                lines = path.read_bytes().decode("utf-8", "surrogateescape").splitlines()
                relative = [os.path.relpath(line, str(packages)) if line.startswith("/") else line for line in lines]
                path.write_text("".join(line + "\n" for line in relative))
        if set('"$`\\') & set(str(ROOT)):  # pip writes the path between double quotes of a shell
            header = b"#!/bin/sh\n'''exec' \"$(dirname -- \"$0\")\"/python \"$0\" \"$@\"\n' '''\n"
            for path in (path for path in (self.folder / "bin").iterdir() if not path.is_symlink()):
                first, _, rest = path.read_bytes().partition(b"\n' '''\n")
                if rest and first.startswith(b"#!/bin/sh\n'''exec' "):
                    path.write_bytes(header + rest)

    def _remove(self):
        if self.folder.is_symlink() or self.folder.is_file():
            self.folder.unlink()
        if not self.folder.exists():
            return
        names = {path.name for path in self.folder.iterdir()}
        if "pyvenv.cfg" not in names and names - {"bin", "include", "lib", "lib64"}:
            raise SetupError(f"{self.name} isn't a virtual environment. Move it away, or remove it.")
        names.discard("pyvenv.cfg")  # goes last: without it the rest couldn't be told from anybody's folder
        for name in names:
            path = self.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(str(path))
            else:
                path.unlink()
        shutil.rmtree(str(self.folder))

    def _read(self):
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            return record if {"root", "python", "base", "level", "inputs", "content"} <= set(record) else {}
        except (OSError, ValueError, TypeError):
            return {}

    def _write(self, record):
        written = self._record.with_suffix(".part")
        written.write_text(json.dumps(record), encoding="utf-8")
        written.replace(self._record)


def _refuse_an_unfit_python():
    version, executable = this_python()
    if sys.version_info < (3, 11):  # noqa: UP036, this is where older ones are refused
        raise SetupError(
            f"Python 3.11 or newer is needed, and {sys.executable} is {version}. If there is a newer one, name it: "
            "make PYTHON=python3.11"
        )
    missing = [name for name in ("venv", "ensurepip", "_ssl", "_sqlite3") if importlib.util.find_spec(name) is None]
    if missing and executable.startswith("/usr/bin/"):
        own = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"{executable} lacks the module {missing[0]}, which virtual environments need. "
            "Debian and Ubuntu keep it in a package of its own:\n"
            f"  apt install python3-venv    (or {own}-venv, for another Python than python3)\n"
            "Then do the same again."
        )
    if missing:
        raise SetupError(f"{executable} was built without the module {missing[0]}. Name another Python: make PYTHON=…")


def inputs():
    """What an installation is made of, as a hash."""
    digest = hashlib.sha256()
    files = [ROOT / name for name in ("pyproject.toml", "constraints.txt", "hatch_build.py")]
    for path in [*files, *sorted(ROOT.glob("protos/**/*.*"))]:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def this_python():
    """Version and file of the Python that this runs on."""
    return [".".join(map(str, sys.version_info[:3])), os.path.realpath(sys.executable)]


def python_of(python):
    """The version of an environment's Python, or None where it can't be started, or not as that of an environment."""
    program = "import sys; assert sys.prefix != sys.base_prefix; print('.'.join(map(str, sys.version_info[:3])))"
    command = [str(python), "-I", "-c", program]
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def run(command, doing):
    """Runs a command of which only the interesting lines are shown, and a line in every few seconds at the least."""
    started = time.monotonic()
    lines = queue.Queue()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=str(ROOT),
        close_fds=False,  # so that it holds the lock too
        env=_without_what_leads_astray(),
    )
    threading.Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
    output = []
    while True:
        try:
            line = lines.get(timeout=SILENCE)
        except queue.Empty:
            say(f"  … still {doing} ({time.monotonic() - started:.0f} s)")
            continue
        if line is None:
            break
        text = line.decode("utf-8", "replace").rstrip()
        output.append(text)
        words = text.split()
        if words[:1] == ["Downloading"] and len(words) > 1:
            doing = "downloading " + words[1].rpartition("/")[2]
            say("  " + " ".join([doing, *words[2:]]))
        elif " ".join(words[:2]) == "Installing collected":
            doing = f"installing {text.count(',') + 1} packages"
            say("  " + doing)
        elif text.endswith(": started"):
            doing = text.strip()[: -len(": started")]
            doing = doing[0].lower() + doing[1:]
            say("  " + doing)
    if process.wait() != 0:
        say("\n".join(output))
        raise SetupError(f"{doing} failed. What was printed stands above.")


def _pass_on(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put(None)


def _without_what_leads_astray():
    """The caller's environment, without what would lead Python or pip elsewhere."""
    python = {"PYTHONHOME", "PYTHONPATH", "PYTHONINSPECT", "PYTHONWARNINGS"}
    pip = {"PIP_PREFIX", "PIP_QUIET", "PIP_ROOT", "PIP_TARGET"}
    return {name: value for name, value in os.environ.items() if name not in python | pip} | {"PIP_USER": "0"}


def say(text):
    """Prints for whoever waits, in any locale."""
    sys.stdout.buffer.write((text + "\n").encode(sys.stdout.encoding or "ascii", "backslashreplace"))
    sys.stdout.flush()


def main(folder, level, chosen):
    """Brings the environment to the level."""
    environment = Environment(folder)
    if environment.has(level) and environment.fault(chosen) is None:
        return
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "setup.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another make that is setting up here")
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)  # held until the last process ends, even if this one is killed
        complete(environment, level, chosen)


def complete(environment, level, chosen):
    """Does what is missing, and says what."""
    fault = environment.fault(chosen)
    if fault is None and environment.has(level):
        return
    if fault is None and not environment.has_pip():
        fault = "can't start its pip"
    if fault and environment.folder.exists():
        say(f"{environment.name} {fault}: making it anew")
    level = environment.level(level)
    say(f"setting up {environment.name} {PURPOSE[level]} (once, a minute or two)")
    if fault:
        environment.make()
    environment.install(level)
    say(f"{environment.name} is complete")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], "--chosen" in sys.argv[3:])
    except SetupError as error:
        say(f"make: {error}")
        sys.exit(1)
    except OSError as error:
        say(f"make: {sys.argv[1]} can't be set up: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("stopped; the next make goes on from here")
        sys.exit(130)
