"""The threads that answer calls, each with a store handle of its own: nothing is shared between them."""

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

from userprofile_server.errors import StoreMisconfiguredError
from userprofile_server.handles import StoreHandle
from userprofile_server.stores import UserReader, UserStore

_log = logging.getLogger(__name__)


class Submission:
    """What `Workers.submit` returns: no more of a Future than grpc asks for, because a whole one costs every call."""

    __slots__ = ("_callback", "_first", "_work")

    def __init__(self, work: Callable[[], object]) -> None:
        """Takes what is to be done."""
        self._work = work
        self._callback: Callable[[Submission], object] | None = None
        self._first = threading.Lock()

    def add_done_callback(self, callback: "Callable[[Submission], object]") -> None:
        """Has `callback` called once the work is done: by the worker, or at once if it is. Takes one only."""
        self._callback = callback
        self._arrive()

    def run(self) -> None:
        """Does the work."""
        try:
            self._work()
        except BaseException:  # noqa: BLE001, what handlers raise never gets here, and the thread must survive the rest
            _log.exception("a call failed outside of its handler")
        self._arrive()

    def _arrive(self) -> None:
        # The one who adds the callback and the one who has done the work: the second of them makes the call.
        if not self._first.acquire(blocking=False) and self._callback is not None:
            try:
                self._callback(self)
            except Exception:  # noqa: BLE001, grpc's, as a Future does it
                _log.exception("a callback failed after a call")


class Workers:
    """The executor of a grpc.server. Every thread of it owns one handle on the store.

    The threads are daemons: a process that ends without `close` doesn't wait for the calls that they answer.
    """

    def __init__(
        self, count: int, open_store: Callable[[], UserStore], *, probe_timeout: float, share_handle: bool = False
    ) -> None:
        """Prepares `count` threads, and as many handles unless they share one; `open` starts them."""
        self._own = threading.local()
        self._queue: SimpleQueue[Submission | None] = SimpleQueue()
        self._handles = [
            StoreHandle(f"store handle {number}", open_store, probe_timeout=probe_timeout)
            for number in range(1, 2 if share_handle else count + 1)
        ]
        handles = self._handles * count if share_handle else self._handles
        self._threads = [
            threading.Thread(target=self._work, args=[handle], name=f"worker {number}", daemon=True)
            for number, handle in enumerate(handles, 1)
        ]

    def open(self, timeout: float) -> None:
        """Starts all threads and handles at once, and waits `timeout` seconds at most for the stores.

        A store that can't be reached now is no error: its handle goes on trying.

        Raises:
            StoreMisconfiguredError: no waiting would help; the mistake is in our own settings.
        """
        for thread in self._threads:
            thread.start()
        for handle in self._handles:
            handle.start()
        deadline = time.monotonic() + timeout
        for handle in self._handles:
            handle.first_attempt_over.wait(deadline - time.monotonic())
            problem = handle.problem
            if isinstance(problem, StoreMisconfiguredError) and problem.permanent:
                raise problem

    def submit(self, function: Callable[..., object], /, *args: object) -> Submission:
        """Has a worker call `function` with `args`, as soon as one has time."""
        submission = Submission(functools.partial(function, *args))
        self._queue.put(submission)
        return submission

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
        for _ in self._threads:
            self.submit(release.wait)
        try:
            yield
        finally:
            release.set()

    def close(self) -> None:
        """Waits for the calls that still run, at most their store timeout, then closes all handles."""
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        for handle in self._handles:
            handle.close()
        for handle in self._handles:
            handle.join()

    def _work(self, handle: StoreHandle) -> None:
        self._own.handle = handle
        while (submission := self._queue.get()) is not None:
            submission.run()
            del submission  # else an idle worker would keep its last call
