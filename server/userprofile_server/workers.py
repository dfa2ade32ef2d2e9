"""The threads that answer calls, each with a store handle of its own: nothing is shared between them."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from userprofile_server.errors import StoreMisconfiguredError
from userprofile_server.handles import StoreHandle
from userprofile_server.stores import UserReader, UserStore


class Workers:
    """A thread pool for grpc.server whose every thread owns one handle on the store."""

    def __init__(
        self, count: int, open_store: Callable[[], UserStore], *, probe_timeout: float, share_handle: bool = False
    ) -> None:
        """Prepares `count` threads, and as many handles unless they share one; `open` starts them."""
        self.executor = ThreadPoolExecutor(count, thread_name_prefix="worker")
        self._count = count
        self._own = threading.local()
        self._handles = [
            StoreHandle(f"store handle {number}", open_store, probe_timeout=probe_timeout)
            for number in range(1, 2 if share_handle else count + 1)
        ]

    def open(self, timeout: float) -> None:
        """Starts all threads and handles at once, and waits `timeout` seconds at most for the stores.

        A store that can't be reached now is no error: its handle goes on trying.

        Raises:
            StoreMisconfiguredError: no waiting would help; the mistake is in our own settings.
        """
        all_started = threading.Barrier(self._count)

        def take_own(handle: StoreHandle) -> None:
            # The pool hands a task to an idle thread before it starts another one; held up here,
            # none is idle until every thread has taken exactly one task.
            all_started.wait()
            self._own.handle = handle

        taken = [
            self.executor.submit(take_own, self._handles[number % len(self._handles)]) for number in range(self._count)
        ]
        for handle in self._handles:
            handle.start()
        for future in taken:
            future.result()
        deadline = time.monotonic() + timeout
        for handle in self._handles:
            handle.first_attempt_over.wait(deadline - time.monotonic())
            problem = handle.problem
            if isinstance(problem, StoreMisconfiguredError) and problem.permanent:
                raise problem

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
        for _ in range(self._count):
            self.executor.submit(release.wait)
        try:
            yield
        finally:
            release.set()

    def close(self) -> None:
        """Waits for the calls that still run, at most their store timeout, then closes all handles."""
        self.executor.shutdown(cancel_futures=True)
        for handle in self._handles:
            handle.close()
        for handle in self._handles:
            handle.join()
