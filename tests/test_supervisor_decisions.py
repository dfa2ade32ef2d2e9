"""What a supervisor decides about servers that crash, hang, are late or never get ready; see fake_server.py."""

import ctypes
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.fork_server import Forked, start
from tests.supervised import children_of, descriptors_of, send, state_of
from tests.support import WAIT, eventually
from userprofile_server.processes.spawned import COMMAND
from userprofile_server.processes.supervisor import _pause

ROOT = Path(__file__).parent.parent
SUBREAPER = 36
PINGING = "from userprofile_server.processes import supervisor; supervisor._PING_SECONDS = {}"


class Supervising:
    """A supervisor of fake servers."""

    def __init__(self, *does: str, command: Sequence[str] | None = None, before: str = "") -> None:
        self.process: subprocess.Popen[bytes] | Forked
        if command or before:
            given = "" if command is None else f", command={list(command)!r}"
            code = f"{before}\nfrom tests.fake_supervisor import supervise; supervise(*{does!r}{given})"
            pipe = subprocess.PIPE
            self.process = subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, cwd=ROOT)
        else:
            self.process = start("fake-supervisor", does, {})
            assert self.process.stdin is not None
            self.process.stdin.close()
        self.stdout = self.stderr = ""
        self.seen: set[int] = set()
        self._readers = [threading.Thread(target=self._read, args=[name]) for name in ("stdout", "stderr")]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        with getattr(self.process, name) as stream:
            for line in stream:
                setattr(self, name, getattr(self, name) + line.decode())

    def listens(self) -> "Supervising":
        eventually(lambda: "listening on" in self.stdout, lambda: self.stderr)
        return self

    def children(self) -> list[int]:
        found = children_of(self.process.pid)
        self.seen |= set(found)
        return found

    def in_log(self, text: str, times: int = 1) -> None:
        eventually(lambda: self.stderr.count(text) >= times, lambda: f"{text!r} in the log:\n{self.stderr}")

    def wait(self) -> int:
        status = self.process.wait(WAIT)
        for reader in self._readers:
            reader.join()
        return status

    def __enter__(self) -> "Supervising":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)  # else it might start another one after the look at them
        self.children()
        self.process.kill()
        self.process.wait()
        for pid in self.seen:
            if is_fake(pid):
                send(pid, signal.SIGKILL)
        for reader in self._readers:
            reader.join()


def is_fake(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"tests.fake_server" in command or b"tests.fork_server" in command


@pytest.mark.parametrize("does", ["crash", "crash later"])
def test_where_none_stays_up_it_gives_up_in_words(does: str) -> None:
    with Supervising(does) as supervisor:
        assert supervisor.wait() == 3
        (error,) = (line for line in supervisor.stderr.splitlines() if line.startswith("error: "))
        assert re.fullmatch(
            r"error: no server process stays up; the last one: process \d \(pid \d+\) has ended with exit status 7",
            error,
        )
        assert supervisor.stderr.count("has ended with exit status 7") > 10


def test_a_program_that_cannot_be_started_is_given_up_too() -> None:
    with Supervising("well", command=["/no/such/program"]) as supervisor:
        assert supervisor.wait() == 3
        assert re.search(
            r"^error: no server process stays up; .*: process \d can't be started: No such file or directory$",
            supervisor.stderr,
            re.MULTILINE,
        )


def test_the_pause_doubles_up_to_the_longest() -> None:
    with Supervising("second crashes") as supervisor:
        supervisor.in_log("next try in 0.05 s")
        pauses = re.findall(r"next try in ([\d.]+) s", supervisor.stderr)
    assert pauses[:4] == ["0.01", "0.02", "0.04", "0.05"]


def test_the_pause_stays_the_longest_for_however_long_it_fails() -> None:
    assert [_pause(failures) for failures in (0, 1, 6, 7, 100, 100_000)] == [0.1, 0.2, 6.4, 10, 10, 10]


def test_the_pause_is_the_first_again_after_one_that_was_well_for_a_while() -> None:
    with Supervising("crash when proven") as supervisor:
        supervisor.in_log("next try in", times=6)
        assert set(re.findall(r"next try in ([\d.]+) s", supervisor.stderr)) == {"0.01"}
        assert supervisor.process.poll() is None


def test_where_another_one_serves_it_goes_on_trying() -> None:
    with Supervising("second crashes") as supervisor:
        supervisor.in_log("has ended with exit status 7; next try", times=20)
        assert supervisor.process.poll() is None
        supervisor.process.terminate()
        assert supervisor.wait() == 0
        assert supervisor.stdout == ""  # they never all listened


@pytest.mark.parametrize("does", ["unready", "silent"])
def test_a_replacement_that_does_not_get_ready_in_time_is_none(does: str) -> None:
    with Supervising("well", does).listens() as supervisor:
        before = supervisor.children()
        supervisor.process.send_signal(signal.SIGHUP)
        supervisor.in_log("has not become ready in 0.5 s; not replaced: 1, 2 of 2 processes")
        eventually(lambda: supervisor.children() == before, "the late one has ended")


def test_a_replacement_that_crashes_is_none() -> None:
    with Supervising("well", "crash", "well").listens() as supervisor:
        before = supervisor.children()
        supervisor.process.send_signal(signal.SIGHUP)
        supervisor.in_log("has ended with exit status 7; not replaced: 1, 2 of 2 processes")
        assert supervisor.children() == before
        supervisor.process.send_signal(signal.SIGHUP)
        supervisor.in_log("SIGHUP: all 2 processes have the new settings")
        assert not set(supervisor.children()) & set(before)


def test_a_rolling_restart_that_stops_half_way_says_who_has_which_settings() -> None:
    with Supervising("well", "second crashes", "well").listens() as supervisor:
        first, second = supervisor.children()
        supervisor.process.send_signal(signal.SIGHUP)
        supervisor.in_log("has ended with exit status 7; not replaced: 2 of 2 processes")
        assert first not in supervisor.children()
        assert second in supervisor.children()


def test_an_old_process_that_does_not_leave_is_killed() -> None:
    with Supervising("deaf", "well").listens() as supervisor:
        before = supervisor.children()
        supervisor.process.send_signal(signal.SIGHUP)
        supervisor.in_log("SIGHUP: all 2 processes have the new settings")
        assert supervisor.stderr.count("has not ended in time and is killed") == 2
        assert not set(supervisor.children()) & set(before)


@pytest.mark.parametrize("signals", [1, 2, 5])
def test_processes_that_do_not_leave_are_killed_and_it_ends(signals: int) -> None:
    with Supervising("deaf").listens() as supervisor:
        for _ in range(signals):
            supervisor.process.terminate()
        assert supervisor.wait() == 0
        assert supervisor.stderr.count("has not ended in time and is killed") == 2


def test_a_process_that_hangs_is_killed_and_replaced_and_only_that_one() -> None:
    with Supervising("first hangs").listens() as supervisor:
        first, second = supervisor.children()
        supervisor.in_log(f"process 1 (pid {first}) does not respond; it is killed if that lasts for 2.4 s")
        supervisor.in_log(f"process 1 (pid {first}) hangs and is killed")
        supervisor.in_log(f"process 1 (pid {first}) was ended by SIGKILL; next try in")
        eventually(lambda: {first} != set(supervisor.children()) - {second} != set(), "it is replaced")
        assert second in supervisor.children()
        supervisor.process.terminate()
        assert supervisor.wait() == 0


def test_a_process_that_responds_late_stays() -> None:
    with Supervising("first hangs").listens() as supervisor:
        first, _ = supervisor.children()
        supervisor.in_log(f"process 1 (pid {first}) does not respond")
        os.kill(first, signal.SIGCONT)
        supervisor.in_log(f"process 1 (pid {first}) responds again")
        supervisor.process.terminate()
        assert supervisor.wait() == 0
        assert "killed" not in supervisor.stderr.replace("it is killed if", "")


def test_a_machine_that_stands_still_makes_nobody_late() -> None:
    with Supervising("well", before=PINGING.format(0.2)).listens() as supervisor:
        processes = [supervisor.process.pid, *supervisor.children()]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(3)  # longer than it takes until one that hangs is killed
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)
        assert "hangs" not in supervisor.stderr
        supervisor.process.terminate()
        assert supervisor.wait() == 0


def test_a_real_process_that_hangs_is_replaced_too(user_store_url: str) -> None:
    store = user_store_url.removeprefix("sqlite:///")
    with Supervising(store, command=COMMAND, before=PINGING.format(0.5)).listens() as supervisor:
        supervisor.in_log("ready: all 2 processes")
        first, second = supervisor.children()
        os.kill(first, signal.SIGSTOP)
        supervisor.in_log("ready: all 2 processes", times=2)
        assert f"process 1 (pid {first}) hangs and is killed" in supervisor.stderr
        assert second in supervisor.children()
        supervisor.process.terminate()
        assert supervisor.wait() == 0


@pytest.mark.parametrize("does", ["well", "loops"])
def test_a_process_that_waits_for_a_core_stays_and_one_in_an_endless_loop_does_not(does: str) -> None:
    code = PINGING.format(0.05) + "; from userprofile_server.processes import spawned; spawned._BUSY_SECONDS = 0.5"
    with Supervising(does, before=code).listens() as supervisor, ExitStack() as others:
        if does == "well":
            core = {min(os.sched_getaffinity(0))}
            for _ in range(3):
                others.enter_context(busy(core))
            for pid in supervisor.children():
                os.sched_setaffinity(pid, core)
                os.setpriority(os.PRIO_PROCESS, pid, 19)
                with suppress(OSError):  # where each session has its share, however nice its processes are
                    Path(f"/proc/{pid}/autogroup").write_text("19")
            time.sleep(4)
            assert "hangs" not in supervisor.stderr
        else:
            supervisor.in_log("hangs and is killed", times=2)


@contextmanager
def busy(core: set[int]) -> Iterator[None]:
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"], start_new_session=True)
    os.sched_setaffinity(process.pid, core)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_while_settings_are_read_it_watches_over_its_processes_and_a_signal_ends_it() -> None:
    slow = "import time; from tests import fake_supervisor; fake_supervisor.next = lambda _: time.sleep(3600)"
    with Supervising("well", before=slow).listens() as supervisor:
        first, second = supervisor.children()
        supervisor.process.send_signal(signal.SIGHUP)
        supervisor.in_log("SIGHUP: reading the settings")
        os.kill(first, signal.SIGKILL)
        supervisor.in_log(f"process 1 (pid {first}) was ended by SIGKILL")
        supervisor.in_log("ready: all 2 processes", times=2)
        supervisor.process.send_signal(signal.SIGHUP)
        supervisor.in_log("SIGHUP: waits for the end of the one before")
        supervisor.process.terminate()
        assert supervisor.wait() == 0
        assert second in supervisor.seen


def test_a_parent_that_has_blocked_sigchld_hides_no_end_of_a_process() -> None:
    block = "import signal, tests; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD]); "
    with Supervising("closes its channel", before=block + PINGING.format(3600)).listens() as supervisor:
        # Two of its own, and one that keeps the port: nothing but the signal will tell of an end.
        eventually(lambda: len(sockets_of(supervisor.process.pid)) == 3, "both channels are closed")
        first, _ = supervisor.children()
        os.kill(first, signal.SIGKILL)
        supervisor.in_log(f"process 1 (pid {first}) was ended by SIGKILL")


def sockets_of(pid: int) -> list[str]:
    return [name for name in descriptors_of(pid).values() if name.startswith("socket:")]


def test_as_the_first_process_of_a_container_it_waits_for_what_others_leave() -> None:
    assert hasattr(ctypes.CDLL(None), "prctl")
    adopt = f"import ctypes; ctypes.CDLL(None).prctl({SUBREAPER}, 1)"
    with Supervising("leaves a child", before=adopt).listens() as supervisor:
        for child in supervisor.children():
            send(child, signal.SIGKILL)
        supervisor.in_log("was ended by SIGKILL", times=2)
        eventually(lambda: len(supervisor.children()) >= 2, "they are started again")
        time.sleep(0.3)  # those that were left have ended by now
        eventually(lambda: all(state_of(pid) != "Z" for pid in supervisor.children()), "there is no zombie")


SENT = {
    "supervisor": [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGINT, signal.SIGQUIT],
    "server": [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGSEGV],
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_whoever_is_hit_at_whatever_moment_none_is_left(seed: int) -> None:
    chance = random.Random(seed)
    with Supervising("well", *["well"] * 10) as supervisor:
        for _ in range(chance.randint(1, 6)):
            time.sleep(chance.uniform(0, 0.3))
            children = supervisor.children()
            whom = chance.choice(["supervisor", "server"])
            if whom == "supervisor" or not children:
                supervisor.process.send_signal(chance.choice(SENT["supervisor"]))
            else:
                send(chance.choice(children), chance.choice(SENT["server"]))
        supervisor.children()
        supervisor.process.terminate()
        status = supervisor.wait()
        if "supervising" in supervisor.stderr:  # else it wasn't that far yet
            assert status in (0, -signal.SIGKILL)
        for pid in supervisor.seen:
            if state_of(pid) == "T":  # the supervisor was killed, and nothing else can be done for it
                assert status == -signal.SIGKILL
                send(pid, signal.SIGCONT)
        eventually(lambda: not any(is_fake(pid) for pid in supervisor.seen), lambda: supervisor.stderr)
        assert "the server failed" not in supervisor.stderr
