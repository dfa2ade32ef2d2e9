"""A process that serves or supervises: its signals, its log, and its exit status."""

import logging
from collections.abc import Callable
from typing import NoReturn

from userprofile_server import signals
from userprofile_server.telemetry import logs

_log = logging.getLogger(__name__)


def run(work: Callable[[signals.Events], int], *, log: logs.LogSettings, name: str | None = None) -> NoReturn:
    """Runs `work`, and ends the process with the exit status that it returns.

    `name` is in each line of the log, to tell apart several processes that share one log.
    """
    events = signals.Events()
    writer = logs.configure(log, name)
    try:
        status = work(events)
    except Exception:  # noqa: BLE001, a bug, and the last chance to log it
        _log.exception("the server failed")
        status = signals.EXIT_FAILED
    writer.close()
    signals.end_process(status)
