"""A store proxy that reconnects in the background."""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from userprofile_server.errors import (
    StoreDamagedError,
    StoreError,
    StoreMisconfiguredError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from userprofile_server.stores.base import DocumentStore

P = TypeVar("P")
T = TypeVar("T")
_Calls = dict[Callable[[DocumentStore], object], float]
"""Calls in flight, with the deadline of each by the monotonic clock."""

_log = logging.getLogger(__name__)

PROBE_INTERVAL = 1.0
"""Seconds between two probes of a store that responds."""

REOPEN_AFTER = 1.0
"""Seconds without a response after which a new connection is tried, besides probing the old one."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 0.8
"""Seconds between two attempts to get a response: exponential backoff by 2, with 50 to 100 % jitter."""


class StoreObserver(Protocol):
    """Is told what happens to the connections of a store, for metrics and spans. Any thread may call it."""

    def operation(self, name: str, seconds: float, error: StoreError | None) -> None:
        """An operation has ended, with an error or without."""

    def connected(self) -> None:
        """A connection was made."""

    def lost(self) -> None:
        """A connection doesn't respond any more."""


class ReconnectingStore:
    """A DocumentReader that connects in the background, and retries until it succeeds.

    A supervisor thread opens the store, probes it, and replaces it when it is lost. Readers get a store that responds,
    or an error at once; they never wait for a connection.

    While a large document arrives on a connection, a probe waits behind it, and the connection looks dead. So if a
    probe is late and a call that began before it is still in flight, half of the probe's timeout is used to open a new
    connection. If the new connection responds, it takes over. The old one is closed when its calls have ended.
    """

    def __init__(
        self,
        name: str,
        open_store: Callable[[], DocumentStore],
        *,
        probe_timeout: float,
        observers: Sequence[StoreObserver] = (),
    ) -> None:
        """`name` is for the log, `probe_timeout` in seconds. Does nothing before `start`."""
        self.responded_at = float("-inf")
        """When the store last responded, by the monotonic clock."""
        self.first_attempt_over = threading.Event()
        """Set after the first attempt to connect, whether it succeeded or failed."""
        self.problem: StoreError = StoreUnavailableError("not connected yet")
        """Why the store is disconnected; outdated while it is connected."""
        self._name = name
        self._open_store = open_store
        self._probe_timeout = probe_timeout
        self._observers = observers
        self._store: DocumentStore | None = None
        self._responses = 0
        self._calls: _Calls = {}
        self._relieved: list[tuple[DocumentStore, _Calls]] = []
        """Stores that were replaced during calls, each with these calls."""
        self._reported: set[tuple[int, str]] = set()
        self._failed = threading.Event()
        self._closing = threading.Event()
        self._supervisor = threading.Thread(target=self._run, name=f"supervisor of {name}", daemon=True)

    def start(self) -> None:
        """Starts to connect, in the background."""
        self._supervisor.start()

    def get(self, key: str, *, timeout: float) -> bytes | None:
        """See `DocumentReader.get`. Raises at once while disconnected."""
        return self._call("get", lambda store: store.get(key, timeout=timeout), timeout)

    def get_many(
        self, keys: Sequence[str], parse: Callable[[str, bytes], P], *, timeout: float
    ) -> dict[str, P | StoreError | None]:
        """See `DocumentReader.get_many`. Raises at once while disconnected."""
        return self._call("get_many", lambda store: store.get_many(keys, parse, timeout=timeout), timeout)

    def close(self) -> None:
        """Tells the supervisor to close the store and to end. Doesn't wait for that."""
        self._store = None
        self._closing.set()
        self._failed.set()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the supervisor to end, and so for a connection attempt in progress; `timeout` in seconds."""
        if self._supervisor.is_alive():
            self._supervisor.join(timeout)

    @property
    def connected(self) -> bool:
        """Whether readers get a store."""
        return self._store is not None

    def _call(self, name: str, operation: Callable[[DocumentStore], T], timeout: float) -> T:
        store = self._store
        if store is None:
            raise self._disconnected_error()
        began = time.monotonic()
        self._calls[operation] = began + timeout
        try:
            result = operation(store)
        except StoreError as error:
            if self._observers:
                self._observe(name, time.monotonic() - began, error)
            if self._store is store:
                self.problem = _without_traceback(error)
                self._failed.set()
            elif not isinstance(error, StoreTimeoutError):  # the store was hidden, perhaps closed, during this call
                raise self._disconnected_error() from None
            raise
        finally:
            del self._calls[operation]
        self._responses += 1
        if self._observers:
            self._observe(name, time.monotonic() - began, None)
        return result

    def _observe(self, name: str, seconds: float, error: StoreError | None) -> None:
        for observer in self._observers:
            observer.operation(name, seconds, error)

    def _run(self) -> None:
        """The supervisor thread. `current` is the store; readers see it only while it responds."""
        current: DocumentStore | None = None
        responses_seen = 0
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            self._failed.clear()
            self._close_relieved()
            calls = self._calls.copy()
            problem = None
            if current is not None and responses_seen == self._responses:
                problem = self._probe(current, self._probe_timeout / (2 if calls else 1))
            if current is not None and problem is None:
                responses_seen = self._responses
                self._show(current)
            elif current is not None and isinstance(problem, StoreTimeoutError) and self._are_in_flight(calls):
                current = self._relieve(current, problem)
            else:
                self._lose()
                if problem is not None:
                    self._note(problem)
                if current is None or time.monotonic() - self.responded_at > REOPEN_AFTER:
                    current = self._replace(current)
                if current is not None and isinstance(self.problem, StoreMisconfiguredError) and self._store is None:
                    # Otherwise the SDK would retry the wrong credentials about a hundred times a second.
                    self._close(current)
                    current = None
            if self.problem.permanent and not self.first_attempt_over.is_set():
                pause = _LONGEST_PAUSE  # `StorePool.open` is about to give up and report the reason
            self.first_attempt_over.set()
            if self._store is not None:
                pause = _FIRST_PAUSE
                self._failed.wait(PROBE_INTERVAL)
            self._closing.wait(pause * random.uniform(0.5, 1))  # noqa: S311, jitter
            pause = min(pause * 2, _LONGEST_PAUSE)
        for store in (current, *(relieved for relieved, _ in self._relieved)):
            self._close(store)

    def _probe(self, store: DocumentStore, timeout: float) -> Exception | None:
        try:
            store.probe(timeout=timeout)
        except Exception as error:  # noqa: BLE001, see _note
            return error
        return None

    def _open(self) -> DocumentStore | None:
        """Returns a new store that has responded; None if that failed."""
        try:
            store = self._open_store()
        except Exception as error:  # noqa: BLE001, see _note
            self._note(error)
            return None
        if not self._closing.is_set():
            problem = self._probe(store, self._probe_timeout)
            if problem is None:
                for observer in self._observers:
                    observer.connected()
                return store
            self._note(problem)
        self._close(store)
        return None

    def _replace(self, current: DocumentStore | None) -> DocumentStore | None:
        """Returns a new store and closes the old one; returns the old one if that failed."""
        fresh = self._open()
        if fresh is None:
            return current
        self._close(current)
        self._show(fresh)
        return fresh

    def _relieve(self, busy: DocumentStore, problem: StoreError) -> DocumentStore:
        """Like `_replace`, for a store that may be alive: hides it later, and doesn't close it during its calls."""
        hiding = threading.Timer(self._probe_timeout / 2, self._hide, [busy, problem])
        hiding.daemon = True
        hiding.start()
        fresh = self._open()
        hiding.cancel()
        hiding.join()
        if fresh is None:
            self._lose()
            return busy
        self._relieved.append((busy, self._calls.copy()))
        self._show(fresh)
        return fresh

    def _are_in_flight(self, calls: _Calls) -> bool:
        """Whether any of `calls` is still in flight before its deadline."""
        now = time.monotonic()
        return any(call in self._calls and deadline > now for call, deadline in calls.items())

    def _close_relieved(self) -> None:
        """Closes the relieved stores whose calls have ended."""
        for store, calls in [*self._relieved]:
            if not self._are_in_flight(calls):
                self._relieved.remove((store, calls))
                self._close(store)

    def _close(self, store: DocumentStore | None) -> None:
        try:
            if store is not None:
                store.close()
        except Exception as error:  # noqa: BLE001, see _note
            self._note(error)

    def _show(self, store: DocumentStore) -> None:
        self.responded_at = time.monotonic()
        if self._closing.is_set():
            return
        was_hidden = self._store is None
        self._store = store
        if was_hidden:
            self._reported.clear()
            _log.info("%s: store connected", self._name)

    def _hide(self, store: DocumentStore, problem: StoreError) -> None:
        if self._store is store:
            self._note(problem)
            self._lose()

    def _lose(self) -> None:
        if self._store is not None:
            for observer in self._observers:
                observer.lost()
        self._store = None

    def _disconnected_error(self) -> StoreError:
        """Error for calls made while disconnected. Never a timeout: the call did not wait."""
        if isinstance(self.problem, StoreMisconfiguredError | StoreDamagedError):
            return _without_traceback(self.problem)
        return StoreUnavailableError(str(self.problem))

    def _note(self, error: Exception) -> None:
        if not isinstance(error, StoreError):
            # A bug, but the supervisor must survive, or the store would stay disconnected forever.
            _log.error("%s: unexpected error", self._name, exc_info=error)
            error = StoreUnavailableError("unexpected error")
        self.problem = _without_traceback(error)
        level = logging.ERROR if isinstance(error, StoreMisconfiguredError | StoreDamagedError) else logging.WARNING
        # Each reason is logged once per outage, not with every attempt. Details in parentheses are not compared.
        reason = level, str(error).partition(" (")[0]
        # A permanent error of the first attempt is logged once by the caller of `StorePool.open`, not per connection.
        if error.permanent and not self.first_attempt_over.is_set():
            return
        if reason not in self._reported:
            self._reported.add(reason)
            _log.log(level, "%s: store unreachable: %s", self._name, self.problem)


def _without_traceback(problem: StoreError) -> StoreError:
    """Returns a copy of `problem` without its traceback, whose frames would keep dead connections alive."""
    return type(problem)(str(problem), permanent=problem.permanent)
