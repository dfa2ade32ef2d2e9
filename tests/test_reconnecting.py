"""Reconnecting stores, their pool and readiness by themselves: what the fault suite can't single out."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.canary import raises
from tests.support import WAIT, ScriptedStore, eventually
from userprofile_server.errors import (
    CorruptDocumentError,
    StoreError,
    StoreMisconfiguredError,
    StoreTimeoutError,
    StoreUnavailableError,
    UserNotFoundError,
)
from userprofile_server.readiness import Readiness
from userprofile_server.stores import reconnecting
from userprofile_server.stores.base import DocumentStore
from userprofile_server.stores.reconnecting import ReconnectingStore
from userprofile_server.users.documents import document_key
from userprofile_server.users.lookup import get_user, get_users


class Closable(ScriptedStore):
    """A store that remembers whether it was closed, and responds to probes only while `well`."""

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
            raise StoreTimeoutError("no response in time")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnecting, "PROBE_INTERVAL", 0.02)
    monkeypatch.setattr(reconnecting, "REOPEN_AFTER", 0.02)
    monkeypatch.setattr(reconnecting, "_LONGEST_PAUSE", 0.01)


def opening(store: DocumentStore, *, then: Exception) -> Callable[[], DocumentStore]:
    """Opens this store, and later ones not."""
    stores = iter([store])

    def open_store() -> DocumentStore:
        for first in stores:
            return first
        raise then

    return open_store


def started(open_store: Callable[[], DocumentStore]) -> ReconnectingStore:
    proxy = ReconnectingStore("connection 1", open_store, probe_timeout=1)
    proxy.start()
    return proxy


def is_shown(proxy: ReconnectingStore, store: DocumentStore) -> bool:
    return proxy._store is store


def found(proxy: ReconnectingStore) -> bool:
    try:
        return get_user(proxy, "johndoe", timeout=1).username == "johndoe"
    except (StoreUnavailableError, StoreTimeoutError, StoreMisconfiguredError):
        return False


def test_a_lost_store_is_replaced_and_closed_and_the_last_one_closed_at_the_end() -> None:
    opened: list[Closable] = []

    def open_one() -> DocumentStore:
        opened.append(Closable())
        return opened[-1]

    proxy = started(open_one)
    eventually(lambda: found(proxy), "connected")
    opened[0].well = False
    eventually(lambda: len(opened) > 1 and found(proxy), "replaced")
    assert opened[0].closed
    proxy.close()
    proxy.join()
    assert all(store.closed for store in opened)
    with raises(StoreUnavailableError):
        get_user(proxy, "johndoe", timeout=1)


def test_while_disconnected_calls_fail_at_once_as_unavailable_and_not_as_a_timeout() -> None:
    store = Closable()
    proxy = started(opening(store, then=StoreTimeoutError("no response in time")))
    eventually(lambda: found(proxy), "connected")
    store.well = False

    def unavailable() -> bool:
        try:
            get_user(proxy, "johndoe", timeout=1)
        except StoreUnavailableError:
            return True
        except StoreTimeoutError:  # until the supervisor has looked
            return False
        raise AssertionError("the call succeeded")

    eventually(unavailable, "hidden")
    store.well = True
    eventually(lambda: found(proxy), "shown again")
    assert not store.closed
    proxy.close()
    proxy.join()


def test_a_store_without_the_document_or_with_a_corrupt_one_has_responded_and_one_that_fails_has_not() -> None:
    class Corrupt(Closable):
        def get(self, key: str, *, timeout: float) -> bytes | None:
            self._check()
            return b"{" if key == document_key("corrupt") else None

    store = Corrupt()
    proxy = started(opening(store, then=StoreUnavailableError("down")))
    eventually(proxy.first_attempt_over.is_set, "connected")
    for username, error in [("nobody", UserNotFoundError), ("corrupt", CorruptDocumentError)]:
        responses = proxy._responses
        with raises(error):
            get_user(proxy, username, timeout=1)
        (outcome,) = get_users(proxy, [username], timeout=1)
        assert isinstance(outcome, error)
        assert proxy._responses == responses + 2
    store.well = False
    with raises(StoreError):
        get_user(proxy, "nobody", timeout=1)
    assert proxy._responses == responses + 2
    proxy.close()
    proxy.join()


def test_a_bug_in_opening_does_not_end_the_supervisor() -> None:
    outcomes = iter([TypeError("a bug"), StoreUnavailableError("down")])

    def open_after_a_bug() -> DocumentStore:
        for outcome in outcomes:
            raise outcome
        return Closable()

    proxy = started(open_after_a_bug)
    eventually(lambda: found(proxy), "connected after all")
    proxy.close()
    proxy.join()


def test_a_store_that_is_misconfigured_is_closed_and_logged_once_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    store = Closable()
    proxy = started(opening(store, then=StoreMisconfiguredError("wrong password")))
    eventually(lambda: found(proxy), "connected")
    store.well = False
    eventually(lambda: store.closed, "closed")
    with raises(StoreMisconfiguredError):
        get_user(proxy, "johndoe", timeout=1)
    proxy.close()
    proxy.join()
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["connection 1: store unreachable: wrong password"]


def test_a_call_whose_store_is_hidden_meanwhile_gets_the_cause_and_not_that_it_was_closed() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Closable):
        def get(self, key: str, *, timeout: float) -> bytes | None:
            begun.set()
            go_on.wait(WAIT)
            raise StoreUnavailableError("closed under the call")

    store = Slow()
    proxy = started(opening(store, then=StoreMisconfiguredError("wrong password")))
    eventually(proxy.first_attempt_over.is_set, "connected")
    with ThreadPoolExecutor(1) as worker:
        call = worker.submit(get_user, proxy, "johndoe", timeout=1)
        assert begun.wait(WAIT)
        store.well = False
        proxy._failed.set()
        eventually(lambda: store.closed, "closed")
        go_on.set()
        with raises(StoreMisconfiguredError, match="wrong password"):
            call.result()
    proxy.close()
    proxy.join()


class Receiving(Closable):
    """A store whose first call lasts until `go_on`; probes time out behind it, as do other calls."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def get(self, key: str, *, timeout: float) -> bytes | None:
        if not self.begun.is_set():
            self.begun.set()
            self.well = False
            assert self.go_on.wait(WAIT)
            if self.closed:
                raise StoreUnavailableError("closed under the call")
            self.well = True
        return super().get(key, timeout=timeout)


def test_a_connection_that_is_busy_is_relieved_by_another_and_closed_when_its_call_has_ended() -> None:
    busy, second = Receiving(), Closable()
    stores = iter([busy, second])
    proxy = started(lambda: next(stores))
    eventually(proxy.first_attempt_over.is_set, "connected")
    with ThreadPoolExecutor(1) as worker:
        call = worker.submit(get_user, proxy, "johndoe", timeout=WAIT)
        assert busy.begun.wait(WAIT)
        eventually(lambda: is_shown(proxy, second), "relieved")
        for _ in range(3):
            assert found(proxy)
        assert not busy.closed
        busy.go_on.set()
        assert call.result().username == "johndoe"
    eventually(lambda: busy.closed, "closed")
    assert not second.closed
    proxy.close()
    proxy.join()
    assert second.closed


def test_calls_of_a_busy_connection_that_other_calls_give_up_waiting_for_are_not_cut_off() -> None:
    first, second = Receiving(), Closable()
    may_open = threading.Event()
    stores = iter([first, second])

    def open_store() -> DocumentStore:
        assert not first.begun.is_set() or may_open.wait(WAIT)
        return next(stores)

    proxy = started(open_store)
    eventually(proxy.first_attempt_over.is_set, "connected")
    with ThreadPoolExecutor(1) as worker:
        call = worker.submit(get_user, proxy, "johndoe", timeout=WAIT)
        assert first.begun.wait(WAIT)
        with raises(StoreTimeoutError):
            get_user(proxy, "johndoe", timeout=0.001)  # its own time is up behind the other one
        may_open.set()
        eventually(lambda: is_shown(proxy, second), "relieved")
        first.go_on.set()
        assert call.result().username == "johndoe"
    proxy.close()
    proxy.join()


def test_a_dead_connection_is_noticed_although_calls_are_in_flight_on_it_that_have_time_left() -> None:
    store = Receiving()
    opens_again, goes_on = threading.Event(), threading.Event()

    def open_store() -> DocumentStore:
        if store.begun.is_set():
            opens_again.set()
            goes_on.wait(WAIT)  # the SDK takes its time
            raise StoreUnavailableError("not connected")
        return store

    proxy = ReconnectingStore("connection 1", open_store, probe_timeout=0.1)
    proxy.start()
    eventually(proxy.first_attempt_over.is_set, "connected")
    with ThreadPoolExecutor(1) as worker:
        call = worker.submit(get_user, proxy, "johndoe", timeout=WAIT)
        assert store.begun.wait(WAIT)
        assert opens_again.wait(WAIT)
        eventually(lambda: proxy._store is None, "hidden before the attempt to connect is over")
        with raises(StoreUnavailableError, match="no response in time"):
            get_user(proxy, "johndoe", timeout=WAIT)
        goes_on.set()
        assert not store.closed
        store.go_on.set()  # it was alive after all
        assert call.result().username == "johndoe"
    eventually(lambda: found(proxy), "shown again")
    proxy.close()
    proxy.join()
    assert store.closed


def test_readiness_reports_every_change_once() -> None:
    changes: list[bool] = []
    responded_at = [float("-inf")]
    readiness = Readiness(lambda: responded_at[0], unready_after=3600, on_change=changes.append)
    readiness.start()
    assert changes == []
    responded_at[0] = float("inf")
    eventually(lambda: changes == [True], "ready")
    responded_at[0] = float("-inf")
    eventually(lambda: changes == [True, False], "unready")
    readiness.stop()
