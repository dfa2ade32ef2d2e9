"""A server process under measurement: what it has used, by the operating system's own account."""

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
    """What a server and its children hold and have used."""

    cpu_seconds: float
    """User and system time since the start."""
    resident_bytes: int
    threads: int
    context_switches: int


class Server:
    """A process that prints `listening on HOST:PORT`; ended at the end of its block, with its children."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> None:
        """Starts it and waits until it listens. What it writes to stderr goes to `log`.

        Raises:
            RuntimeError: it ended, or said something else.
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
                for row in (task / "status").read_text().splitlines():
                    if "ctxt_switches" in row:
                        switches += int(row.split()[1])
        return Usage(cpu / _TICKS, resident * _PAGE, threads, switches)

    def stop(self) -> None:
        """Ends it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
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
        """Returns the ids of its process and of all below it."""
        return _family(self._process.pid)


@contextmanager
def cores_apart(servers: Iterable[Server]) -> Iterator[None]:
    """Gives the servers one core, and this process and all else below it the others, while the block lasts.

    Where threads of one interpreter wander between cores, what they pay for its lock depends on chance: the same
    server took between 150 and 300 µs a call. On a machine with one core, nothing is done.
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
    """Moves processes, with all threads that they have or will have, to these cores."""
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cores)


def _family(pid: int) -> list[int]:
    """Returns the ids of a process and of all below it."""
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
