"""The supervisor's handle of a server process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from userprofile_server.processes.channel import (
    FAILED,
    LISTENING,
    MEASURE,
    METRICS,
    NOT_READY,
    PING,
    PONG,
    READY,
    SIGNALLED,
    Channel,
    Order,
)
from userprofile_server.settings import Settings
from userprofile_server.settings_base import to_plain
from userprofile_server.telemetry.snapshot import Snapshot

# -P: otherwise a folder or file in the working directory could shadow a package.
COMMAND = (sys.executable, "-P", "-m", "userprofile_server.processes")

_BUSY_SECONDS = 5.0
"""Seconds of CPU. A runnable process that has had less than this since a ping is waiting for a core; one that has had
more hangs in a loop. A response takes less than a millisecond."""


class Spawned:
    """A process that starts on construction. `receive` reads its reports; call `ended` once it has been reaped."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        *,
        cores: Sequence[int] = (),
        patient: bool = False,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """Starts the process in its own session, so that Ctrl-C reaches only the supervisor.

        Raises:
            OSError: the system can't start another process.
        """
        self.number = number
        self.settings = settings
        self.address: str | None = None
        """The address that it listens on; None before that."""
        self.ready = False
        self.failed = False
        self.failure: str | None = None
        """Why it failed, as text for operators; None if it logged the reason itself."""
        self.signalled_at = float("inf")
        """When it reported a signal to end, by the monotonic clock."""
        self.told_to_listen = not patient
        self.ending = False
        self.kill_at = float("inf")
        self.listening_since = float("inf")
        """Since when it has listened, by the monotonic clock."""
        self.unanswered = 0
        """1 after a ping, plus 1 for each later check at which it could have responded and hadn't; 0 after a PONG."""
        self._cpu_at_ping = 0.0
        self.snapshot = Snapshot()
        """Its latest metrics."""
        self._measuring = False
        ours, theirs = socket.socketpair()
        self.channel: Channel | None = Channel(ours)
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603, our own
                    command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
                )
        except OSError:
            ours.close()
            raise
        self.pid = self._process.pid
        self.channel.send(*Order(number, to_plain(settings), list(cores), patient).message())
        ours.setblocking(False)

    def __str__(self) -> str:
        """Returns its name for the log."""
        return f"process {self.number} (pid {self.pid})"

    @property
    def serves(self) -> bool:
        """Whether it listens and its health reports SERVING."""
        return self.ready and self.address is not None

    def receive(self) -> bool:
        """Reads and records its reports. Returns False if there were none."""
        messages = self.channel.receive() if self.channel is not None else []
        if messages is None:  # it is ending, or has ended
            self._close()
            return False
        for kind, value in messages:
            if kind == LISTENING:
                self.address, self.listening_since = value, time.monotonic()
            elif kind in (READY, NOT_READY):
                self.ready = kind == READY
            elif kind == PONG:
                self.unanswered = 0
            elif kind == METRICS:
                self._measuring = False
                if value is not None:
                    self.snapshot = Snapshot.from_plain(value)
            elif kind == FAILED:
                self.failed, self.failure = True, value
            elif kind == SIGNALLED:
                self.signalled_at = time.monotonic()
        return bool(messages)

    def tell(self, command: str) -> None:
        """Sends a command to the process."""
        if self.channel is not None:
            self.channel.send(command)

    def measure(self) -> None:
        """Asks for its metrics, unless it hasn't responded to the last request yet."""
        if self.address is not None and not self._measuring:
            self._measuring = True
            self.tell(MEASURE)

    def ping(self) -> None:
        """Sends a ping; if one is unanswered, counts this check, unless the process couldn't have responded."""
        if self.unanswered == 0:
            self._cpu_at_ping = self._look()[1]
            self.tell(PING)
            self.unanswered = 1
        else:
            states, cpu_seconds = self._look()
            waits = not states.isdisjoint("RD") and cpu_seconds - self._cpu_at_ping < _BUSY_SECONDS
            self.unanswered += not waits

    def _look(self) -> tuple[set[str], float]:
        """Returns the states of its threads (proc(5)), and the CPU seconds that it has used."""
        states, ticks = set(), 0
        with suppress(OSError):  # no /proc, or the thread has ended
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                states.add(fields[0])
                ticks += int(fields[11]) + int(fields[12])
        return states, ticks / os.sysconf("SC_CLK_TCK")

    def end(self, command: str, within: float) -> None:
        """Ends it by DRAIN, HAND_OVER or CANCEL. It is overdue after `within` seconds, or at an earlier limit."""
        self.tell(command)
        self.ending = True
        self.kill_at = min(self.kill_at, time.monotonic() + within)

    def kill(self) -> None:
        """Ends it by SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)  # Popen.kill could reap it, and the supervisor would miss its end
        self.ending = True
        self.kill_at = float("inf")

    def ended(self, exit_code: int) -> None:
        """Records that it has been reaped. `exit_code` is negative for a signal."""
        while self.receive():  # its last reports
            pass
        self._close()
        self._process.returncode = exit_code
        self.ready = False

    def _close(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None
