"""The executor by itself: its threads, and what becomes of the calls that they are given."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import WAIT, eventually
from userprofile_server.rpc import executor as executor_module
from userprofile_server.rpc.backlog import Backlog
from userprofile_server.rpc.executor import Executor


@pytest.fixture
def executor() -> Iterator[Executor]:
    executor = started(2)
    yield executor
    executor.close()


def started(threads: int, spares: int = 0) -> Executor:
    executor = Executor(threads, backlog=patient(), spares=spares)
    executor.start()
    return executor


def patient() -> "Backlog[Any]":
    """A backlog that lets every call wait."""
    return Backlog(target=WAIT, burst=WAIT, least=1000, most=10_000, most_bytes=10_000)


def submit(executor: Executor, function: Callable[..., object], *arguments: object) -> None:
    assert executor.submit(lambda: "a caller", math.inf, 0, never, function, *arguments)


def never() -> None:
    raise AssertionError("a call is refused")


def on_each(executor: Executor, count: int) -> list[int]:
    """Returns the identifiers of `count` threads that run at once."""
    threads: list[int] = []
    together = threading.Barrier(count)

    def record() -> None:
        together.wait(WAIT)
        threads.append(threading.get_ident())

    for _ in range(count):
        submit(executor, record)
    eventually(lambda: len(threads) == count, "all have run")
    return threads


def test_each_thread_and_each_spare_is_prepared_before_its_first_call() -> None:
    prepared: list[int] = []
    executor = Executor(2, backlog=patient(), spares=8, on_thread_start=lambda: prepared.append(threading.get_ident()))
    executor.start()
    assert set(on_each(executor, 5)) <= set(prepared)
    assert len(prepared) >= 5
    executor.close()


def test_a_call_has_the_time_at_which_it_was_queued(executor: Executor) -> None:
    release = threading.Event()
    for _ in range(2):
        submit(executor, release.wait)
    eventually(lambda: executor._next.qsize() == 0, "both threads are busy")
    before = time.monotonic()
    submit(executor, release.wait)
    after = time.monotonic()
    task = executor._next.get()
    assert task is not None
    queued_at, _refuse, function, arguments = task
    assert before <= queued_at <= after
    assert (function, arguments) == (release.wait, ())
    release.set()


def test_the_age_of_the_queue_is_that_of_calls_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(executor_module, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    executor = Executor(1, backlog=patient())  # not started: the test takes the calls
    assert executor.queue() == (0, 0)
    for moment in (5000, 9000):  # after long idle times
        now[0] = moment
        submit(executor, int)
        now[0] += 1
        submit(executor, int)
        now[0] += 1
        assert executor.queue() == (2, 2)
        for age in (2, 0):  # at most: the second has come after the first, nobody knows when
            task = executor._next.get()
            assert task is not None
            executor._work_on(executor._workers[0], task)
            assert executor.queue()[1] == age


def test_what_is_submitted_is_called_with_its_arguments(executor: Executor) -> None:
    received: list[object] = []
    submit(executor, received.extend, "ab")
    eventually(lambda: received == ["a", "b"], "called")


@pytest.mark.parametrize("error", [ValueError(), SystemExit()])
def test_a_thread_survives_what_goes_wrong(executor: Executor, error: BaseException) -> None:
    failed = threading.Semaphore(0)

    def fail() -> None:
        failed.release()
        raise error

    for _ in range(2):
        submit(executor, fail)
    for _ in range(2):
        assert failed.acquire(timeout=WAIT)
    assert len(on_each(executor, 2)) == 2


def test_held_threads_begin_with_nothing_newer(executor: Executor) -> None:
    done = threading.Event()
    with executor.hold():
        submit(executor, done.set)
        eventually(lambda: executor._next.qsize() == 1, "they hold, and the call waits")
        assert not done.is_set()
    assert done.wait(WAIT)


def test_closing_waits_for_the_work_that_has_begun_and_drops_the_rest(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_module, "_CLOSE_SECONDS", 60)
    begun, release, dropped = threading.Semaphore(0), threading.Event(), threading.Event()
    finished: list[int] = []

    def work(number: int) -> None:
        begun.release()
        release.wait(WAIT)
        finished.append(number)

    for number in range(2):
        submit(executor, work, number)
    for _ in range(2):
        assert begun.acquire(timeout=WAIT)
    submit(executor, dropped.set)
    closing = threading.Thread(target=executor.close)
    closing.start()
    eventually(lambda: executor._next.qsize() == 2, "only the word to end is in the queue")
    assert closing.is_alive()
    release.set()
    closing.join(WAIT)
    assert not closing.is_alive()
    assert sorted(finished) == [0, 1]
    assert not dropped.is_set()


def test_one_that_was_never_started_can_be_closed() -> None:
    Executor(2, backlog=patient()).close()


class Patience:
    """Calls of several callers to one worker, and whether each was begun or refused."""

    def __init__(self, burst: float) -> None:
        backlog: Backlog[Any] = Backlog(target=burst, burst=burst, least=1000, most=10_000, most_bytes=10_000)
        self.executor = Executor(1, backlog=backlog)
        self.executor.start()
        self.outcomes: list[str] = []

    def submit(self, number: int, *, takes: float) -> None:
        def begin() -> None:
            self.outcomes.append("begun")
            time.sleep(takes)

        def refuse() -> None:
            self.outcomes.append("refused")

        assert self.executor.submit(lambda: number, math.inf, 0, refuse, begin)


@pytest.mark.slow
def test_a_store_that_becomes_slow_at_once_has_calls_refused_that_have_waited_for_too_long() -> None:
    """They were admitted when nothing was slow. Some are begun first: the queue may go away by itself."""
    patience = Patience(burst=0.5)
    for number in range(100):
        patience.submit(number, takes=0.6)
    eventually(lambda: len(patience.outcomes) == 100, "all have had their turn")
    patience.executor.close()
    *_, last = patience.outcomes
    assert patience.outcomes.count("begun") <= 5, patience.outcomes
    assert last == "begun", "nobody waits behind it"


@pytest.mark.slow
def test_a_queue_that_goes_away_by_itself_is_served() -> None:
    patience = Patience(burst=2)
    patience.submit(0, takes=2.2)
    for number in range(1, 100):
        patience.submit(number, takes=0)
    eventually(lambda: len(patience.outcomes) == 100, "all have had their turn")
    patience.executor.close()
    assert "refused" not in patience.outcomes


class Waiting:
    """Calls that wait for a lost node until they are released."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.begun: list[object] = []
        self.ended: list[object] = []
        self.release = threading.Event()

    def submit(self, count: int) -> None:
        for _ in range(count):
            submit(self._executor, self._wait)

    def _wait(self) -> None:
        self.begun.append(None)
        self.release.wait(WAIT)
        self.ended.append(None)


def test_calls_that_wait_do_not_keep_others_from_being_served() -> None:
    executor = started(4, spares=64)
    waiting = Waiting(executor)
    waiting.submit(40)
    completed: list[object] = []
    for _ in range(100):
        submit(executor, completed.append, None)
    eventually(lambda: len(completed) == 100, "the others complete")
    assert len(waiting.begun) == 40
    assert waiting.ended == []
    waiting.release.set()
    executor.close()
    assert len(waiting.ended) == 40


def test_spares_end_when_they_are_not_needed_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "SPARE_SECONDS", 0.02)
    executor = started(2, spares=64)
    for _ in range(2):  # and come back when they are
        waiting = Waiting(executor)
        waiting.submit(20)
        eventually(lambda: len(waiting.begun) == 20, "all have begun")  # noqa: B023, called within the round
        waiting.release.set()
        eventually(lambda: not executor._spares, "the spares have ended")
        assert len(on_each(executor, 2)) == 2
    executor.close()


def test_when_all_spares_wait_too_calls_queue_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    executor = started(1, spares=2)
    waiting = Waiting(executor)
    waiting.submit(5)
    eventually(lambda: "calls queue" in caplog.text, "logged")
    assert len(waiting.begun) == 3
    waiting.release.set()
    eventually(lambda: len(waiting.ended) == 5, "all complete in the end")
    executor.close()
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
    executor = started(1, spares=2)
    waiting = Waiting(executor)
    waiting.submit(2)
    eventually(lambda: "calls queue" in caplog.text, "logged")
    assert len(waiting.begun) == 1
    full = False
    eventually(lambda: len(waiting.begun) == 2, "a spare has been started after all")
    waiting.release.set()
    executor.close()


def test_held_spares_begin_with_nothing_newer_either() -> None:
    executor = started(2, spares=64)
    waiting = Waiting(executor)
    waiting.submit(10)
    eventually(lambda: len(waiting.begun) == 10, "spares are there")
    done: list[object] = []
    with executor.hold():
        waiting.release.set()
        eventually(lambda: len(waiting.ended) == 10, "what has begun ends")
        for _ in range(30):
            submit(executor, done.append, None)
        eventually(
            lambda: all(worker.task is not None for worker in executor._workers), "they hold, and the calls wait"
        )
        before = len(executor._spares)
        threading.Event().wait(executor_module.SUPERVISION_SECONDS * 4)  # the supervisor looks, and starts no others
        assert done == []
        assert len(executor._spares) == before
    eventually(lambda: len(done) == 30, "released")
    executor.close()
