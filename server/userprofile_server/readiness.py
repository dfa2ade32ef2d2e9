"""Readiness: whether this server should be sent calls, judged by when its store has last answered."""

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

_INTERVAL = 0.1


class Readiness:
    """Says so whenever it changes. A store that answers once makes ready; only a long silence makes unready."""

    def __init__(self, answered_at: Callable[[], float], *, unready_after: float, tell: Callable[[bool], None]) -> None:
        """`answered_at` is by the monotonic clock, `unready_after` in seconds; `tell` hears of every change."""
        self._answered_at = answered_at
        self._unready_after = unready_after
        self._tell = tell
        self._ready = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="readiness", daemon=True)

    def start(self) -> None:
        """Judges once, and from now on in the background."""
        self._judge()
        self._thread.start()

    def stop(self) -> None:
        """Judges no more."""
        self._stopping.set()

    def _watch(self) -> None:
        while not self._stopping.wait(_INTERVAL):
            self._judge()

    def _judge(self) -> None:
        ready = time.monotonic() - self._answered_at() < self._unready_after
        if ready != self._ready:
            self._ready = ready
            self._tell(ready)
            _log.log(
                logging.INFO if ready else logging.ERROR, "%s", "ready" if ready else "not ready: no store answers"
            )
