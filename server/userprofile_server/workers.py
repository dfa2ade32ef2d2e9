"""The threads that answer calls, each with a store handle of its own, and the spares for those that wait."""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

from userprofile_server.handles import StoreHandle
from userprofile_server.stores import UserReader, UserStore

_log = logging.getLogger(__name__)

SUPERVISION_SECONDS = 0.025
"""Between two looks of the supervisor at the workers."""

_WAITING = 2  # looks at which a worker is still at the same call: then it waits for its store

_CLOSE_SECONDS = 1.0
"""How long `close` waits for calls that still run. Their callers have been answered or cancelled by then."""

SPARE_SECONDS = 1.0
"""How long a spare thread must not have been needed before it ends."""


_Task = Callable[[], object]


def _run(task: _Task) -> None:
    try:
        task()
    except BaseException:  # noqa: BLE001, what handlers raise never gets here, and the thread must survive the rest
        _log.exception("a call failed outside of its handler")


class _Worker:
    """A thread, the handle that it uses, and the call that it works on."""

    __slots__ = ("dismissed", "handle", "seen", "seen_again", "task", "thread")

    def __init__(self, run: "Callable[[_Worker], None]", name: str, handle: StoreHandle) -> None:
        self.handle = handle
        self.task: _Task | None = None
        """What the thread is doing now. It alone writes this."""
        self.seen: _Task | None = None
        """What it was doing when the supervisor last looked."""
        self.seen_again = 0
        """At how many looks in a row that was the same as at the one before."""
        self.dismissed = False
        self.thread = threading.Thread(target=run, args=[self], name=name, daemon=True)


class Workers:
    """The threads that calls are handed over to (`rpc/whole_requests.py`). Every worker owns one handle on the store.

    Where one node of a store can be lost while the others answer, calls for users of the lost node wait until their
    time is up, and would soon occupy all workers. A supervisor thread looks at the workers 40 times a second, and
    starts a spare thread for each one that waits, so that `count` threads always have time for the others' users.
    Spares share the workers' handles, and end when they aren't needed any more.

    The threads are daemons: a process that ends without `close` doesn't wait for the calls that they answer.
    """

    def __init__(
        self,
        count: int,
        open_store: Callable[[], UserStore],
        *,
        probe_timeout: float,
        share_handle: bool = False,
        spares: int = 0,
    ) -> None:
        """Prepares `count` threads, and as many handles unless they share one; `open` starts them.

        `spares` is how many more threads there may be at most; above 0 it needs a store that several threads may read
        from at once.
        """
        self._own = threading.local()
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._handles = [
            StoreHandle(f"store handle {number}", open_store, probe_timeout=probe_timeout)
            for number in range(1, 2 if share_handle else count + 1)
        ]
        handles = self._handles * count if share_handle else self._handles
        self._workers = [_Worker(self._work, f"worker {number}", handle) for number, handle in enumerate(handles, 1)]
        self._spares: list[_Worker] = []
        self._most_spares = spares
        self._spares_started = 0
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor of workers", daemon=True)
        self._closing = threading.Event()
        self._adjusting = threading.Lock()
        self._holding = False

    def open(self, timeout: float) -> None:
        """Starts all threads and handles at once, and waits `timeout` seconds at most for the stores.

        A store that can't be reached now is no error: its handle goes on trying.

        Raises:
            StoreError: no waiting would help; the mistake is in our own settings.
        """
        for worker in self._workers:
            worker.thread.start()
        for handle in self._handles:
            handle.start()
        if self._most_spares:
            self._supervisor.start()
        deadline = time.monotonic() + timeout
        for handle in self._handles:
            handle.first_attempt_over.wait(deadline - time.monotonic())
            if handle.problem.permanent:
                raise handle.problem

    def submit(self, function: Callable[..., object], /, *args: object) -> None:
        """Has a worker call `function` with `args`, as soon as one has time."""
        self._queue.put(functools.partial(function, *args))

    def current_store(self) -> UserReader:
        """Returns the handle of the worker thread that asks."""
        handle: StoreHandle = self._own.handle
        return handle

    def answered_at(self) -> float:
        """When any of the handles was last seen to get an answer, by the monotonic clock."""
        return max(handle.answered_at for handle in self._handles)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Lets the workers finish what they and the queue have, and keeps them from anything newer in the meantime."""
        release = threading.Event()
        with self._adjusting:
            self._holding = True  # a spare that is started now would not be held
            for _ in (*self._workers, *self._spares):
                self.submit(release.wait)
        try:
            yield
        finally:
            release.set()
            self._holding = False

    def close(self) -> None:
        """Waits for the calls that still run, a second at most, then closes all handles, under those that are left."""
        self._closing.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        workers = [*self._workers, *self._spares]
        for _ in workers:
            self._queue.put(None)
        deadline = time.monotonic() + _CLOSE_SECONDS
        for worker in workers:
            if worker.thread.is_alive():
                worker.thread.join(max(0.0, deadline - time.monotonic()))
        for handle in self._handles:
            handle.close()
        for handle in self._handles:
            handle.join()

    def _work(self, worker: _Worker) -> None:
        self._own.handle = worker.handle
        while (task := self._queue.get()) is not None:
            worker.task = task
            _run(task)
            worker.task = task = None  # else an idle worker would keep its last call

    def _work_as_spare(self, worker: _Worker) -> None:
        self._own.handle = worker.handle
        while not worker.dismissed:
            try:
                task = self._queue.get(timeout=SPARE_SECONDS)
            except Empty:
                continue
            if task is None:
                break
            worker.task = task
            _run(task)
            worker.task = task = None

    def _supervise(self) -> None:
        """What the supervisor does: starts spares at once, and dismisses those that weren't needed for a while."""
        least_surplus = 0
        began = time.monotonic()
        exhausted = False
        while not self._closing.wait(SUPERVISION_SECONDS):
            with self._adjusting:
                if self._holding:
                    continue
                idle, waiting = self._count()
                # The more of them wait, the more will until the next look.
                surplus = idle - len(self._workers) - waiting // 4
                started = self._start_spares(-surplus)
                if not idle and not started and not exhausted:
                    exhausted = True
                    _log.warning("all workers and %d spare threads wait for the store: calls queue", len(self._spares))
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
        """Returns how many threads are idle or make progress, and how many wait for the store."""
        self._spares = [spare for spare in self._spares if spare.thread.is_alive()]
        workers = [*self._workers, *self._spares]
        for worker in workers:
            task = worker.task
            worker.seen_again = worker.seen_again + 1 if task is not None and task is worker.seen else 0
            worker.seen = task
        # Where calls queue because nobody makes progress, one look less has to do.
        stuck = self._queue.qsize() > 0 and all(worker.seen_again for worker in workers)
        waiting = [worker for worker in workers if worker.seen_again >= _WAITING - stuck]
        idle = sum(not worker.dismissed for worker in workers) - sum(not worker.dismissed for worker in waiting)
        return idle, len(waiting)

    def _start_spares(self, count: int) -> int:
        """Starts `count` spares if there is room for them, and returns how many."""
        for started in range(count):
            if len(self._spares) == self._most_spares:
                return started
            number = self._spares_started + 1
            spare = _Worker(self._work_as_spare, f"spare {number}", self._handles[number % len(self._handles)])
            try:
                spare.thread.start()
            except RuntimeError:  # the system lets this process have no more
                return started
            self._spares_started = number
            self._spares.append(spare)
        return max(count, 0)
