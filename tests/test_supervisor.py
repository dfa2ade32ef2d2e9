"""Several processes on one port: started, watched, restarted and ended by a supervisor, and no call is lost by it."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.canary import raises
from tests.couchbase_node import TestCluster
from tests.fork_server import BIN
from tests.slow_reader import SlowReader
from tests.supervised import Supervised, children_of, descriptors_of, runs, send, state_of, stopped
from tests.support import (
    COUCHBASE_CREDENTIALS,
    WAIT,
    GetUser,
    eventually,
    health_stub,
    loaded_settings,
    run,
    settings_for,
)
from userprofile_server.processes import cores
from userprofile_server.processes.plan import plan_for
from userprofile_server.settings import Settings
from userprofile_server.settings_base import to_plain

pytestmark = pytest.mark.slow

PROGRAM = str(BIN / "userprofile-server")


class FreshSupervised(Supervised):
    """One that is started as operators do, with nothing imported before."""

    _fork = False


def processes_that_respond(address: str, connections: int) -> set[str]:
    """Which processes respond to so many clients, by what begins the request ids that they make."""
    found = set()
    with ExitStack() as stack:
        for number in range(connections):
            options = [("grpc.use_local_subchannel_pool", 1), ("connection", number)]
            channel = stack.enter_context(grpc.insecure_channel(address, options=options))
            _, call = GetUser(channel).with_call("johndoe")
            found.add(str(dict(call.trailing_metadata())["x-request-id"])[:16])
    return found


def listeners(address: str) -> int:
    """How many sockets of this machine listen on an address."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    tables = (Path("/proc/net/tcp").read_text(), Path("/proc/net/tcp6").read_text())
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return sum(local.endswith(port) and state == "0A" for _, local, _, state, *_ in rows)


def slow_readers(server: Supervised, stack: ExitStack) -> list[SlowReader]:
    """Clients whose health watches hold up a drain until its grace is over, enough for all processes."""
    return [stack.enter_context(SlowReader(server.address)) for _ in range(16)]


def test_all_processes_serve_on_one_port_and_it_is_said_once(user_store_url: str) -> None:
    with Supervised(user_store_url, "--processes", "3") as server:
        assert len(server.children()) == 3
        eventually(lambda: len(processes_that_respond(server.address, 30)) == 3, "each of three gets connections")
        server.in_log("ready: all 3 processes")
        for number in (1, 2, 3):
            server.in_log(f"[process {number}, pid ")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert server.stdout == f"listening on {server.address}\n"
        assert server.stderr.count("draining: calls in progress finish") == 4


def test_the_supervisor_has_neither_grpc_nor_the_driver_in_it() -> None:
    with TestCluster() as cluster:
        store = f"couchbase://{cluster.hosts}/default"
        with FreshSupervised(store, **COUCHBASE_CREDENTIALS) as server:
            libraries = re.compile(r"cygrpc|pycbc|google/_upb")
            assert not libraries.findall(Path(f"/proc/{server.pid}/maps").read_text())
            for child in server.children():
                found = libraries.findall(Path(f"/proc/{child}/maps").read_text())
                assert set(found) == {"cygrpc", "pycbc", "google/_upb"}
            server.signal(signal.SIGTERM)
            assert server.wait() == 0


def test_a_process_has_its_own_session_no_settings_as_arguments_and_no_descriptor_of_the_others(
    user_store_url: str,
) -> None:
    with FreshSupervised(user_store_url, "--drain-grace", "17") as server:
        first, second = server.children()
        for child in (first, second):
            arguments = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            assert arguments[1:] == [b"-P", b"-m", b"userprofile_server.processes", b""]
        assert os.getsid(first) == first
        assert os.getsid(second) == second
        ends = [set(descriptors_of(pid).values()) for pid in (server.pid, first, second)]
        ends = [{name for name in each if name.startswith("socket:")} for each in ends]
        assert not ends[0] & ends[1]
        assert not ends[0] & ends[2]
        assert not ends[1] & ends[2]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_process_that_ends_is_replaced(user_store_url: str, number: signal.Signals) -> None:
    with Supervised(user_store_url) as server:
        server.in_log("ready: all 2 processes")
        first, second = server.children()
        os.kill(first, number)
        server.in_log("ready: all 2 processes", times=2)
        assert server.serves()
        cause = "has ended with exit status 0" if number == signal.SIGTERM else f"was ended by {number.name}"
        assert f"process 1 (pid {first}) {cause}; next try in 0.1 s" in server.stderr
        assert first not in server.children()
        assert second in server.children()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_many_restarts_leave_neither_zombies_nor_descriptors(user_store_url: str) -> None:
    with Supervised(user_store_url) as server:
        server.in_log("ready: all 2 processes")
        before = sorted(descriptors_of(server.pid))
        for restart in range(5):
            os.kill(server.children()[0], signal.SIGKILL)
            server.in_log("ready: all 2 processes", times=restart + 2)
        assert sorted(descriptors_of(server.pid)) == before
        assert [state_of(pid) in "RS" for pid in children_of(server.pid)] == [True, True]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_store_that_cannot_be_used_is_the_same_error(tmp_path: Path, processes: str) -> None:
    store = f"sqlite:///{tmp_path}/none.db"
    done = run("userprofile-server", "serve", "--store", store, "--listen", "127.0.0.1:0", "--processes", processes)
    assert done.returncode == 3
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: {tmp_path}/none.db doesn't exist; userprofile-server import creates it"]


def test_while_others_serve_a_process_whose_store_is_out_of_reach_does_not_listen() -> None:
    no_bucket_for_new_connections = {0x89: 0x01}
    with TestCluster() as cluster:
        with Supervised(f"couchbase://{cluster.hosts}/default", **COUCHBASE_CREDENTIALS) as server:
            server.in_log("ready: all 2 processes")
            first, second = server.children()
            cluster.fault(statuses=no_bucket_for_new_connections)
            os.kill(first, signal.SIGKILL)
            server.in_log("not listening before the store responds")
            assert listeners(server.address) == 1
            os.kill(second, signal.SIGKILL)
            server.in_log("serving couchbase://", times=4)  # for now there is none that would serve better
            cluster.fault()
            server.in_log("ready: all 2 processes", times=2)
            assert listeners(server.address) == 2


def listener(*options: int) -> socket.socket:
    listening = socket.socket()
    for option in options:
        listening.setsockopt(socket.SOL_SOCKET, option, 1)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening


@pytest.mark.parametrize("options", [[], [socket.SO_REUSEADDR], [socket.SO_REUSEPORT]])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_that_a_server_listens_on_is_the_same_error(
    user_store_url: str, options: list[int], processes: str
) -> None:
    with listener(*options) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = run(
            "userprofile-server", "serve", "--store", user_store_url, "--listen", address, "--processes", processes
        )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == f"error: can't listen on {address}: Address already in use"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_that_a_supervisor_has_is_taken_though_none_of_its_processes_listens(
    user_store_url: str, processes: str
) -> None:
    with Supervised(user_store_url) as server:
        children = server.children()
        for child in children:
            os.kill(child, signal.SIGKILL)
        stopped(children)
        args = ["--store", user_store_url, "--listen", server.address, "--processes", processes]
        done = run("userprofile-server", "serve", *args)
        assert done.stderr.splitlines()[-1] == f"error: can't listen on {server.address}: Address already in use"


def test_a_unix_socket_is_for_one_process(user_store_url: str, tmp_path: Path) -> None:
    args = ["--store", user_store_url, "--listen", f"unix:{tmp_path}/socket", "--processes", "2"]
    done = run("userprofile-server", "serve", *args)
    assert done.returncode == 2
    assert "Invalid value for '--processes': several processes can share a port, but not a Unix socket" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_drains_all_processes_and_a_second_one_cancels(user_store_url: str, number: int) -> None:
    with Supervised(user_store_url, "--drain-grace", "3600") as server, ExitStack() as stack:
        readers = slow_readers(server, stack)
        server.signal(number)
        eventually(lambda: all(each.told_that_the_connection_closes for each in readers), "the drain has begun")
        server.signal(signal.SIGHUP)  # a terminal that closes may send several
        assert server.running
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert "killed" not in server.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_processes_accept_calls_until_the_drain_but_not_after_ctrl_c(user_store_url: str, number: int) -> None:
    delay = {"USERPROFILE_SERVER_DRAIN_DELAY": "3600"}
    with Supervised(user_store_url, "--processes", "2", **delay) as server:
        server.signal(number)
        if number == signal.SIGTERM:
            eventually(lambda: server.stderr.count("not serving: new calls are accepted") == 2, lambda: server.stderr)
            assert len(processes_that_respond(server.address, 30)) == 2
            server.signal(number)
        assert server.wait() == 0


def test_when_processes_are_replaced_nobody_has_to_hear_of_it_first(user_store_url: str) -> None:
    delay = {"USERPROFILE_SERVER_DRAIN_DELAY": "3600"}
    with Supervised(user_store_url, "--processes", "2", **delay) as server:
        before = set(server.children())
        server.signal(signal.SIGHUP)
        eventually(lambda: len(server.children()) == 2 and not before & set(server.children()), lambda: server.stderr)
        server.signal(signal.SIGINT)
        assert server.wait() == 0


def test_a_signal_to_all_of_them_at_once_is_one_signal(user_store_url: str) -> None:
    """As systemd sends it."""
    with Supervised(user_store_url, "--drain-delay", "3600") as server:
        for pid in (server.pid, *server.children()):
            os.kill(pid, signal.SIGTERM)
        eventually(lambda: server.stderr.count("not serving: new calls are accepted") == 2, lambda: server.stderr)
        assert server.serves()
        assert server.running
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_signal_to_one_process_sends_its_clients_to_the_others_at_once(user_store_url: str) -> None:
    with Supervised(user_store_url, "--drain-delay", "3600") as server:
        first, _ = server.children()
        os.kill(first, signal.SIGTERM)
        server.in_log(f"process 1 (pid {first}) has got a signal to end")
        server.in_log("ready: all 2 processes", times=2)
        server.signal(signal.SIGINT)
        assert server.wait() == 0


def test_a_process_that_gets_a_signal_and_no_word_of_its_supervisor_ends(user_store_url: str) -> None:
    with Supervised(user_store_url, "--drain-delay", "3600") as server:
        children = server.children()
        server.signal(signal.SIGSTOP)
        for child in children:
            os.kill(child, signal.SIGTERM)
        eventually(lambda: [state_of(child) for child in children] == ["Z", "Z"], "they have ended")
        server.signal(signal.SIGCONT)
        server.in_log("ready: all 2 processes", times=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_before_all_listen_ends_it_at_once(number: int) -> None:
    with TestCluster() as cluster:
        cluster.fault(mute=True)
        store = f"couchbase://{cluster.hosts}/default"
        patient = {
            "USERPROFILE_SERVER_COUCHBASE_BOOTSTRAP_TIMEOUT": "600",
            "USERPROFILE_SERVER_COUCHBASE_CONNECT_TIMEOUT": "600",
        }
        with started(store, **COUCHBASE_CREDENTIALS, **patient) as process:
            eventually(lambda: len(children_of(process.pid)) == 2, "two processes start")
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=WAIT)
    assert process.returncode == 0
    assert stdout == b""
    assert f"{signal.Signals(number).name}: stopped before listening" in stderr.decode()


@contextmanager
def started(store: str, **env: str) -> "Iterator[subprocess.Popen[bytes]]":
    command = [PROGRAM, "serve", "--store", store, "--listen", "127.0.0.1:0", "--processes", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | env)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_when_the_supervisor_is_killed_its_processes_drain_and_end(user_store_url: str) -> None:
    with Supervised(user_store_url) as server:
        children = server.children()
        with grpc.insecure_channel(server.address) as channel:
            watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
            next(watch)
            server.signal(signal.SIGKILL)
            last = [response.status for response in watch]
        stopped(children)
        assert last == [health_pb2.HealthCheckResponse.NOT_SERVING]
        server.wait()
        assert server.stderr.count("the supervisor is gone: draining: calls in progress finish") == 2


def test_when_the_supervisor_is_killed_a_process_does_not_outlast_the_grace(user_store_url: str) -> None:
    with Supervised(user_store_url, "--drain-grace", "0.5") as server, ExitStack() as stack:
        slow_readers(server, stack)
        children = server.children()
        server.signal(signal.SIGKILL)
        stopped(children)


def test_a_process_that_hangs_is_killed_after_the_drains_limit(user_store_url: str) -> None:
    with Supervised(user_store_url, "--drain-grace", "0.1") as server:
        hanging, _ = server.children()
        os.kill(hanging, signal.SIGSTOP)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert f"process 1 (pid {hanging}) has not ended in time and is killed" in server.stderr
        assert not runs(hanging)


def test_supervisor_and_process_killed_together_leave_the_other_one_draining(user_store_url: str) -> None:
    with Supervised(user_store_url) as server:
        children = server.children()
        os.kill(children[0], signal.SIGKILL)
        server.signal(signal.SIGKILL)
        stopped(children)


# Rolling restarts.


@pytest.fixture
def config(tmp_path: Path, user_store_url: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(toml(user_store_url))
    return path


def toml(url: str, listen: str = "127.0.0.1:0", more: str = "workers = 2") -> str:
    return f'[store]\nurl = "{url}"\n[server]\nprocesses = 2\nlisten = "{listen}"\n{more}\n'


def test_sighup_replaces_all_processes_with_newly_read_settings(config: Path, user_store_url: str) -> None:
    with Supervised("", "--config", str(config)) as server:
        server.in_log(" with 2 workers", times=2)
        before = server.children()
        config.write_text(toml(user_store_url, more="workers = 3"))
        server.signal(signal.SIGHUP)
        while "SIGHUP: all 2 processes have the new settings" not in server.stderr:
            assert listeners(server.address) >= 2
            assert server.serves()
        server.in_log(" with 3 workers", times=2)
        assert not set(before) & set(server.children())
        os.kill(server.children()[0], signal.SIGKILL)
        server.in_log(" with 3 workers", times=3)  # and so has one that takes the place of a dead one
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_sighup_changes_the_number_of_processes(config: Path, user_store_url: str) -> None:
    with Supervised("", "--config", str(config)) as server:
        for processes in (3, 1, 2):
            config.write_text(toml(user_store_url).replace("processes = 2", f"processes = {processes}"))
            server.signal(signal.SIGHUP)
            server.in_log(f"SIGHUP: all {processes} processes have the new settings")
            eventually(lambda: len(server.children()) == processes, f"there are {processes}")  # noqa: B023
            assert server.serves()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (toml("sqlite:///x.db", more="workers = 0"), "Invalid value for '--workers' (from server.workers in "),
        ("[server", "isn't TOML"),
        (None, "can't be read: No such file or directory"),
        (toml("mysql://"), "a store's URL begins with one of"),
        (toml("sqlite:///x.db", listen="127.0.0.1:1"), "--listen has changed, which takes a new start"),
        (toml("sqlite:///x.db", listen="unix:x"), "several processes can share a port, but not a Unix socket"),
    ],
)
def test_sighup_with_wrong_settings_changes_nothing(config: Path, settings: str | None, says: str) -> None:
    with Supervised("", "--config", str(config)) as server:
        before = server.children()
        config.unlink() if settings is None else config.write_text(settings)
        server.signal(signal.SIGHUP)
        server.in_log("SIGHUP: nothing changes: ")
        assert says in server.stderr
        assert server.children() == before
        assert server.serves()


def test_sighup_with_a_store_that_is_not_there_keeps_all_processes(config: Path, tmp_path: Path) -> None:
    with Supervised("", "--config", str(config)) as server:
        before = server.children()
        config.write_text(toml(f"sqlite:///{tmp_path}/none.db"))
        server.signal(signal.SIGHUP)
        server.in_log(f"failed: {tmp_path}/none.db doesn't exist")
        server.in_log("not replaced: 1, 2 of 2 processes")
        eventually(lambda: server.children() == before, "the new one has ended")
        assert server.serves()


def test_sighup_while_one_is_under_way_comes_after_it(config: Path, user_store_url: str) -> None:
    with Supervised("", "--config", str(config)) as server:
        server.signal(signal.SIGHUP)
        server.in_log("SIGHUP: replacing all processes")
        config.write_text(toml(user_store_url, more="workers = 3"))
        server.signal(signal.SIGHUP)
        server.in_log("SIGHUP: all 2 processes have the new settings", times=2)
        server.in_log(" with 3 workers", times=2)


def test_sigterm_during_a_rolling_restart_ends_all(config: Path) -> None:
    with Supervised("", "--config", str(config)) as server:
        before = server.children()
        server.signal(signal.SIGHUP)
        eventually(lambda: set(server.children()) - set(before), "a new one starts")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        stopped(list(server.seen))


def test_a_process_that_dies_during_a_rolling_restart_is_replaced_as_well(config: Path) -> None:
    with Supervised("", "--config", str(config)) as server:
        before = server.children()
        server.signal(signal.SIGHUP)
        # Not how many there are: a busy machine may look again only when an old one has ended.
        eventually(lambda: set(server.children()) - set(before), "a new one starts")
        for child in server.children():
            send(child, signal.SIGKILL)
        server.in_log("ready: all 2 processes", times=2)
        assert server.serves()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_terminal_that_closes_ends_it(user_store_url: str, processes: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    terminal, other_end = pty.openpty()
    # The first process of a session is controlled from the terminal that it opens.
    on_terminal = ["sh", "-c", 'exec "$@" <"$0"', os.ttyname(other_end)]
    command = [PROGRAM, "serve", "--store", user_store_url, "--listen", "127.0.0.1:0", "--processes", processes]
    with log.open("ab") as opened:
        process = subprocess.Popen([*on_terminal, *command], stdout=opened, stderr=opened, start_new_session=True)
    try:
        eventually(lambda: "listening on" in log.read_text(), "it serves")
        children = children_of(process.pid)
        os.close(other_end)
        os.close(terminal)
        assert process.wait(WAIT) == 0
    finally:
        process.kill()
        process.wait()
    assert "SIGHUP: draining: calls in progress finish" in log.read_text()
    stopped(children)


def test_under_nohup_sighup_means_nothing(user_store_url: str) -> None:
    command = [PROGRAM, "serve", "--store", user_store_url, "--listen", "127.0.0.1:0", "--processes", "2"]
    nohup = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command]
    with subprocess.Popen(nohup, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            assert process.stdout.readline().startswith(b"listening on")
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGINT)
            assert b"SIGHUP" not in process.stderr.read()
            assert process.wait(WAIT) == 0
        finally:
            process.kill()


def test_a_stdout_that_nobody_reads_holds_up_neither_sighup_nor_the_drain(user_store_url: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    command = [PROGRAM, "serve", "--store", user_store_url, "--listen", "127.0.0.1:0", "--processes", "2"]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        os.close(writing)
        try:
            for line in process.stderr:
                if b"ready: all 2 processes" in line:
                    break
            process.send_signal(signal.SIGHUP)
            for line in process.stderr:
                if b"SIGHUP: all 2 processes have the new settings" in line:
                    break
            children = children_of(process.pid)
            process.send_signal(signal.SIGINT)
            assert b"SIGINT: draining" in process.stderr.read()
            assert process.wait(WAIT) == 0
        finally:
            process.kill()
    os.close(reading)
    stopped(children)


def test_stdout_that_is_closed_by_its_reader_is_an_error_and_leaves_no_process(user_store_url: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [PROGRAM, "serve", "--store", user_store_url, "--listen", "127.0.0.1:0"]
    with subprocess.Popen([*command, "--processes", "2"], stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        children: set[int] = set()
        while process.poll() is None:
            children |= set(children_of(process.pid))
            time.sleep(0.01)
        assert process.stderr is not None
        assert b"error: standard output can't be written: Broken pipe" in process.stderr.read()
    assert process.returncode == 3
    stopped(list(children))


def test_streams_that_are_closed_from_the_start_are_no_obstacle(user_store_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [PROGRAM, "serve", "--store", user_store_url, "--listen", address, "--processes", "2"]
    process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command])
    try:
        with grpc.insecure_channel(address) as channel:
            assert GetUser(channel)("johndoe", wait_for_ready=True).username == "johndoe"
        eventually(lambda: len(children_of(process.pid)) == 2, "both are there")
        children = children_of(process.pid)
    finally:
        process.terminate()
        assert process.wait(WAIT) == 0
    stopped(children)


@pytest.mark.skipif(len(cores.allowed()) < 2, reason="needs two cores")
@pytest.mark.parametrize(("pinning", "pinned"), [("auto", True), ("off", False)])
def test_as_many_processes_as_cores_have_one_each_unless_that_is_off(
    user_store_url: str, pinning: str, pinned: bool
) -> None:
    two = cores.allowed()[:2]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, two)
    try:
        server = FreshSupervised(user_store_url, "--pinning", pinning)
    finally:
        os.sched_setaffinity(0, before)
    with server:
        first, second = server.children()
        expected = [[two[0]], [two[1]]] if pinned else [two, two]
        assert [threads_on(first), threads_on(second)] == expected
        os.kill(first, signal.SIGKILL)
        server.in_log("ready: all 2 processes", times=2)
        (third,) = set(server.children()) - {second}
        assert threads_on(third) == expected[0]


def threads_on(pid: int) -> list[int]:
    """The cores that the threads of a process may use."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found |= os.sched_getaffinity(int(task.name))
    return sorted(found)


def test_with_more_cores_than_processes_none_is_pinned() -> None:
    settings = settings_for("sqlite:///x.db", processes=len(cores.allowed()) + 1)
    assert plan_for(settings).cores_of(1) == []
    assert plan_for(settings_for("sqlite:///x.db")).cores_of(1) == []


def test_auto_is_one_process_for_each_usable_core_and_one_for_a_unix_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable", lambda: 7)
    assert plan_for(settings_for("sqlite:///x.db", processes="auto")).processes == 7
    assert plan_for(settings_for("sqlite:///x.db", processes="auto", listen="unix:x")).processes == 1
    assert plan_for(loaded_settings("--processes", "auto")).processes == 7
    assert plan_for(loaded_settings(USERPROFILE_SERVER_PROCESSES="3")).processes == 3


def test_other_systems_have_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert plan_for(settings_for("sqlite:///x.db", processes="auto")).processes == 1
    with raises(ValueError, match="several processes need Linux"):
        plan_for(settings_for("sqlite:///x.db", processes=2))


@pytest.mark.parametrize("processes", ["0", "257", "many", "1.5"])
def test_processes_are_a_number_or_auto(user_store_url: str, processes: str) -> None:
    done = run("userprofile-server", "serve", "--store", user_store_url, "--processes", processes)
    assert done.returncode == 2
    assert "Invalid value for '--processes'" in done.stderr


def test_the_order_carries_all_settings_secrets_too() -> None:
    settings = settings_for(
        "couchbase://h/b", couchbase_username="u", couchbase_password="sesame", couchbase_ca="/ca", processes="auto"
    )
    read = Settings.model_validate(json.loads(json.dumps(to_plain(settings))))
    assert read == settings
    assert read.couchbase.password is not None
    assert read.couchbase.password.get_secret_value() == "sesame"


def test_sighup_to_a_process_that_is_just_starting_does_nothing(user_store_url: str) -> None:
    with FreshSupervised(user_store_url) as server:
        before = set(server.children())
        server.signal(signal.SIGHUP)
        eventually(lambda: set(server.children()) - before, "one is starting")
        for pid in set(server.children()) - before:
            os.kill(pid, signal.SIGHUP)
        server.in_log("SIGHUP: all 2 processes have the new settings")
