"""The threads that answer calls, each with a store handle of its own: nothing is shared between them."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from userprofile_server.stores import UserStore


class Workers:
    """A thread pool for grpc.server whose every thread owns one handle on the store."""

    def __init__(self, count: int, open_store: Callable[[], UserStore]) -> None:
        """Prepares `count` threads; `open` starts them."""
        self.executor = ThreadPoolExecutor(count, thread_name_prefix="worker")
        self._count = count
        self._open_store = open_store
        self._own = threading.local()
        self._stores: list[UserStore] = []

    def open(self) -> None:
        """Starts all threads at once and opens their handles in parallel.

        Raises:
            StoreError: a handle couldn't be opened. Those that could be are closed by `close`.
        """
        all_started = threading.Barrier(self._count)

        def open_own() -> None:
            # The pool hands a task to an idle thread before it starts another one; held up here,
            # none is idle until every thread has taken exactly one task.
            all_started.wait()
            self._own.store = self._open_store()
            self._stores.append(self._own.store)

        opened = [self.executor.submit(open_own) for _ in range(self._count)]
        for future in opened:
            future.exception()  # all have to end before one may raise: `close` needs the whole list
        for future in opened:
            future.result()

    def current_store(self) -> UserStore:
        """Returns the handle of the worker thread that asks."""
        store: UserStore = self._own.store
        return store

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
        for store in self._stores:
            store.close()
