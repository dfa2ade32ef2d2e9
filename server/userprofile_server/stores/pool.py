"""The connections of a process to its store: one per worker, or one shared by all."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence

from userprofile_server.stores.base import DocumentReader, DocumentStore
from userprofile_server.stores.reconnecting import ReconnectingStore, StoreObserver

_CLOSE_SECONDS = 1.0
"""Seconds that `close` waits for connections to close. Slower ones close later, if the process still runs."""


class StorePool:
    """Stores that connect in the background. Each thread is assigned one of them when it starts."""

    def __init__(
        self,
        size: int,
        open_store: Callable[[], DocumentStore],
        *,
        probe_timeout: float,
        observers: Sequence[StoreObserver] = (),
    ) -> None:
        """Prepares `size` connections, each opened by `open_store`; `probe_timeout` is in seconds."""
        self._stores = [
            ReconnectingStore(f"connection {number}", open_store, probe_timeout=probe_timeout, observers=observers)
            for number in range(1, size + 1)
        ]
        self._turn = itertools.cycle(self._stores)
        self._own = threading.local()

    def open(self, timeout: float) -> None:
        """Connects all stores at once, and waits for them, for at most `timeout` seconds.

        An unreachable store isn't an error: its connection is retried in the background.

        Raises:
            StoreError: waiting wouldn't help, because the mistake is in the process's own settings.
        """
        for store in self._stores:
            store.start()
        deadline = time.monotonic() + timeout
        for store in self._stores:
            store.first_attempt_over.wait(deadline - time.monotonic())
            if store.problem.permanent:
                raise store.problem

    def assign(self) -> None:
        """Assigns the next store, in turn, to the calling thread. Further threads share the stores evenly."""
        self._own.store = next(self._turn)

    def current(self) -> DocumentReader:
        """Returns the store of the calling thread."""
        store: ReconnectingStore = self._own.store
        return store

    def connections(self) -> list[bool]:
        """Returns whether each connection responds."""
        return [store.connected for store in self._stores]

    def responded_at(self) -> float:
        """When any of the stores last responded, by the monotonic clock."""
        return max(store.responded_at for store in self._stores)

    def close(self) -> None:
        """Closes all connections, also during calls in flight.

        The driver can't interrupt a connection attempt. An attempt that ends later closes its connection then.
        """
        for store in self._stores:
            store.close()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for store in self._stores:
            store.join(max(0.0, deadline - time.monotonic()))
