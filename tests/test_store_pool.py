"""The connections of a process: who reads through which, and when they are closed."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.canary import raises
from tests.support import WAIT, ScriptedStore
from userprofile_server.errors import StoreMisconfiguredError, StoreUnavailableError
from userprofile_server.stores.base import DocumentStore
from userprofile_server.stores.pool import StorePool


class Closable(ScriptedStore):
    """A store that records that it was closed."""

    def __init__(self) -> None:
        super().__init__(lambda _timeout: None)
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> Iterator[StorePool]:
    pool = StorePool(request.param, Closable, probe_timeout=1)
    pool.open(WAIT)
    yield pool
    pool.close()


def stores_of(pool: StorePool, threads: int) -> list[int]:
    """Has so many threads take their stores, and says which these are."""
    with ThreadPoolExecutor(threads, initializer=pool.assign) as executor:
        together = threading.Barrier(threads)

        def record(_number: int) -> int:
            together.wait(WAIT)
            assert pool.current() is pool.current()
            return id(pool.current())

        return list(executor.map(record, range(threads)))


@pytest.mark.parametrize("pool", [3], indirect=True)
def test_each_thread_has_a_store_of_its_own_and_further_ones_share_them_evenly(pool: StorePool) -> None:
    first = stores_of(pool, 3)
    assert len(set(first)) == 3
    more = stores_of(pool, 6)
    assert sorted(more) == sorted(first * 2)


@pytest.mark.parametrize("pool", [1], indirect=True)
def test_all_threads_share_a_single_one(pool: StorePool) -> None:
    assert len(set(stores_of(pool, 3))) == 1


def test_a_mistake_of_our_own_keeps_it_from_opening_and_any_other_does_not() -> None:
    def open_with(error: Exception) -> StorePool:
        def fail() -> DocumentStore:
            raise error

        return StorePool(2, fail, probe_timeout=1)

    permanent = open_with(StoreMisconfiguredError("no such URL", permanent=True))
    with raises(StoreMisconfiguredError, match="no such URL"):
        permanent.open(WAIT)
    permanent.close()
    for error in (StoreUnavailableError("down"), StoreMisconfiguredError("wrong password")):
        pool = open_with(error)
        pool.open(WAIT)
        pool.close()


def test_closing_does_not_wait_for_an_attempt_to_connect() -> None:
    connecting, release, late = threading.Event(), threading.Event(), Closable()

    def open_late() -> DocumentStore:
        connecting.set()
        release.wait()
        return late

    pool = StorePool(1, open_late, probe_timeout=1)
    pool.open(0)
    assert connecting.wait(WAIT)
    pool.close()
    assert not late.closed.is_set()
    release.set()
    assert late.closed.wait(WAIT), "what was opened too late is closed again"


def test_one_that_was_never_opened_can_be_closed() -> None:
    StorePool(2, Closable, probe_timeout=1).close()
