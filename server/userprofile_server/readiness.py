"""Readiness: whether health reports SERVING, decided by when the store last responded."""

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)

_INTERVAL = 0.1


class Readiness:
    """One response of the store makes the server ready; only `unready_after` seconds without one make it unready."""

    def __init__(
        self, responded_at: Callable[[], float], *, unready_after: float, on_change: Callable[[bool], None]
    ) -> None:
        """`responded_at` returns monotonic time, `unready_after` is in seconds; `on_change` gets every new status."""
        self._responded_at = responded_at
        self._unready_after = unready_after
        self._on_change = on_change
        self._ready = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="readiness", daemon=True)

    def start(self) -> None:
        """Updates the status at once, and from now on in the background."""
        self._update()
        self._thread.start()

    def stop(self) -> None:
        """Stops the updates."""
        self._stopping.set()

    def _watch(self) -> None:
        while not self._stopping.wait(_INTERVAL):
            self._update()

    def _update(self) -> None:
        ready = time.monotonic() - self._responded_at() < self._unready_after
        if ready != self._ready:
            self._ready = ready
            self._on_change(ready)
            if ready:
                _log.info("ready")
            else:
                _log.error("not ready: no successful read for %g s", self._unready_after)
