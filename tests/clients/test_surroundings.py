"""The command `userprofile` wherever it is run: any encoding, streams that are closed, full or cut off, Ctrl-C."""

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import pytest
from click.testing import CliRunner

import userprofile
from tests.canary import look
from tests.clients import raw_server as raw
from tests.fork_server import BIN
from tests.support import run
from userprofile import User, cli
from userprofile.testing import FakeUserProfileServer

COMMANDS = ["batch johndoe", "batch --help"]


@pytest.fixture
def server(fake_userprofile: FakeUserProfileServer) -> FakeUserProfileServer:
    fake_userprofile.add(User("johndoe", "j@example.com", "Čeněk 🦊 \x1b[1m, ü"))
    return fake_userprofile


def shell(server: FakeUserProfileServer, command: str, **env: str) -> "subprocess.CompletedProcess[bytes]":
    """Runs `userprofile` and what stands behind it as a shell would."""
    done = subprocess.run(
        ["bash", "-c", f"userprofile {command}"],
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "USERPROFILE_TARGET": server.target} | env,
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    look("stdout", done.stdout)
    look("stderr", done.stderr)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    return done


class TestOutput:
    @pytest.mark.parametrize(
        ("command", "encoding"),
        [*product(["get johndoe"], ["cp1252", "ascii:strict", "utf-16"]), *product(COMMANDS, ["ascii:strict"])],
    )
    def test_takes_any_encoding(self, server: FakeUserProfileServer, encoding: str, command: str) -> None:
        done = shell(server, command, PYTHONIOENCODING=encoding)
        assert done.returncode == 0
        assert done.stdout
        if (command, encoding) == ("get johndoe", "cp1252"):
            assert "full name  \\u010cen\\u011bk \\U0001f98a \\x1b[1m, ü\n".encode("cp1252") in done.stdout

    @pytest.mark.parametrize(
        ("command", "env"),
        [
            ("get johndoe", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
            ("get johndoe", {"LC_ALL": "xx_YY.UTF-8", "TERM": ""}),
            ("batch --help", {"LC_ALL": "xx_YY.UTF-8", "TERM": ""}),
            ("batch --help", {"TERM": "dumb", "COLUMNS": "0"}),
            ("batch --help", {"COLUMNS": "x", "LINES": "-1"}),
        ],
    )
    def test_takes_any_locale_and_terminal(
        self, server: FakeUserProfileServer, env: dict[str, str], command: str
    ) -> None:
        done = shell(server, command, **env)
        assert done.returncode == 0
        assert done.stdout

    @pytest.mark.parametrize(
        ("command", "where"),
        [*product(["get johndoe", *COMMANDS, "health"], [">/dev/full"]), *product(["get johndoe"], [">&- <&-"])],
    )
    def test_that_cannot_be_written_is_an_error(self, server: FakeUserProfileServer, command: str, where: str) -> None:
        done = shell(server, f"{command} {where}")
        assert done.returncode == 1
        why = b"No space left on device" if "full" in where else b"Bad file descriptor"
        assert done.stderr.endswith(b"error: the output can't be written: " + why + b"\n")

    @pytest.mark.parametrize("where", ["2>/dev/full", "2>&- <&-"])
    @pytest.mark.parametrize(("command", "status"), [("batch nobody", 3), ("get nobody", 3), ("get", 2)])
    def test_matters_more_than_stderr(
        self, server: FakeUserProfileServer, command: str, status: int, where: str
    ) -> None:
        done = shell(server, f"{command} {where}", USERPROFILE_TARGTE="warned of")
        assert (done.returncode, bool(done.stdout)) == (status, command == "batch nobody")

    @pytest.mark.parametrize("command", ["yes nobody | head -n 50000 |", ""])
    def test_that_nobody_reads_any_more_ends_quietly(self, server: FakeUserProfileServer, command: str) -> None:
        done = shell(
            server, f"health; {command} userprofile batch {'' if command else 'nobody'} | head -n 1 | cut -c 1-9"
        )
        assert done.stdout == b'SERVING\n{"usernam\n'
        assert done.stderr.count(b"\n") <= 1

    def test_without_stdin_says_so(self, server: FakeUserProfileServer) -> None:
        done = shell(server, "batch <&-")
        assert done.returncode == 1
        assert b"error: standard input can't be read: Bad file descriptor\n" in done.stderr

    def test_is_ours_alone(self) -> None:
        # gRPC itself would print these as they came.
        for frames in (
            [raw.goaway(2, text=b"\x1b[31mred")],
            [raw.failure(14, ("grpc-retry-pushback-ms", "soon"))],
            [b"junk" * 9],
        ):
            with raw.RawServer(*frames) as server:
                done = run(
                    "userprofile", "get", "johndoe", "--target", server.target, "--retries", "0", "--timeout", "5"
                )
            assert done.returncode in (1, 4)
            assert done.stderr.startswith("error: ")
            assert done.stderr.count("\n") == 1
            assert done.stderr.rstrip("\n").isprintable()


class TestCtrlC:
    def test_while_it_starts_ends_it_without_a_word(self) -> None:
        program = f"""
import os, runpy, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv = ["userprofile", "health"]
runpy.run_path({str(BIN / "userprofile")!r}, run_name="__main__")
"""
        with handed_down(signal.default_int_handler):
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")

    @pytest.mark.parametrize("command", [["get", "johndoe"], ["batch", "johndoe"], ["health"]])
    def test_while_it_waits_ends_it_in_a_word(self, command: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            target = f"127.0.0.1:{silent.getsockname()[1]}"
            command = [str(BIN / "userprofile"), *command, "--target", target, "--timeout", "60"]
            with handed_down(signal.default_int_handler):
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, b"")
        assert err.split() == [b"interrupted"]

    def test_is_ignored_where_whoever_started_it_ignores_it(self, server: FakeUserProfileServer) -> None:
        server.delay = 1
        command = [str(BIN / "userprofile"), "get", "johndoe", "--target", server.target, "--timeout", "60"]
        with handed_down(signal.SIG_IGN):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3):
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out


@contextmanager
def handed_down(handler: Any) -> Iterator[None]:
    """What a child does at Ctrl-C: it inherits what is ignored, as whoever runs the tests may have it, and no more.

    Not by `preexec_fn`: between fork and exec, gRPC's own handlers of forks would run in the child.
    """
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("command", [[], ["get"], ["batch"], ["health"], ["completion"]])
def test_help_is_not_cut(command: list[str], width: int) -> None:
    done = CliRunner().invoke(cli.main, [*command, "--help"], terminal_width=width)
    assert done.exit_code == 0
    assert "..." not in done.stdout.replace("[USERNAMES]...", "").replace("[ARGS]...", "")


def test_python_runs_it_as_a_module_too() -> None:
    version = importlib.metadata.version("userprofile")
    assert userprofile.__version__ == version
    for command in ("userprofile",), ("python", "-m", "userprofile"):
        assert run(*command, "--version").stdout == f"userprofile, version {version}\n"
    assert run("python", "-m", "userprofile", "get", "x", "--target", "nowhere").returncode == 2
