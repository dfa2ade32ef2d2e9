"""A handle that outlives its connection: it is what a worker holds on to while stores come and go behind it."""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from userprofile_server.errors import (
    DomainError,
    StoreDamagedError,
    StoreError,
    StoreMisconfiguredError,
    StoreUnavailableError,
)
from userprofile_server.models import User
from userprofile_server.stores import Outcome, UserStore

T = TypeVar("T")

_log = logging.getLogger(__name__)

PROBE_INTERVAL = 1.0
"""Seconds between two looks at a store that answers."""

REOPEN_AFTER = 1.0
"""Seconds without an answer after which a new connection is tried, beside looking at the old one."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 0.8
"""Seconds between two attempts to get an answer. The pause doubles, and half of it is left to chance."""


class StoreHandle:
    """A UserReader that connects in the background, again and again, for as long as it takes.

    A keeper thread opens the store, looks whether it answers, and replaces it when it is lost. The
    worker sees a store that answers or an error at once; it never waits for a connection.
    """

    def __init__(self, name: str, open_store: Callable[[], UserStore], *, probe_timeout: float) -> None:
        """`name` is for the log, `probe_timeout` in seconds. Does nothing before `start`."""
        self.answered_at = float("-inf")
        """When the store was last seen to answer, by the monotonic clock."""
        self.first_attempt_over = threading.Event()
        """Set once the store has answered, or couldn't be reached, for the first time."""
        self.problem: StoreError = StoreUnavailableError("not connected yet")
        """Why there is no store now; out of date while there is one."""
        self._name = name
        self._open_store = open_store
        self._probe_timeout = probe_timeout
        self._store: UserStore | None = None
        self._answers = 0
        self._reported: set[tuple[int, str]] = set()
        self._failed = threading.Event()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"keeper of {name}", daemon=True)

    def start(self) -> None:
        """Begins to connect."""
        self._keeper.start()

    def get(self, username: str, *, timeout: float) -> User:
        """See `UserReader.get`. Raises at once while there is no store."""
        return self._ask(lambda store: store.get(username, timeout=timeout))

    def get_many(self, usernames: Sequence[str], *, timeout: float) -> dict[str, Outcome]:
        """See `UserReader.get_many`. Raises at once while there is no store."""
        return self._ask(lambda store: store.get_many(usernames, timeout=timeout))

    def close(self) -> None:
        """Tells the keeper to end, which closes the store. Doesn't wait for it."""
        self._store = None
        self._closing.set()
        self._failed.set()

    def join(self) -> None:
        """Waits for the keeper to end, and so for an attempt to connect that is under way."""
        if self._keeper.is_alive():
            self._keeper.join()

    def _ask(self, question: Callable[[UserStore], T]) -> T:
        store = self._store
        if store is None:
            raise self._absence()
        try:
            answer = question(store)
        except StoreError as error:
            if self._store is not store:  # hidden meanwhile, and perhaps closed under this very call
                raise self._absence() from None
            self.problem = _again(error)
            self._failed.set()
            raise
        except DomainError:  # no such user, a corrupt document: the store has answered
            self._answers += 1
            raise
        self._answers += 1
        return answer

    def _keep(self) -> None:
        """What the keeper does. `current` is the store that it has; the worker sees it only while it answers."""
        current: UserStore | None = None
        answers_seen = 0
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            self._failed.clear()
            if current is not None and (answers_seen != self._answers or self._is_answering(current)):
                answers_seen = self._answers
                self._show(current)
            else:
                self._store = None
                if current is None or time.monotonic() - self.answered_at > REOPEN_AFTER:
                    current = self._replace(current)
                if current is not None and isinstance(self.problem, StoreMisconfiguredError) and self._store is None:
                    # Left alone, the SDK would go on logging in with what is wrong, a hundred times a second.
                    self._close(current)
                    current = None
            self.first_attempt_over.set()
            if self._store is not None:
                pause = _FIRST_PAUSE
                self._failed.wait(PROBE_INTERVAL)
            self._closing.wait(pause * random.uniform(0.5, 1))  # noqa: S311, jitter
            pause = min(pause * 2, _LONGEST_PAUSE)
        self._close(current)

    def _is_answering(self, store: UserStore) -> bool:
        try:
            store.probe(timeout=self._probe_timeout)
        except Exception as error:  # noqa: BLE001, see _note
            self._note(error)
            return False
        return True

    def _replace(self, current: UserStore | None) -> UserStore | None:
        """Returns a new store that has answered, and closes the old one; without success, the old one."""
        try:
            fresh = self._open_store()
        except Exception as error:  # noqa: BLE001, see _note
            self._note(error)
            return current
        if self._closing.is_set() or not self._is_answering(fresh):
            self._close(fresh)
            return current
        self._close(current)
        self._show(fresh)
        return fresh

    def _close(self, store: UserStore | None) -> None:
        try:
            if store is not None:
                store.close()
        except Exception as error:  # noqa: BLE001, see _note
            self._note(error)

    def _show(self, store: UserStore) -> None:
        self.answered_at = time.monotonic()
        if self._store is None and not self._closing.is_set():
            self._store = store
            self._reported.clear()
            _log.info("%s: the store answers", self._name)

    def _absence(self) -> StoreError:
        """What callers hear while there is no store. It isn't a timeout, whatever led to it: nobody has waited."""
        if isinstance(self.problem, StoreMisconfiguredError | StoreDamagedError):
            return _again(self.problem)
        return StoreUnavailableError(str(self.problem))

    def _note(self, error: Exception) -> None:
        if not isinstance(error, StoreError):
            # A bug, but one that mustn't end the keeper: without it the worker would never see a store again.
            _log.error("%s: unexpected error", self._name, exc_info=error)
            error = StoreUnavailableError("unexpected error")
        self.problem = _again(error)
        level = logging.ERROR if isinstance(error, StoreMisconfiguredError | StoreDamagedError) else logging.WARNING
        # Each reason is told once in an outage, whatever the details behind it, and not again with every attempt.
        reason = level, str(error).partition(" (")[0]
        # What makes `Workers.open` fail is told by who called it, and not once for each handle.
        if error.permanent and not self.first_attempt_over.is_set():
            return
        if reason not in self._reported:
            self._reported.add(reason)
            _log.log(level, "%s: the store doesn't answer: %s", self._name, self.problem)


def _again(problem: StoreError) -> StoreError:
    """Returns a new error like `problem`, without its traceback: its frames keep dead connections alive."""
    return type(problem)(str(problem), permanent=problem.permanent)
