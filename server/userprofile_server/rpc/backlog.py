"""Calls that wait for a worker: admission by estimated waiting time, and fair queueing by caller.

Each caller has a queue; the queues are served round robin, and the waiting time is bounded, like FQ-CoDel for packets
(https://www.rfc-editor.org/rfc/rfc8290): a short burst may queue, a standing queue may not. The estimate follows from
the recent rate at which workers take calls, so a call that would wait too long is refused at once. If the store slows
down after a call was admitted, the executor refuses the late call when its turn comes.
"""

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

_SMOOTHING = 1 / 16
_LONGEST_INTERVAL = 1.0  # seconds between two calls that are taken; a longer interval doesn't predict the next one


class _Queue(Generic[T]):
    """The calls of one caller."""

    __slots__ = ("calls", "late_since")

    def __init__(self) -> None:
        self.calls: deque[tuple[float, int, T]] = deque()
        """For each call: when it was queued, the size of its request in bytes, and the call."""
        self.late_since: float | None = None
        """Since when calls have waited at least the target; None once one has waited less than half of it."""


class Backlog(Generic[T]):
    """The queued calls of all callers. Used only while all workers are busy; its lock is held for microseconds."""

    def __init__(
        self,
        *,
        target: float,
        burst: float,
        least: int,
        most: int,
        most_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes the bounds.

        Args:
            target: Seconds that a call may wait once calls have waited longer than this for `burst` seconds.
            burst: Seconds that a call may wait otherwise.
            least: Number of calls of each caller that may wait for `burst` in any case.
            most: Maximum number of queued calls.
            most_bytes: Maximum size of all queued requests together.
            clock: Returns seconds.
        """
        self.target = target
        self.burst = burst
        self._least = least
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        self._queues: OrderedDict[Hashable, _Queue[T]] = OrderedDict()
        self.waiting = 0
        """How many calls wait. Read without the lock, before every call: a method would cost more."""
        self._bytes = 0
        self._interval = 0.0
        """Moving average of the seconds between two calls that are taken while others wait. 0 admits every call."""
        self._last_taken = 0.0
        """When a call was last taken, or put into an empty backlog."""
        self._lock = threading.Lock()

    def admits(self, caller: Hashable, remaining: float) -> bool:
        """Returns whether a call of `caller` would be admitted now. Its deadline is in `remaining` seconds."""
        with self._lock:
            return self._admits(caller, remaining)

    def put(self, caller: Hashable, call: T, *, remaining: float = math.inf, size: int = 0) -> bool:
        """Queues a call with a request of `size` bytes. Returns False if it isn't admitted; see `admits`."""
        with self._lock:
            if not self._admits(caller, remaining):
                return False
            queue = self._queues.get(caller)
            if queue is None:
                queue = self._queues[caller] = _Queue()
            now = self._clock()
            if not self.waiting:
                if now - self._last_taken > _LONGEST_INTERVAL:
                    self._interval = 0.0  # outdated
                self._last_taken = now
            queue.calls.append((now, size, call))
            self.waiting += 1
            self._bytes += size
        return True

    def take(self) -> T | None:
        """Takes the next call, round robin by caller. Returns None if no call waits."""
        with self._lock:
            if not self.waiting:
                return None
            caller, queue = next(iter(self._queues.items()))
            put_in, size, call = queue.calls.popleft()
            self.waiting -= 1
            self._bytes -= size
            if queue.calls:
                self._queues.move_to_end(caller)
            else:
                del self._queues[caller]
            now = self._clock()
            waited = now - put_in
            if waited < self.target / 2:  # half, because in an overload the wait settles just below the target
                queue.late_since = None
            elif waited >= self.target and queue.late_since is None:
                queue.late_since = now
            interval = min(now - self._last_taken, _LONGEST_INTERVAL)
            self._interval += (interval - self._interval) * _SMOOTHING
            self._last_taken = now
            return call

    def _admits(self, caller: Hashable, remaining: float) -> bool:
        if self.waiting >= self._most or self._bytes >= self._most_bytes:
            return False
        now = self._clock()
        if self.waiting and now - self._last_taken > self.burst:  # all workers are stuck
            return False
        queue = self._queues.get(caller)
        if queue is None:  # every other caller has one turn first
            return len(self._queues) * self._interval < min(self.burst, remaining)
        # Until this call's turn, every other caller has as many turns as this one, or runs out of calls.
        ahead = min((len(queue.calls) + 1) * len(self._queues), self.waiting)
        is_late = queue.late_since is not None and now - queue.late_since > self.burst
        allowed = self.target if is_late and len(queue.calls) >= self._least else self.burst
        return ahead * self._interval < min(allowed, remaining)
