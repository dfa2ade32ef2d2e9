"""A measured server process, and its resource usage according to the operating system."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CORES = os.sched_getaffinity(0)


class Usage(NamedTuple):
    """The resources of a server and its children."""

    cpu_seconds: float
    """Seconds of user and system time since the start."""
    resident_bytes: int
    threads: int
    context_switches: int


class Server:
    """A process that prints `listening on HOST:PORT`. The end of the block stops it and its children."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> None:
        """Starts the process and waits until it listens. Its stderr goes to `log`.

        Raises:
            RuntimeError: the process ended, or printed something else.
        """
        began = time.monotonic()
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                command,
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self.seconds_to_listen = time.monotonic() - began
        if not line.startswith(("listening on ", "couchbase://")):
            self.stop()
            raise RuntimeError(f"{command[0]} printed {line!r}; see {log}")
        self.address = line.removeprefix("listening on ").strip()

    def usage(self) -> Usage:
        """Returns what the process and its children have used so far."""
        cpu = resident = threads = switches = 0
        for pid in self.family():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu += int(fields[11]) + int(fields[12])
            threads += int(fields[17])
            resident += int(fields[21])
            for task in Path(f"/proc/{pid}/task").iterdir():
                with suppress(FileNotFoundError, ProcessLookupError):  # a spare thread has ended
                    for row in (task / "status").read_text().splitlines():
                        if "ctxt_switches" in row:
                            switches += int(row.split()[1])
        return Usage(cpu / _TICKS, resident * _PAGE, threads, switches)

    def stop(self) -> None:
        """Ends it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # our server drains without a delay
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Self:
        """Returns the server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        self.stop()

    def family(self) -> list[int]:
        """Returns the ids of the process and its descendants."""
        return _family(self._process.pid)


@contextmanager
def cores_apart(servers: Iterable[Server]) -> Iterator[None]:
    """Pins the servers to one core, and this process and its other children to the others, until the block ends.

    If threads of one interpreter migrate between cores, the cost of the interpreter lock varies: the same server took
    between 150 and 300 µs per call. Does nothing on a machine with one core.
    """
    if len(_CORES) == 1:
        yield
        return
    own = {max(_CORES)}
    theirs = {pid for server in servers for pid in server.family()}
    try:
        _move(theirs, own)
        _move(set(_family(os.getpid())) - theirs, _CORES - own)
        yield
    finally:
        _move(_family(os.getpid()), _CORES)


def _move(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Pins processes to these cores, with their current and future threads."""
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)


def _family(pid: int) -> list[int]:
    """Returns the ids of a process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family
