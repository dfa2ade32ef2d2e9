"""Limits calls that wait for their client: how many at a time, and for how long."""

import logging
import threading
import time
from collections.abc import Callable, Hashable

from userprofile_server.errors import DomainError, RequestIncompleteError, TooManyOpenCallsError

_log = logging.getLogger(__name__)

DRAIN_SECONDS = 0.1
"""Seconds that a call may wait for its client during the drain."""

_LOOKS = 10  # checks within the time that a call may wait
_SECONDS_BETWEEN_LOOKS = 1.0  # at most

End = Callable[[DomainError], object]


class WaitingCalls:
    """The calls of one kind that wait for their client, the longest-waiting first.

    If there are too many, the longest-waiting one is ended. Refusing the new one would be worse: every request takes a
    moment to arrive, so a few clients that send nothing could keep out all others.

    Several threads use it without a lock: removing a call from the dict is atomic, and the thread that does it ends the
    call or goes on with it.
    """

    def __init__(self, what: str, *, most: int, seconds: float) -> None:
        """At most `most` calls may wait at a time, for `seconds` each. `what` names them in the log."""
        self._what = what
        self._most = most
        self.seconds = seconds
        self._why = f"{what}: nothing more came within {seconds:g} s"
        self._calls: dict[Hashable, tuple[float, End]] = {}

    def __len__(self) -> int:
        """How many wait now."""
        return len(self._calls)

    def add(self, call: Hashable, end: End) -> None:
        """Calls `end` with an error, from any thread, if `call` waits too long or has to make room."""
        self._calls[call] = (time.monotonic(), end)
        while len(self._calls) > self._most and (oldest := self._oldest()) is not None:
            self._end(oldest, TooManyOpenCallsError(f"more than {self._most} {self._what}"))

    def remove(self, call: Hashable) -> bool:
        """Removes a call whose wait is over. Returns False if the call has been ended."""
        return self._calls.pop(call, None) is not None

    def end_overdue(self) -> None:
        """Ends calls that have waited too long."""
        latest = time.monotonic() - self.seconds
        while (oldest := self._oldest()) is not None:
            began, _ = self._calls.get(oldest, (latest, None))
            if began > latest:
                return
            self._end(oldest, RequestIncompleteError(self._why))

    def drain(self) -> None:
        """Reduces the wait to a tenth of a second from now on."""
        self.seconds = min(self.seconds, DRAIN_SECONDS)
        self._why = f"{self._what}: the server stops"

    def _oldest(self) -> Hashable | None:
        try:
            return next(iter(self._calls), None)
        except RuntimeError:  # another thread has just changed it
            return None

    def _end(self, call: Hashable, error: DomainError) -> None:
        if (entry := self._calls.pop(call, None)) is not None:
            entry[1](error)


class Reaper:
    """The thread that ends calls that have waited too long for their client."""

    def __init__(self, *kinds: WaitingCalls) -> None:
        """Takes all calls to check."""
        self._kinds = kinds
        self._pause = min(_SECONDS_BETWEEN_LOOKS, *(kind.seconds / _LOOKS for kind in kinds))
        self._woken = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def drain(self) -> None:
        """Ends calls after a tenth of a second from now on, so that the drain doesn't wait for silent clients."""
        for kind in self._kinds:
            kind.drain()
        self._pause = DRAIN_SECONDS / 2
        self._woken.set()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping = True
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._woken.wait(self._pause)
            self._woken.clear()
            for kind in self._kinds:
                try:
                    kind.end_overdue()
                except Exception:  # noqa: BLE001, the thread must survive
                    _log.exception("a call that has waited for too long could not be ended")
