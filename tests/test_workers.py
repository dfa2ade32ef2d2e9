"""The workers by themselves: threads, what they own, and what becomes of the work that they are given."""

import threading
from collections.abc import Iterator

import pytest

from tests.support import eventually
from userprofile_server import workers as workers_module
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


@pytest.mark.parametrize("error", [ValueError(), SystemExit()])
def test_a_worker_survives_what_goes_wrong(workers: Workers, error: BaseException) -> None:
    failed = threading.Semaphore(0)

    def fail() -> None:
        failed.release()
        raise error

    for _ in range(2):
        workers.submit(fail)
    for _ in range(2):
        assert failed.acquire(timeout=10)
    assert len(on_each(workers, 2)) == 2


def test_held_workers_begin_with_nothing_newer(workers: Workers) -> None:
    done = threading.Event()
    with workers.hold():
        workers.submit(done.set)
        eventually(lambda: workers._queue.qsize() == 1, "they hold, and the call waits")
        assert not done.is_set()
    assert done.wait(10)


def test_closing_waits_for_the_work_that_has_begun_and_drops_the_rest(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "_CLOSE_SECONDS", 60)
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


class Waiting:
    """Calls that wait for a lost node until they are released."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.begun: list[object] = []
        """The store of each call that has begun."""
        self.ended: list[object] = []
        self.release = threading.Event()

    def submit(self, count: int) -> None:
        for _ in range(count):
            self._workers.submit(self._wait)

    def _wait(self) -> None:
        self.begun.append(self._workers.current_store())
        self.release.wait(30)
        self.ended.append(None)


@pytest.mark.parametrize("share", [False, True])
def test_calls_that_wait_do_not_keep_others_from_being_answered(share: bool) -> None:
    workers = Workers(4, open_nothing, probe_timeout=1, share_handle=share, spares=64)
    workers.open(10)
    stores = set(map(id, on_each(workers, 4)))
    waiting = Waiting(workers)
    waiting.submit(40)
    answered: list[object] = []
    for _ in range(100):
        workers.submit(answered.append, None)
    eventually(lambda: len(answered) == 100, "the others are answered")
    assert len(waiting.begun) == 40
    assert waiting.ended == []
    assert {id(store) for store in waiting.begun} == stores, "spares share the workers' stores evenly"
    waiting.release.set()
    workers.close()
    assert len(waiting.ended) == 40


def test_spares_end_when_they_are_not_needed_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "SPARE_SECONDS", 0.02)
    workers = Workers(2, open_nothing, probe_timeout=1, spares=64)
    workers.open(10)
    for _ in range(2):  # and come back when they are
        waiting = Waiting(workers)
        waiting.submit(20)
        eventually(lambda: len(waiting.begun) == 20, "all have begun")  # noqa: B023, called within the round
        waiting.release.set()
        eventually(lambda: not workers._spares, "the spares have ended")
        assert len(on_each(workers, 2)) == 2
    workers.close()


def test_when_all_spares_wait_too_calls_queue_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers(1, open_nothing, probe_timeout=1, spares=2)
    workers.open(10)
    waiting = Waiting(workers)
    waiting.submit(5)
    eventually(lambda: "calls queue" in caplog.text, "told")
    assert len(waiting.begun) == 3
    waiting.release.set()
    eventually(lambda: len(waiting.ended) == 5, "all are answered in the end")
    workers.close()
    assert caplog.text.count("calls queue") == 1


def test_a_system_without_more_threads_leaves_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start
    full = True

    def refuse(thread: threading.Thread) -> None:
        if full and thread.name.startswith("spare"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    workers = Workers(1, open_nothing, probe_timeout=1, spares=2)
    workers.open(10)
    waiting = Waiting(workers)
    waiting.submit(2)
    eventually(lambda: "calls queue" in caplog.text, "told")
    assert len(waiting.begun) == 1
    full = False
    eventually(lambda: len(waiting.begun) == 2, "a spare has been started after all")
    waiting.release.set()
    workers.close()


def test_held_spares_begin_with_nothing_newer_either() -> None:
    workers = Workers(2, open_nothing, probe_timeout=1, spares=64)
    workers.open(10)
    waiting = Waiting(workers)
    waiting.submit(10)
    eventually(lambda: len(waiting.begun) == 10, "spares are there")
    done: list[object] = []
    with workers.hold():
        waiting.release.set()
        eventually(lambda: len(waiting.ended) == 10, "what has begun ends")
        for _ in range(30):
            workers.submit(done.append, None)
        eventually(lambda: all(worker.task is not None for worker in workers._workers), "they hold, and the calls wait")
        before = len(workers._spares)
        threading.Event().wait(workers_module.SUPERVISION_SECONDS * 4)  # the supervisor looks, and starts no others
        assert done == []
        assert len(workers._spares) == before
    eventually(lambda: len(done) == 30, "released")
    workers.close()
