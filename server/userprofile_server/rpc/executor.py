"""The thread pool that runs calls: its workers, the queue of calls, and spare threads for blocked workers."""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

from userprofile_server.rpc.backlog import Backlog

_log = logging.getLogger(__name__)

SUPERVISION_SECONDS = 0.025
"""Seconds between two checks of the workers by the supervisor."""

_BLOCKED = 2  # a worker counts as blocked after this many checks on the same call

_CLOSE_SECONDS = 1.0
"""Seconds that `close` waits for running handlers. grpc has ended or cancelled their calls by then."""

_MOST_NEXT = 8
"""Calls per worker that bypass the backlog as long as waiting times are short: this queue costs less."""

SPARE_SECONDS = 1.0
"""Seconds after which a spare thread that isn't needed ends."""


_Task = tuple[float, Callable[[], object], Callable[..., object], tuple[object, ...]]
"""A call: when it was queued, by the monotonic clock; the function that refuses it; the function that runs it, and its
arguments."""


class _Worker:
    """A thread, and the call that it runs."""

    __slots__ = ("dismissed", "seen", "seen_again", "task", "thread")

    def __init__(self, run: "Callable[[_Worker], None]", name: str) -> None:
        self.task: _Task | None = None
        """The call that runs now. Only the thread itself writes this."""
        self.seen: _Task | None = None
        """The call that ran at the supervisor's last check."""
        self.seen_again = 0
        """The number of consecutive checks at which the same call was still running."""
        self.dismissed = False
        self.thread = threading.Thread(target=run, args=[self], name=name, daemon=True)


class Executor:
    """Runs the calls that `rpc/whole_requests.py` submits.

    With `spares`, a supervisor thread checks the workers 40 times a second and starts a spare thread for each blocked
    one, so that `threads` threads are always available. Without spares, one lost node of a store could block all
    workers: calls for its users wait until their timeout. Spares end when they aren't needed any more.

    A call that has waited longer than the backlog estimated, because the store has slowed down, is refused when its
    turn comes. A refusal costs a worker 0.1 ms.

    The threads are daemons: a process that ends without `close` doesn't wait for running calls.
    """

    def __init__(
        self,
        threads: int,
        *,
        backlog: Backlog[_Task],
        spares: int = 0,
        on_thread_start: Callable[[], object] = lambda: None,
    ) -> None:
        """Prepares `threads` threads, and up to `spares` more; each calls `on_thread_start` before its first call."""
        self._on_thread_start = on_thread_start
        self._backlog = backlog
        self._next: SimpleQueue[_Task | None] = SimpleQueue()
        """The next calls, first in, first out."""
        self._most_next = threads * _MOST_NEXT
        self._room = self._most_next
        """How many calls may be in `_next`; the others are in the backlog. Adapts to waiting times, without a lock."""
        self._late_since: float | None = None
        """Since when every call has waited longer than `burst`."""
        self._workers = [_Worker(self._work, f"worker {number}") for number in range(1, threads + 1)]
        self._spares: list[_Worker] = []
        self._most_spares = spares
        self._spares_started = 0
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor of workers", daemon=True)
        self._closing = threading.Event()
        self._adjusting = threading.Lock()
        self._holding = False
        self._own = threading.local()
        self._last_queued_at = 0.0
        """When the call that was taken last was queued."""
        self._empty_at = 0.0
        """When a call was last queued behind no other."""

    def start(self) -> None:
        """Starts the threads."""
        for worker in self._workers:
            worker.thread.start()
        if self._most_spares:
            self._supervisor.start()

    def admits(self, caller: Callable[[], Hashable], deadline: float) -> bool:
        """Returns whether a call would be admitted now. `deadline` is Unix time.

        `caller` returns the call's key for fair queueing. It is called only while calls wait: it costs a microsecond.
        """
        return not self._backlog.waiting or self._backlog.admits(caller(), deadline - time.time())

    def submit(
        self,
        caller: Callable[[], Hashable],
        deadline: float,
        size: int,
        refuse: Callable[[], object],
        function: Callable[..., object],
        /,
        *arguments: object,
    ) -> bool:
        """Has a worker call `function` with `arguments` when one is free and it is the caller's turn.

        `size` is the request's, in bytes. Returns False if the call isn't admitted. If the call has waited too long,
        the worker calls `refuse` instead.
        """
        task = (time.monotonic(), refuse, function, arguments)
        ahead = self._next.qsize()
        if not self._backlog.waiting and ahead < self._room:
            if not ahead:
                self._empty_at = task[0]
            self._next.put(task)
            return True
        admitted = self._backlog.put(caller(), task, remaining=deadline - time.time(), size=size)
        self._advance()  # a worker may have found the backlog empty just before this call was put in
        return admitted

    def queued_at(self) -> float | None:
        """Returns when the call of the calling thread was queued, by the monotonic clock; None outside of workers."""
        worker: _Worker | None = getattr(self._own, "worker", None)
        return worker.task[0] if worker is not None and worker.task is not None else None

    def queue(self) -> tuple[int, float]:
        """Returns how many calls wait, and for how many seconds the first of them has waited, at most."""
        waiting = self._next.qsize() + self._backlog.waiting
        # All that wait have come after the call that was taken last, and after no other waited.
        since = max(self._last_queued_at, self._empty_at)
        return waiting, time.monotonic() - since if waiting else 0.0

    def threads(self) -> tuple[int, int]:
        """Returns how many threads serve a call now, and how many threads there are."""
        workers = [*self._workers, *self._spares]
        return sum(worker.task is not None for worker in workers), len(workers)

    def _advance(self) -> None:
        if self._next.qsize() < self._room and (task := self._backlog.take()) is not None:
            self._next.put(task)

    def _work_on(self, worker: _Worker, task: _Task) -> None:
        if self._backlog.waiting:
            self._advance()
        self._last_queued_at = task[0]
        waited = time.monotonic() - task[0]
        if waited > self._backlog.target / 2:
            self._room = max(self._room // 2, len(self._workers))
        elif self._room < self._most_next:
            self._room += 1
        if waited <= self._backlog.burst:
            late, self._late_since = False, None
        else:
            late = self._is_late()
        worker.task = task
        _, refuse, function, arguments = task
        try:
            if late:
                refuse()
            else:
                function(*arguments)
        except BaseException:  # noqa: BLE001, not handlers' errors (see the error boundary); the thread must survive
            _log.exception("a call failed outside its handler")
        worker.task = None

    def _is_late(self) -> bool:
        """Returns whether to refuse a call that has waited longer than `burst`.

        Like CoDel (https://www.rfc-editor.org/rfc/rfc8289): only if every call has waited longer than `burst` for the
        last `burst` seconds, because a shorter queue may drain by itself. And only while other calls keep all workers
        busy.
        """
        if self._next.qsize() + self._backlog.waiting < len(self._workers):
            self._late_since = None
            return False
        now = time.monotonic()
        if self._late_since is None:
            self._late_since = now
        return now - self._late_since > self._backlog.burst

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lets the workers finish running calls and those in `_next`. Other calls wait until the block ends."""
        release = threading.Event()
        with self._adjusting:
            self._holding = True  # start no spares: they would not be held
            for _ in (*self._workers, *self._spares):
                self._next.put((time.monotonic(), release.wait, release.wait, ()))
        try:
            yield
        finally:
            release.set()
            self._holding = False

    def close(self) -> None:
        """Drops queued calls, and waits for running ones, for at most a second."""
        self._closing.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        while self._backlog.take() is not None:
            pass
        with suppress(Empty):
            while True:
                self._next.get_nowait()
        workers = [*self._workers, *self._spares]
        for _ in workers:
            self._next.put(None)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for worker in workers:
            if worker.thread.is_alive():
                worker.thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self, worker: _Worker) -> None:
        self._own.worker = worker
        self._on_thread_start()
        while (task := self._next.get()) is not None:
            self._work_on(worker, task)
            task = None  # otherwise an idle worker would keep its last call in memory

    def _work_as_spare(self, worker: _Worker) -> None:
        self._own.worker = worker
        self._on_thread_start()
        while not worker.dismissed:
            try:
                task = self._next.get(timeout=SPARE_SECONDS)
            except Empty:
                continue
            if task is None:
                break
            self._work_on(worker, task)
            task = None

    def _supervise(self) -> None:
        """The supervisor thread: starts spares at once, and ends those that weren't needed for a while."""
        least_surplus = 0
        began = time.monotonic()
        exhausted = False
        while not self._closing.wait(SUPERVISION_SECONDS):
            with self._adjusting:
                if self._holding:
                    continue
                idle, blocked = self._count()
                # The more workers are blocked, the more will block before the next check.
                surplus = idle - len(self._workers) - blocked // 4
                started = self._start_spares(-surplus)
                if not idle and not started and not exhausted:
                    exhausted = True
                    _log.warning("all workers and %d spare threads are blocked: calls queue", len(self._spares))
                elif not self._spares:
                    exhausted = False
                least_surplus = min(least_surplus, surplus)
                if time.monotonic() - began > SPARE_SECONDS:
                    needed = [spare for spare in self._spares if not spare.dismissed]
                    for spare in needed[: max(least_surplus, 0)]:
                        spare.dismissed = True
                    began = time.monotonic()
                    least_surplus = surplus

    def _count(self) -> tuple[int, int]:
        """Returns how many threads are idle or make progress, and how many are blocked."""
        self._spares = [spare for spare in self._spares if spare.thread.is_alive()]
        workers = [*self._workers, *self._spares]
        for worker in workers:
            task = worker.task
            worker.seen_again = worker.seen_again + 1 if task is not None and task is worker.seen else 0
            worker.seen = task
        # If calls queue and no worker makes progress, one check less suffices.
        stuck = self._next.qsize() > 0 and all(worker.seen_again for worker in workers)
        blocked = [worker for worker in workers if worker.seen_again >= _BLOCKED - stuck]
        idle = sum(not worker.dismissed for worker in workers) - sum(not worker.dismissed for worker in blocked)
        return idle, len(blocked)

    def _start_spares(self, count: int) -> int:
        """Starts up to `count` spares, within the limit, and returns how many were started."""
        for started in range(count):
            if len(self._spares) == self._most_spares:
                return started
            number = self._spares_started + 1
            spare = _Worker(self._work_as_spare, f"spare {number}")
            try:
                spare.thread.start()
            except RuntimeError:  # the system refuses another thread
                return started
            self._spares_started = number
            self._spares.append(spare)
        return max(count, 0)
