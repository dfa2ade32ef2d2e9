"""The workers by themselves: threads, what they own, and what becomes of the work that they are given."""

import threading
from collections.abc import Iterator

import pytest

from tests.support import eventually
from userprofile_server.stores import UserStore
from userprofile_server.workers import Workers


class Nothing:
    """A store without users."""

    def probe(self, *, timeout: float) -> None:
        """Answers."""

    def close(self) -> None:
        """Closes."""


def open_nothing() -> UserStore:
    return Nothing()  # type: ignore[return-value]


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(2, open_nothing, probe_timeout=1)
    workers.open(10)
    yield workers
    workers.close()


def on_each(workers: Workers, count: int) -> list[object]:
    """Has each of `count` workers say which store it has."""
    stores: list[object] = []
    together = threading.Barrier(count)

    def tell() -> None:
        together.wait(10)
        stores.append(workers.current_store())

    for _ in range(count):
        workers.submit(tell)
    eventually(lambda: len(stores) == count, "all have told")
    return stores


def test_each_worker_has_a_store_of_its_own(workers: Workers) -> None:
    first, second = on_each(workers, 2)
    assert first is not second


def test_workers_that_share_have_one_store_for_all() -> None:
    workers = Workers(3, open_nothing, probe_timeout=1, share_handle=True)
    workers.open(10)
    assert len(set(map(id, on_each(workers, 3)))) == 1
    workers.close()


def test_what_is_submitted_is_called_with_its_arguments(workers: Workers) -> None:
    heard: list[object] = []
    workers.submit(heard.extend, "ab")
    eventually(lambda: heard == ["a", "b"], "called")


def test_the_callback_that_is_added_before_the_end_comes_with_it(workers: Workers) -> None:
    done: list[object] = []
    release = threading.Event()
    submission = workers.submit(release.wait)
    submission.add_done_callback(done.append)
    assert done == []
    release.set()
    eventually(lambda: done == [submission], "told")


def test_the_callback_that_is_added_after_the_end_comes_at_once() -> None:
    workers = Workers(1, open_nothing, probe_timeout=1)
    workers.open(10)
    over, next_one, done = threading.Event(), threading.Event(), list[object]()
    submission = workers.submit(over.set)
    workers.submit(next_one.set)
    assert next_one.wait(10)  # the one worker is through with the first
    submission.add_done_callback(done.append)
    assert done == [submission]
    workers.close()


def test_a_worker_survives_a_callback_that_goes_wrong(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    def fail(_: object) -> None:
        raise ValueError

    for _ in range(2):
        workers.submit(release.wait).add_done_callback(fail)
    release.set()
    assert len(on_each(workers, 2)) == 2
    assert [record.getMessage() for record in caplog.records] == ["a callback failed after a call"] * 2


@pytest.mark.parametrize("error", [ValueError(), SystemExit()])
def test_a_worker_survives_what_goes_wrong(workers: Workers, error: BaseException) -> None:
    def fail() -> None:
        raise error

    done: list[object] = []
    for _ in range(2):
        workers.submit(fail).add_done_callback(done.append)
    eventually(lambda: len(done) == 2, "both have failed")
    assert len(on_each(workers, 2)) == 2


def test_held_workers_begin_with_nothing_newer(workers: Workers) -> None:
    done = threading.Event()
    with workers.hold():
        workers.submit(done.set)
        eventually(lambda: workers._queue.qsize() == 1, "they hold, and the call waits")
        assert not done.is_set()
    assert done.wait(10)


def test_closing_waits_for_the_work_that_has_begun_and_drops_the_rest(workers: Workers) -> None:
    begun, release, dropped = threading.Semaphore(0), threading.Event(), threading.Event()
    finished: list[int] = []

    def work(number: int) -> None:
        begun.release()
        release.wait(10)
        finished.append(number)

    for number in range(2):
        workers.submit(work, number)
    for _ in range(2):
        assert begun.acquire(timeout=10)
    workers.submit(dropped.set)
    closing = threading.Thread(target=workers.close)
    closing.start()
    eventually(lambda: workers._queue.qsize() == 2, "only the word to end is in the queue")
    assert closing.is_alive()
    release.set()
    closing.join(10)
    assert not closing.is_alive()
    assert sorted(finished) == [0, 1]
    assert not dropped.is_set()


def test_workers_that_were_never_opened_can_be_closed() -> None:
    Workers(2, open_nothing, probe_timeout=1).close()
