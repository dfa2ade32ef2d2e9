"""Handles and readiness by themselves: what the fault suite can't single out."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.canary import raises
from tests.support import ScriptedStore, eventually
from userprofile_server import handles
from userprofile_server.errors import StoreMisconfiguredError, StoreTimeoutError, StoreUnavailableError
from userprofile_server.handles import StoreHandle
from userprofile_server.models import User
from userprofile_server.readiness import Readiness
from userprofile_server.stores import UserStore
from userprofile_server.workers import Workers


class Closable(ScriptedStore):
    """A store that remembers whether it was closed, and answers probes only while it is well."""

    def __init__(self) -> None:
        super().__init__(lambda _timeout: self._check())
        self.well = True
        self.closed = False

    def probe(self, *, timeout: float) -> None:
        self._check()

    def close(self) -> None:
        self.closed = True

    def _check(self) -> None:
        if not self.well:
            raise StoreTimeoutError("no answer in time")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "PROBE_INTERVAL", 0.02)
    monkeypatch.setattr(handles, "REOPEN_AFTER", 0.02)
    monkeypatch.setattr(handles, "_LONGEST_PAUSE", 0.01)


def opening(store: UserStore, *, then: Exception) -> Callable[[], UserStore]:
    """Opens this store, and later ones not."""
    stores = iter([store])

    def open_store() -> UserStore:
        for first in stores:
            return first
        raise then

    return open_store


def started(open_store: Callable[[], UserStore]) -> StoreHandle:
    handle = StoreHandle("handle", open_store, probe_timeout=1)
    handle.start()
    return handle


def found(handle: StoreHandle) -> bool:
    try:
        return handle.get("johndoe", timeout=1).username == "johndoe"
    except (StoreUnavailableError, StoreTimeoutError, StoreMisconfiguredError):
        return False


def test_a_lost_store_is_replaced_and_closed_and_the_last_one_closed_at_the_end() -> None:
    opened: list[Closable] = []

    def open_one() -> UserStore:
        opened.append(Closable())
        return opened[-1]

    handle = started(open_one)
    eventually(lambda: found(handle), "connected")
    opened[0].well = False
    eventually(lambda: len(opened) > 1 and found(handle), "replaced")
    assert opened[0].closed
    handle.close()
    handle.join()
    assert all(store.closed for store in opened)
    with raises(StoreUnavailableError):
        handle.get("johndoe", timeout=1)


def test_while_there_is_no_store_calls_hear_at_once_that_it_is_unavailable_and_not_that_it_timed_out() -> None:
    store = Closable()
    handle = started(opening(store, then=StoreTimeoutError("no answer in time")))
    eventually(lambda: found(handle), "connected")
    store.well = False

    def unavailable() -> bool:
        try:
            handle.get("johndoe", timeout=1)
        except StoreUnavailableError:
            return True
        except StoreTimeoutError:  # until the keeper has looked
            return False
        raise AssertionError("answered")

    eventually(unavailable, "hidden")
    store.well = True
    eventually(lambda: found(handle), "shown again")
    assert not store.closed
    handle.close()
    handle.join()


def test_a_bug_in_opening_does_not_end_the_keeper() -> None:
    outcomes = iter([TypeError("a bug"), StoreUnavailableError("down")])

    def open_after_a_bug() -> UserStore:
        for outcome in outcomes:
            raise outcome
        return Closable()

    handle = started(open_after_a_bug)
    eventually(lambda: found(handle), "connected after all")
    handle.close()
    handle.join()


def test_a_mistake_of_our_own_keeps_the_workers_from_opening_and_any_other_does_not() -> None:
    def open_with(error: Exception) -> Workers:
        def fail() -> UserStore:
            raise error

        return Workers(2, fail, probe_timeout=1)

    permanent = open_with(StoreMisconfiguredError("no such URL", permanent=True))
    with raises(StoreMisconfiguredError, match="no such URL"):
        permanent.open(10)
    permanent.close()
    for error in (StoreUnavailableError("down"), StoreMisconfiguredError("wrong password")):
        workers = open_with(error)
        workers.open(10)
        workers.close()


def test_a_store_that_is_misconfigured_is_let_go_and_told_once_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    store = Closable()
    handle = started(opening(store, then=StoreMisconfiguredError("wrong password")))
    eventually(lambda: found(handle), "connected")
    store.well = False
    eventually(lambda: store.closed, "let go")
    with raises(StoreMisconfiguredError):
        handle.get("johndoe", timeout=1)
    handle.close()
    handle.join()
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["handle: the store doesn't answer: wrong password"]


def test_a_call_whose_store_is_hidden_meanwhile_hears_why_and_not_that_it_was_closed() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Closable):
        def get(self, username: str, *, timeout: float) -> User:
            begun.set()
            go_on.wait(10)
            raise StoreUnavailableError("closed under the call")

    store = Slow()
    handle = started(opening(store, then=StoreMisconfiguredError("wrong password")))
    eventually(handle.first_attempt_over.is_set, "connected")
    with ThreadPoolExecutor(1) as worker:
        call = worker.submit(handle.get, "johndoe", timeout=1)
        assert begun.wait(10)
        store.well = False
        handle._failed.set()
        eventually(lambda: store.closed, "let go")
        go_on.set()
        with raises(StoreMisconfiguredError, match="wrong password"):
            call.result()
    handle.close()
    handle.join()


def test_readiness_tells_of_every_change_once() -> None:
    told: list[bool] = []
    answered_at = [float("-inf")]
    readiness = Readiness(lambda: answered_at[0], unready_after=3600, tell=told.append)
    readiness.start()
    assert told == []
    answered_at[0] = float("inf")
    eventually(lambda: told == [True], "ready")
    answered_at[0] = float("-inf")
    eventually(lambda: told == [True, False], "unready")
    readiness.stop()
