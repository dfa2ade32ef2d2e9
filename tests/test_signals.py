"""Signals: those that stop a server let its calls finish, and no other ends it."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import grpc
import pytest

from tests.slow_reader import SlowReader
from tests.support import BIN, GetUser, ServerProcess, eventually

MEANINGLESS = ["SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGPIPE", "SIGIO", "SIGPWR", "SIGWINCH", "SIGCONT", "SIGURG", "SIGCHLD", "SIGRTMIN", "SIGRTMAX"]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_stops_lets_calls_finish(user_store_url: str, number: int) -> None:
    with ServerProcess(user_store_url, "--drain-grace", "3600") as server, SlowReader(server.address) as reader:
        server.signal(number)
        eventually(lambda: reader.told_that_the_connection_closes, "the drain has begun")
        server.signal(signal.SIGHUP)  # a terminal that closes may send several
        assert server._process.poll() is None
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_no_other_signal_ends_a_server(user_store_url: str) -> None:
    with ServerProcess(user_store_url) as server:
        with grpc.insecure_channel(server.address) as channel:
            for name in MEANINGLESS:
                server.signal(getattr(signal, name))
                assert GetUser(channel)("johndoe").username == "johndoe", name
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def silent() -> socket.socket:
    """A cluster that takes connections and says nothing."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening


def start(*args: object, **env: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [BIN / "userprofile-server", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | env,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_a_server_starts_ends_it_at_once_and_it_never_says_that_it_listens(number: int) -> None:
    with silent() as cluster:
        url = f"couchbase://127.0.0.1:{cluster.getsockname()[1]}/users"
        process = start(
            "serve", "--store", url, "--listen", "127.0.0.1:0", "--couchbase-username", "u",
            "--couchbase-bootstrap-timeout", "600", "--couchbase-connect-timeout", "600",
            USERPROFILE_COUCHBASE_PASSWORD="p",
        )  # fmt: skip
        cluster.settimeout(30)
        cluster.accept()[0].close()  # it is connecting
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == 0
    assert stdout == b""
    assert f"{signal.Signals(number).name}: stopped before it served" in stderr.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_check_ends_at_once(number: int) -> None:
    with silent() as cluster:
        url = f"couchbase://127.0.0.1:{cluster.getsockname()[1]}/users"
        process = start(
            "check", "--store", url, "--couchbase-username", "u",
            "--couchbase-bootstrap-timeout", "600", "--couchbase-connect-timeout", "600",
            USERPROFILE_COUCHBASE_PASSWORD="p",
        )  # fmt: skip
        cluster.settimeout(30)
        cluster.accept()[0].close()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == -number
    assert b"Traceback" not in stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_import_that_is_ended_says_what_it_has_stored(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [BIN / "userprofile-server", "import", "-", "--store", f"sqlite:///{tmp_path}/users.db"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    rows = b"".join(b'{"username": "user%d", "hashed_password": "h"}\n' % row for row in range(20_000))
    process.stdin.write(rows)
    process.stdin.flush()  # most of it is read, for a pipe holds 64 KiB; and then it waits for more
    process.send_signal(number)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"users imported" in process.stdout.read()
        stderr = process.stderr.read()
    assert process.returncode == 128 + number
    assert stderr.endswith(b"interrupted\n")
    assert b"Traceback" not in stderr


def test_ctrl_c_at_the_start_prints_no_traceback() -> None:
    for command in (["check"], ["import", "-"], ["serve", "--listen", "127.0.0.1:0"], ["--help"]):
        process = start(*command, "--store", "nothing://")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
        # Python itself, before the first line of ours, prints a traceback of its own.
        assert b"userprofile" not in stderr or b"Traceback" not in stderr, stderr
