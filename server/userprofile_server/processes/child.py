"""A server process of a supervisor: `python -m userprofile_server.processes`, with a channel as standard input.

It serves like a single process, on a shared port. It ends on the supervisor's command, after a signal to itself, or
when the supervisor is gone.
"""

import functools
import logging
import os
import signal
import socket
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from userprofile_server import process, signals, standard_streams, stores
from userprofile_server.errors import SecurityError, StoreError
from userprofile_server.listen import ListenError
from userprofile_server.processes.channel import (
    CANCEL,
    DRAIN,
    FAILED,
    HAND_OVER,
    LISTEN,
    LISTENING,
    MARGIN_SECONDS,
    MEASURE,
    METRICS,
    NOT_READY,
    PING,
    PONG,
    READY,
    SIGNALLED,
    Channel,
    Message,
    Order,
)
from userprofile_server.settings import Settings
from userprofile_server.signals import EXIT_FAILED
from userprofile_server.telemetry.tracing_setup import tracing_from_environment

if TYPE_CHECKING:
    from userprofile_server.server import UserProfileServer

_log = logging.getLogger(__name__)

_STDIN = 0
_WORD_SECONDS = 1.0
"""Seconds that a signalled process waits for the supervisor's command before it drains anyway."""

_STARTED, _DRAINED, _ORPHANED = "started", "drained", "orphaned"


def main() -> NoReturn:
    """Serves as the supervisor's order says, until it has to end."""
    standard_streams.prepare()
    channel = Channel(socket.socket(fileno=_STDIN))
    messages: list[Message] | None = []
    while messages is not None and not messages:
        messages = channel.receive()
    if messages is None:  # the supervisor is gone
        signals.end_process(0)
    (_, fields), *others = messages
    order = Order(**fields)
    if order.cores:
        os.sched_setaffinity(0, order.cores)  # before other threads start, which inherit it
    child = _Child(Settings.model_validate(order.settings), channel, patient=order.patient)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # `pkill -HUP` means the supervisor, which replaces this process
    process.run(
        functools.partial(child.run, others),
        log=child.settings.log,
        name=f"process {order.number}, pid {os.getpid()}",
    )


class _Child:
    """One server. The main thread decides; others start and stop the server, and receive the supervisor's commands."""

    def __init__(self, settings: Settings, channel: Channel, *, patient: bool) -> None:
        self.settings = settings
        self._channel = channel
        self._patient = patient
        self._may_listen = threading.Event()
        self._happened: SimpleQueue[Message] = SimpleQueue()
        self._server: UserProfileServer | None = None

    def run(self, messages: list[Message], events: signals.Events) -> int:
        """Serves until it has to end, and returns the exit status. `messages` were received after the order."""
        self._events = events
        self._in_background(self._start)
        self._in_background(self._obey, messages)
        stopping = False
        while True:
            number = events.wait()
            what: str
            value: Any
            what, value = self._happened.get() if number is None else (SIGNALLED, number.name)
            if what == _DRAINED:
                _log.info("stopped")
                return 0
            if what == FAILED:
                return self._failed(value)
            if what == _STARTED:
                self._server = value
            elif self._server is None:
                _log.info("stopped before listening")
                return 0
            elif what == CANCEL:
                self._in_background(self._stop, 0.0)
            elif what == SIGNALLED:
                # If only this process was signalled, others can take over its clients at once. If all were, as by
                # systemd, the supervisor was too, and load balancers have to see NOT_SERVING before the drain.
                self._channel.send(SIGNALLED)
                self._later(_WORD_SECONDS, self._post, HAND_OVER)
            elif not stopping:
                stopping = True
                if what == _ORPHANED:
                    _log.warning("the supervisor is gone: draining: calls in progress finish")
                    # No supervisor is left to kill this process if the drain hangs.
                    limit = self.settings.server.longest_drain + MARGIN_SECONDS
                    self._later(limit, signals.end_process, EXIT_FAILED)
                else:
                    _log.info("draining: calls in progress finish")
                # Except for DRAIN, no delay: other processes have the port, or a new supervisor wants it.
                self._in_background(self._stop, None, None if what == DRAIN else 0.0)

    def _in_background(self, work: Any, *args: Any) -> None:
        threading.Thread(target=work, args=args, daemon=True).start()

    def _later(self, seconds: float, work: Any, *args: Any) -> None:
        timer = threading.Timer(seconds, work, args)
        timer.daemon = True
        timer.start()

    def _post(self, what: str, value: Any = None) -> None:
        self._happened.put((what, value))
        self._events.wake()

    def _start(self) -> None:
        try:
            # Imported in this thread, so that a signal ends the process during the import.
            from userprofile_server.server import UserProfileServer

            server = UserProfileServer(
                self.settings,
                share_port=True,
                on_ready=self._report_readiness,
                tracing=tracing_from_environment(stores.kind_of(self.settings.store.url)),
            )
            address = server.start(self._may_listen if self._patient else None)
        except Exception as error:  # noqa: BLE001, reported by the main thread
            self._post(FAILED, error)
        else:
            self._post(_STARTED, server)  # first, so that a command in response to the report finds the server
            self._channel.send(LISTENING, address)

    def _stop(self, grace: float | None, delay: float | None = None) -> None:
        assert self._server is not None
        self._server.stop(grace, delay=delay)
        self._send_metrics()  # the last calls are counted too
        self._post(_DRAINED)

    def _report_readiness(self, ready: bool) -> None:
        self._channel.send(READY if ready else NOT_READY)

    def _obey(self, messages: list[Message] | None) -> None:
        while messages is not None:
            for command, value in messages:
                if command == LISTEN:
                    self._may_listen.set()
                elif command == PING:
                    self._channel.send(PONG)
                elif command == MEASURE:
                    self._send_metrics()
                else:
                    self._post(command, value)
            messages = self._channel.receive()
        self._post(_ORPHANED)

    def _send_metrics(self) -> None:
        if self._server is None:
            return
        snapshot = None
        try:
            snapshot = self._server.snapshot().to_plain()
        except Exception:  # noqa: BLE001, a bug; without this thread, pings would get no response, and the server killed
            _log.exception("the metrics can't be read")
        self._channel.send(METRICS, snapshot)

    def _failed(self, error: Exception) -> int:
        if isinstance(error, StoreError | SecurityError | ListenError):
            self._channel.send(FAILED, str(error))
            return EXIT_FAILED
        self._channel.send(FAILED)
        raise error
