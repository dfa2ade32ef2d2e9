"""Signals: those that stop a server let its calls finish, and no other ends it."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import grpc
import pytest

from tests.fork_server import Forked, start
from tests.slow_reader import SlowReader
from tests.support import WAIT, GetUser, ServerProcess, eventually

UNHURRIED = {
    "USERPROFILE_SERVER_COUCHBASE_USERNAME": "u",
    "USERPROFILE_SERVER_COUCHBASE_PASSWORD": "p",
    "USERPROFILE_SERVER_COUCHBASE_BOOTSTRAP_TIMEOUT": "600",
    "USERPROFILE_SERVER_COUCHBASE_CONNECT_TIMEOUT": "600",
}
MEANINGLESS = ["SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGPIPE", "SIGIO", "SIGPWR", "SIGWINCH", "SIGCONT", "SIGURG", "SIGCHLD", "SIGRTMIN", "SIGRTMAX"]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_stops_lets_calls_finish(user_store_url: str, number: int) -> None:
    with ServerProcess(user_store_url, "--drain-grace", "3600") as server, SlowReader(server.address) as reader:
        server.signal(number)
        eventually(lambda: reader.told_that_the_connection_closes, "the drain has begun")
        server.signal(signal.SIGHUP)  # a terminal that closes may send several
        assert server.running
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


@contextmanager
def started(
    *args: str, env: Mapping[str, str] = MappingProxyType({}), fork: bool = True
) -> "Iterator[subprocess.Popen[bytes] | Forked]":
    """A command, which has ended when the block has."""
    process = start("userprofile-server", args, env, fork=fork)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_a_server_starts_ends_it_at_once_and_it_never_says_that_it_listens(number: int) -> None:
    with silent() as cluster:
        url = f"couchbase://127.0.0.1:{cluster.getsockname()[1]}/users"
        with started("serve", "--store", url, "--listen", "127.0.0.1:0", env=UNHURRIED) as process:
            cluster.settimeout(WAIT)
            cluster.accept()[0].close()  # it is connecting
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=WAIT)
    assert process.returncode == 0
    assert stdout == b""
    assert f"{signal.Signals(number).name}: stopped before listening" in stderr.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_check_ends_at_once(number: int) -> None:
    with silent() as cluster:
        url = f"couchbase://127.0.0.1:{cluster.getsockname()[1]}/users"
        with started("check", "--store", url, env=UNHURRIED) as process:
            cluster.settimeout(WAIT)
            cluster.accept()[0].close()
            process.send_signal(number)
            _, stderr = process.communicate(timeout=WAIT)
    assert process.returncode == -number
    assert b"Traceback" not in stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_import_that_is_ended_says_what_it_has_stored(tmp_path: Path, number: int) -> None:
    with started("import", "-", "--store", f"sqlite:///{tmp_path}/users.db") as process:
        assert process.stdin is not None
        rows = b"".join(b'{"username": "user%d", "hashed_password": "h"}\n' % row for row in range(20_000))
        process.stdin.write(rows)
        process.stdin.flush()  # most of it is read, for a pipe holds 64 KiB; and then it waits for more
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=WAIT)
    assert b"users imported" in stdout
    assert process.returncode == 128 + number
    assert stderr.endswith(b"interrupted\n")
    assert b"Traceback" not in stderr


IMPORT_THAT_A_SIGNAL_MEETS_AT_ITS_END = """
import signal, sys
from userprofile_server.__main__ import main
from userprofile_server.importing import Importer

summary, count, number = Importer.summary, int(sys.argv.pop(1)), int(sys.argv.pop(1))

def summary_and_signals(self):
    for _ in range(count):
        signal.raise_signal(number)
    return summary(self)

Importer.summary = summary_and_signals
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    ("count", "status", "says"),
    [
        pytest.param(1, 0, b"1 user imported", id="the result is there already"),
        pytest.param(2, None, b"", id="somebody is impatient"),
    ],
)
def test_a_signal_when_an_import_is_over(
    tmp_path: Path, number: int, count: int, status: int | None, says: bytes
) -> None:
    program = IMPORT_THAT_A_SIGNAL_MEETS_AT_ITS_END
    command = [sys.executable, "-c", program, str(count), str(int(number)), "import", "-", "--store"]
    done = subprocess.run(
        [*command, f"sqlite:///{tmp_path}/users.db"],
        input=b'{"username": "johndoe"}',
        capture_output=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == (-number if status is None else status)
    assert done.stdout.startswith(says)
    assert done.stderr == b""


def test_ctrl_c_at_the_start_prints_no_traceback() -> None:
    for command in (["check"], ["import", "-"], ["serve", "--listen", "127.0.0.1:0"], ["--help"]):
        with started(*command, "--store", "nothing://", fork=False) as process:
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=WAIT)
        # Before the first line of `main`, while modules are imported, Python prints a traceback of its own.
        assert b"Traceback" not in stderr or b", in main\n" not in stderr, stderr
