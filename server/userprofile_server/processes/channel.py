"""The protocol between a supervisor and its servers: lines of JSON over a socket pair.

The supervisor's first message is the order. It contains the settings and their secrets, which arguments and files would
expose. If the process at one end exits, the other end reads the end of the stream.
"""

import json
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

LISTEN, PING, MEASURE, DRAIN, HAND_OVER, CANCEL = "listen", "ping", "measure", "drain", "hand over", "cancel"
"""Commands of the supervisor. LISTEN: although no store responds. PING: respond with PONG. MEASURE: with METRICS.
DRAIN: as after SIGTERM. HAND_OVER: drain without the delay, because other servers take over the port. CANCEL: the calls
in progress, and end."""

LISTENING, READY, NOT_READY, PONG = "listening", "ready", "not ready", "pong"
FAILED, SIGNALLED, METRICS = "failed", "signalled", "metrics"
"""Reports of the server. LISTENING carries the address, METRICS a snapshot, or None after an error. FAILED: it can't
start; carries the reason as text, or None if it was logged. SIGNALLED: it received a signal to end, and waits for the
supervisor's command."""

MARGIN_SECONDS = 5.0
"""Seconds after its longest drain at which a server that hasn't ended is killed."""

_MOST_BYTES = 4 * 1024 * 1024
"""The longest message; metrics are some ten thousand bytes. Whoever sends more is out of order, and counts as gone."""

Message = tuple[str, Any]


@dataclass(frozen=True)
class Order:
    """The configuration of one server process."""

    number: int
    """The server's number, from 1, for the log."""
    settings: dict[str, Any]
    """The settings by group and key, with secrets; see `settings_base.to_plain`."""
    cores: Sequence[int]
    """The cores to pin the process to; empty for all."""
    patient: bool
    """Whether to listen only after a store has responded, because other servers are serving."""

    def message(self) -> Message:
        """Returns the message for this order."""
        return "order", asdict(self)


class Channel:
    """One end. A message that the other end doesn't take is dropped: its process is gone or about to be killed."""

    def __init__(self, connection: socket.socket) -> None:
        """Takes one of a pair of stream sockets."""
        self._socket = connection
        self._sending = threading.Lock()  # several threads report
        self._received = b""

    def fileno(self) -> int:
        """Returns the file descriptor, for polling."""
        return self._socket.fileno()

    def send(self, kind: str, value: Any = None) -> None:
        """Sends one message."""
        with suppress(OSError), self._sending:
            self._socket.sendall(json.dumps([kind, value]).encode() + b"\n")

    def receive(self) -> list[Message] | None:
        """Returns the complete messages received so far, perhaps none; returns None if the other end is gone.

        Waits for one unless the socket is non-blocking. A message that is larger than one read is read on.
        """
        lines: list[bytes] = []
        while not lines:
            try:
                data = self._socket.recv(65_536)
            except BlockingIOError:
                return []
            except OSError:
                return None
            if not data:
                return None
            *lines, self._received = (self._received + data).split(b"\n")
            if len(self._received) > _MOST_BYTES:
                return None
        return [(kind, value) for kind, value in map(json.loads, lines)]

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
