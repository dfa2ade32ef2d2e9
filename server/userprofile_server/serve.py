"""`userprofile-server serve` in one process: prints where it listens, waits for signals, drains."""

import logging
import signal
import threading

import click

from userprofile_server import signals, stores
from userprofile_server.errors import SecurityError, StoreError
from userprofile_server.listen import ListenError
from userprofile_server.listeners import parse_listeners
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import Settings
from userprofile_server.signals import EXIT_FAILED
from userprofile_server.standard_streams import OutputError
from userprofile_server.telemetry.tracing_setup import tracing_from_environment

_log = logging.getLogger(__name__)

_STDOUT = 1


def serve(settings: Settings, events: signals.Events) -> int:
    """Serves until a signal ends it, and returns the exit status."""
    started: list[tuple[UserProfileServer, str] | Exception] = []

    # Starts on another thread, so that a signal ends the process even during a blocking call of the SDK, DNS or a file.
    def start() -> None:
        try:
            tracing = tracing_from_environment(stores.kind_of(settings.store.url))
            server = UserProfileServer(settings, tracing=tracing)
            started.append((server, server.start()))
        except Exception as error:  # noqa: BLE001, reported below
            started.append(error)
        events.wake()

    def drain() -> None:
        server.stop(delay=0 if stopped_by == signal.SIGINT else None)  # no delay for a person at a terminal
        events.wake()

    threading.Thread(target=start, name="start", daemon=True).start()
    stopped_by = events.wait()
    if stopped_by is not None:
        _log.info("%s: stopped before listening", stopped_by.name)
        return 0
    (result,) = started
    if isinstance(result, StoreError | SecurityError | ListenError):
        click.echo(f"error: {result}", err=True)
        return EXIT_FAILED
    if isinstance(result, Exception):
        raise result
    server, listening = result
    if events.wait_writable(_STDOUT):  # False: nobody reads stdout, and a signal came first
        try:
            click.echo("\n".join(f"listening on {listener}" for listener in parse_listeners(listening)))
        except OutputError as error:
            server.stop(grace=0)
            click.echo(f"error: {error}", err=True)
            return EXIT_FAILED
    stopped_by = events.wait()
    assert stopped_by is not None  # no other thread wakes it yet
    _log.info("%s: draining: calls in progress finish", stopped_by.name)
    threading.Thread(target=drain, name="drain", daemon=True).start()
    while (again := events.wait()) is not None:
        if again != signal.SIGHUP:  # a closing terminal may send several
            server.stop(grace=0)
    _log.info("stopped")
    return 0
