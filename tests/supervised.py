"""A supervisor with its server processes, and what the system knows of them."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import grpc

from tests.support import GetUser, ServerProcess, eventually


class Supervised(ServerProcess):
    """`userprofile-server serve` with two processes, or as `args` and `env` say. None of them outlives the block."""

    def __init__(self, store_url: str, *args: str, **env: str) -> None:
        self.seen: set[int] = set()
        super().__init__(store_url, *(["--processes", "2"] if store_url else []), *args, **env)

    def children(self) -> list[int]:
        """The process ids of its servers, the oldest first."""
        found = children_of(self.pid)
        self.seen |= set(found)
        return found

    def in_log(self, text: str, times: int = 1) -> None:
        """Waits until the log says so."""
        eventually(lambda: self.stderr.count(text) >= times, lambda: f"{text!r} in the log:\n{self.stderr}")

    def serves(self) -> bool:
        """Whether a new connection is served."""
        with grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            return GetUser(channel)("johndoe", wait_for_ready=True).username == "johndoe"

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGSTOP)  # else it might start another one after the look at them
        self.children()
        for pid in self.seen:  # before its end is waited for: they have its standard error, and may drain for an hour
            if is_server(pid):
                send(pid, signal.SIGKILL)
        super().__exit__()


def children_of(pid: int) -> list[int]:
    """The process ids of its children, zombies too, the oldest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid:
                found.append((int(fields[19]), int(path.parent.name)))
    return [child for _, child in sorted(found)]


def send(pid: int, number: signal.Signals) -> None:
    """Sends it the signal if it's still there: whoever was there at the look may have ended since."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def state_of(pid: int) -> str:
    """R, S, T, Z or whatever ps calls it; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def is_server(pid: int) -> bool:
    """Whether it is a server process of a supervisor, and not another one that has got its id since."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"userprofile_server.processes" in command or b"tests.fork_server" in command


def runs(pid: int) -> bool:
    """Whether this server process is there and isn't a zombie."""
    return is_server(pid) and state_of(pid) not in ("Z", "X", "")


def descriptors_of(pid: int) -> dict[str, str]:
    """What its open files are."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found[path.name] = str(path.readlink())
    return found


def stopped(pids: list[int]) -> None:
    """Waits until none of these server processes is left."""
    eventually(lambda: not any(runs(pid) for pid in pids), lambda: f"{[pid for pid in pids if runs(pid)]} are left")
