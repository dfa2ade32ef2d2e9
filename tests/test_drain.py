"""Stopping: what has begun is finished, what hangs on is cut off, and the process ends well."""

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.couchbase_node import TestCluster
from tests.slow_reader import SlowReader
from tests.support import WAIT, CallError, GetUser, ServerProcess, eventually, health_stub, reflection_stub
from tests.test_get_user import Serve, serve  # noqa: F401, a fixture
from tests.timing import judging
from userprofile_server.server import UserProfileServer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Held:
    """Reads that don't return until they are released."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self, _timeout: float) -> None:
        self.begun.release()
        self.release.wait(WAIT)


def held_open(until: threading.Event) -> Iterator[Any]:
    """The requests of a stream that sends none."""
    until.wait(WAIT)
    yield from ()


def test_calls_in_progress_finish_and_watchers_get_not_serving(serve: Serve) -> None:  # noqa: F811
    held = Held()
    server = serve(held, workers=4, drain_grace=30)
    watch = health_stub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
    next(watch)
    with ThreadPoolExecutor(6) as callers:
        calls = [callers.submit(server.get_user, "johndoe", timeout=WAIT) for _ in range(6)]  # two of them queue
        for _ in range(4):
            assert held.begun.acquire(timeout=WAIT)
        eventually(lambda: server.server._executor._next.qsize() == 2, "two calls are queued")
        stop = threading.Thread(target=server.server.stop)
        stop.start()
        assert [response.status for response in watch] == [NOT_SERVING]  # and then the stream has ended
        assert stop.is_alive()
        held.release.set()
        assert [call.result(timeout=WAIT).username for call in calls] == ["johndoe"] * 6
    stop.join(timeout=WAIT)
    assert not stop.is_alive()


def test_open_streams_do_not_use_up_the_grace(serve: Serve) -> None:  # noqa: F811
    server = serve(lambda _timeout: None, drain_grace=3600)
    watch = health_stub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
    next(watch)
    never = threading.Event()
    requests = held_open(never)
    reflection = reflection_stub(server.channel).ServerReflectionInfo(requests, timeout=WAIT)
    eventually(lambda: server.server._reflection._idle, "the stream is open")
    stop = threading.Thread(target=server.server.stop)
    stop.start()
    stop.join(timeout=WAIT)
    assert not stop.is_alive()
    assert reflection.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    never.set()


def test_a_call_that_outlives_the_grace_is_cancelled(serve: Serve) -> None:  # noqa: F811
    held = Held()
    server = serve(held, drain_grace=0.1)
    with ThreadPoolExecutor(1) as callers:
        call = callers.submit(server.get_user.error, "johndoe", timeout=WAIT)
        assert held.begun.acquire(timeout=WAIT)
        stop = threading.Thread(target=server.server.stop)
        stop.start()
        assert call.result(timeout=WAIT).code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        held.release.set()
    stop.join(timeout=WAIT)
    assert not stop.is_alive()


def test_a_call_that_its_store_holds_does_not_hold_up_the_end(serve: Serve) -> None:  # noqa: F811
    held = Held()
    server = serve(held, drain_grace=0.1, store_timeout=600)
    with ThreadPoolExecutor(1) as callers:
        call = callers.submit(server.get_user.error, "johndoe", timeout=WAIT)
        assert held.begun.acquire(timeout=WAIT)
        stop = threading.Thread(target=server.server.stop)
        stop.start()
        stop.join(timeout=WAIT)
        assert not stop.is_alive()  # though the store still hasn't responded
        held.release.set()
        assert call.result(timeout=WAIT).code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


@pytest.mark.timing
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_leaves_no_call_without_a_response(user_store_url: str, number: int) -> None:
    outcomes: Counter[str] = Counter()
    completed = threading.Semaphore(0)

    def call_until_refused(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            get_user = GetUser(channel)
            while True:
                try:
                    get_user("johndoe", timeout=WAIT)
                except grpc.RpcError as error:
                    outcomes[error.code().name] += 1
                    return
                outcomes["OK"] += 1
                completed.release()

    with ServerProcess(user_store_url) as server:
        callers = [threading.Thread(target=call_until_refused, args=(server.address,)) for _ in range(16)]
        for caller in callers:
            caller.start()
        for _ in range(500):
            assert completed.acquire(timeout=WAIT)
        server.signal(number)
        for caller in callers:
            caller.join()
        assert server.wait() == 0
    # The last call of each caller found nobody listening; none hung or failed otherwise. gRPC cancels a call that it
    # hasn't handed to us yet (see UserProfileServer): that the moment it gets for it is enough is a promise about time.
    assert outcomes.keys() <= {"OK", "UNAVAILABLE", "CANCELLED"}
    assert outcomes["UNAVAILABLE"] + outcomes["CANCELLED"] == 16
    assert outcomes["CANCELLED"] == 0 or not judging()


def test_a_second_signal_cuts_off_what_the_first_one_waits_for(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--drain-grace", "3600") as server, SlowReader(server.address) as reader:
        server.signal(signal.SIGTERM)
        eventually(lambda: reader.told_that_the_connection_closes, "the drain has begun")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_until_the_drain_calls_are_served_and_health_says_not_serving(serve: Serve) -> None:  # noqa: F811
    server = serve(drain_delay=3600, drain_grace=3600)
    stub = health_stub(server.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
    assert next(watch).status == SERVING
    stop = threading.Thread(target=server.server.stop)
    stop.start()
    assert next(watch).status == NOT_SERVING
    late_watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
    assert next(late_watch).status == NOT_SERVING
    server.server._health.set_serving(True)  # readiness may come too late with it
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT).status == NOT_SERVING
    assert server.get_user("johndoe")
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as another:
        assert GetUser(another)("johndoe")
    assert watch.is_active()
    assert late_watch.is_active()
    server.server.stop()
    assert [response.status for each in (watch, late_watch) for response in each] == []  # both have ended
    stop.join(timeout=WAIT)
    assert not stop.is_alive()


def test_a_second_signal_cuts_the_delay_short(user_store_url: str) -> None:
    delay = {"USERPROFILE_SERVER_DRAIN_DELAY": "3600"}
    with ServerProcess(user_store_url, **delay) as server, grpc.insecure_channel(server.address) as channel:
        watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
        assert next(watch).status == SERVING
        server.signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        assert GetUser(channel)("johndoe")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_ctrl_c_has_no_delay(user_store_url: str) -> None:
    with ServerProcess(user_store_url, USERPROFILE_SERVER_DRAIN_DELAY="3600") as server:
        server.signal(signal.SIGINT)
        assert server.wait() == 0


@pytest.mark.parametrize("stop", [lambda server: server.stop(grace=0), lambda server: server.__exit__()])
def test_who_stops_a_server_in_its_own_process_has_no_delay(
    serve: Serve,  # noqa: F811
    stop: Callable[[UserProfileServer], None],
) -> None:
    stop(serve(drain_delay=3600).server)


def test_watchers_that_leave_while_the_server_stops_do_not_hold_it_up(user_store_url: str) -> None:
    for _ in range(5):
        with ServerProcess(user_store_url, "--drain-grace", "3600") as server:
            with grpc.insecure_channel(server.address) as channel:
                stub = health_stub(channel)
                watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT) for _ in range(50)]
                for watch in watches:
                    next(watch)
                server.signal(signal.SIGTERM)
                for watch in watches:
                    watch.cancel()
                assert server.wait() == 0


def test_a_watcher_that_reads_nothing_holds_up_neither_checks_nor_the_drain(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--drain-grace", "1") as server:
        with SlowReader(server.address), SlowReader(server.address), grpc.insecure_channel(server.address) as channel:
            stub = health_stub(channel)
            for _ in range(3):
                assert stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT).status == SERVING
            server.signal(signal.SIGTERM)
            assert server.wait() == 0


def test_all_reflection_streams_are_cancelled(serve: Serve) -> None:  # noqa: F811
    server = serve(lambda _timeout: None, drain_grace=3600)
    never = threading.Event()
    stub = reflection_stub(server.channel)
    streams = [stub.ServerReflectionInfo(held_open(never), timeout=WAIT) for _ in range(8)]
    eventually(lambda: len(server.server._reflection._idle) == 8, "the streams are open")
    stop = threading.Thread(target=server.server.stop)
    stop.start()
    stop.join(timeout=WAIT)
    assert not stop.is_alive()
    assert all(stream.code() is not grpc.StatusCode.OK for stream in streams)
    never.set()


def test_an_idle_server_with_a_watcher_ends_at_once_and_well(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--drain-grace", "3600") as server:
        with grpc.insecure_channel(server.address) as channel:
            watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
            next(watch)
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert [response.status for response in watch] == [NOT_SERVING]
        assert "stopped" in server.stderr


def test_after_the_end_none_of_its_threads_is_left(serve: Serve) -> None:  # noqa: F811
    before = set(threading.enumerate())
    server = serve(shared_connection=True)
    assert server.get_user("johndoe")
    assert health_stub(server.channel).Check(health_pb2.HealthCheckRequest(), timeout=WAIT).status == SERVING
    assert set(threading.enumerate()) - before
    server.close()

    def left() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread not in before]

    eventually(lambda: not left(), lambda: f"threads end: {left()}")


def test_after_the_end_nobody_listens(user_store_url: str) -> None:
    with ServerProcess(user_store_url) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        with grpc.insecure_channel(server.address) as channel:
            error = CallError.of(lambda: GetUser(channel)("johndoe", timeout=5))
        assert error.code is grpc.StatusCode.UNAVAILABLE


def test_a_server_that_cannot_connect_does_not_wait_for_the_attempt() -> None:
    patient = {
        "USERPROFILE_SERVER_COUCHBASE_BOOTSTRAP_TIMEOUT": "600",
        "USERPROFILE_SERVER_COUCHBASE_CONNECT_TIMEOUT": "600",
    }
    credentials = {
        "USERPROFILE_SERVER_COUCHBASE_USERNAME": "username",
        "USERPROFILE_SERVER_COUCHBASE_PASSWORD": "password",
    }
    with TestCluster() as cluster:
        cluster.fault(mute=True)
        with ServerProcess(f"couchbase://{cluster.hosts}/default", **credentials, **patient) as server:
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert "stopped" in server.stderr
