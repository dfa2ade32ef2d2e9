"""Stopping: what has begun is finished, what hangs on is cut off, and the process ends well."""

import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from tests.slow_reader import SlowReader
from tests.support import CallError, GetUser, ServerProcess, eventually
from tests.test_get_user import Serve, serve  # noqa: F401, a fixture

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Held:
    """Reads that don't return until they are released."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self, _timeout: float) -> None:
        self.begun.release()
        self.release.wait(30)


def test_calls_in_progress_finish_and_watchers_hear_of_the_end(serve: Serve) -> None:  # noqa: F811
    held = Held()
    server = serve(held, workers=4, drain_grace=30)
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
    next(watch)
    with ThreadPoolExecutor(6) as callers:
        calls = [callers.submit(server.get_user, "johndoe", timeout=30) for _ in range(6)]  # two of them queue
        for _ in range(4):
            assert held.begun.acquire(timeout=10)
        eventually(lambda: server.server._workers._queue.qsize() == 2, "two calls are queued")
        stop = threading.Thread(target=server.server.stop)
        stop.start()
        assert [response.status for response in watch] == [NOT_SERVING]  # and then the stream has ended
        assert stop.is_alive()
        held.release.set()
        assert [call.result(timeout=20).username for call in calls] == ["johndoe"] * 6
    stop.join(timeout=20)
    assert not stop.is_alive()


def test_open_streams_do_not_use_up_the_grace(serve: Serve) -> None:  # noqa: F811
    server = serve(lambda _timeout: None, drain_grace=3600)
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
    next(watch)
    never = threading.Event()
    requests = iter(lambda: never.wait(60), True)
    reflection = reflection_pb2_grpc.ServerReflectionStub(server.channel).ServerReflectionInfo(requests, timeout=60)
    eventually(lambda: server.server._reflection._streams, "the stream is open")
    stop = threading.Thread(target=server.server.stop)
    stop.start()
    stop.join(timeout=20)
    assert not stop.is_alive()
    assert reflection.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    never.set()


def test_a_call_that_outlives_the_grace_is_cancelled(serve: Serve) -> None:  # noqa: F811
    held = Held()
    server = serve(held, drain_grace=0.1)
    with ThreadPoolExecutor(1) as callers:
        call = callers.submit(server.get_user.error, "johndoe", timeout=30)
        assert held.begun.acquire(timeout=10)
        stop = threading.Thread(target=server.server.stop)
        stop.start()
        assert call.result(timeout=20).code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        held.release.set()
    stop.join(timeout=20)
    assert not stop.is_alive()


def test_a_call_that_its_store_holds_does_not_hold_up_the_end(serve: Serve) -> None:  # noqa: F811
    held = Held()
    server = serve(held, drain_grace=0.1, store_timeout=600)
    with ThreadPoolExecutor(1) as callers:
        call = callers.submit(server.get_user.error, "johndoe", timeout=30)
        assert held.begun.acquire(timeout=10)
        stop = threading.Thread(target=server.server.stop)
        stop.start()
        stop.join(timeout=20)
        assert not stop.is_alive()  # though the store still hasn't answered
        held.release.set()
        assert call.result(timeout=20).code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_leaves_no_call_without_an_answer(user_store_url: str, number: int) -> None:
    outcomes: Counter[str] = Counter()
    answered = threading.Semaphore(0)

    def call_until_refused(address: str) -> None:
        with grpc.insecure_channel(address) as channel:
            get_user = GetUser(channel)
            while True:
                try:
                    get_user("johndoe", timeout=20)
                except grpc.RpcError as error:
                    outcomes[error.code().name] += 1
                    return
                outcomes["OK"] += 1
                answered.release()

    with ServerProcess(user_store_url) as server:
        callers = [threading.Thread(target=call_until_refused, args=(server.address,)) for _ in range(16)]
        for caller in callers:
            caller.start()
        for _ in range(500):
            assert answered.acquire(timeout=20)
        server.signal(number)
        for caller in callers:
            caller.join()
        assert server.wait() == 0
    # The last call of each caller found nobody listening; none hung, was cut off or failed otherwise.
    assert outcomes.keys() == {"OK", "UNAVAILABLE"}
    assert outcomes["UNAVAILABLE"] == 16


def test_a_second_signal_cuts_off_what_the_first_one_waits_for(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--drain-grace", "3600") as server, SlowReader(server.address) as reader:
        server.signal(signal.SIGTERM)
        eventually(lambda: reader.told_that_the_connection_closes, "the drain has begun")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_watchers_that_leave_while_the_server_stops_do_not_hold_it_up(user_store_url: str) -> None:
    for _ in range(5):
        with ServerProcess(user_store_url, "--drain-grace", "3600") as server:
            with grpc.insecure_channel(server.address) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=60) for _ in range(50)]
                for watch in watches:
                    next(watch)
                server.signal(signal.SIGTERM)
                for watch in watches:
                    watch.cancel()
                assert server.wait() == 0


def test_a_watcher_that_reads_nothing_holds_up_neither_checks_nor_the_drain(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--drain-grace", "1") as server:
        with SlowReader(server.address), SlowReader(server.address), grpc.insecure_channel(server.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            for _ in range(3):
                assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5).status == SERVING
            server.signal(signal.SIGTERM)
            assert server.wait() == 0


def test_all_reflection_streams_are_cancelled(serve: Serve) -> None:  # noqa: F811
    server = serve(lambda _timeout: None, drain_grace=3600)
    never = threading.Event()
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    streams = [stub.ServerReflectionInfo(iter(lambda: never.wait(60), True), timeout=60) for _ in range(8)]
    eventually(lambda: len(server.server._reflection._streams) == 8, "the streams are open")
    stop = threading.Thread(target=server.server.stop)
    stop.start()
    stop.join(timeout=20)
    assert not stop.is_alive()
    assert all(stream.code() is not grpc.StatusCode.OK for stream in streams)
    never.set()


def test_an_idle_server_with_a_watcher_ends_at_once_and_well(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--drain-grace", "3600") as server:
        with grpc.insecure_channel(server.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            next(watch)
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
            assert [response.status for response in watch] == [NOT_SERVING]
        assert "stopped" in server.stderr


def test_after_the_end_nobody_listens(user_store_url: str) -> None:
    with ServerProcess(user_store_url) as server:
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        with grpc.insecure_channel(server.address) as channel:
            error = CallError.of(lambda: GetUser(channel)("johndoe", timeout=5))
        assert error.code is grpc.StatusCode.UNAVAILABLE
