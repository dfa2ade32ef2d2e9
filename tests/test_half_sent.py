"""Requests of which only a part arrives: they hold no thread, and no other call waits for them."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from tests.slow_reader import OpenStreams
from tests.support import WAIT, CallError, GetUser, ServerProcess, bare_stream, eventually, health_stub
from tests.test_drain import held_open
from tests.test_get_user import ScriptedServer, Serve, serve  # noqa: F401, a fixture
from tests.test_health import REFLECTION, SERVING, check, reflect
from tests.timing import promise

PATHS = [
    b"/userprofile.v1.UserProfileService/GetUser",
    b"/userprofile.v1.UserProfileService/BatchGetUsers",
    b"/grpc.health.v1.Health/Check",
    b"/grpc.health.v1.Health/Watch",
    *(f"/{name}/ServerReflectionInfo".encode() for name in REFLECTION),
]
PARTS = {
    "headers": b"",
    "half a prefix": b"\x00\x00\x00",
    "a prefix": b"\x00\x00\x00\x00\x09",
    "half a message": b"\x00\x00\x00\x00\x09\x0a\x07john",
}


@pytest.mark.parametrize("sent", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("path", PATHS)
def test_all_other_calls_succeed(address: str, path: bytes, sent: bytes) -> None:
    with OpenStreams(address, path, 50, sent), grpc.insecure_channel(address) as channel:
        for _ in range(3):
            assert GetUser(channel)("johndoe").username == "johndoe"
            assert check(channel) == SERVING
            watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
            assert next(watch).status == SERVING
            watch.cancel()
            assert reflect(channel, REFLECTION[0], list_services="").list_services_response.service


@pytest.mark.parametrize("path", PATHS[:4])
def test_a_call_without_a_request_is_unimplemented(address: str, path: bytes) -> None:
    with grpc.insecure_channel(address) as channel:
        call = bare_stream(channel, path.decode())
        assert CallError.of(lambda: list(call(iter([]), timeout=WAIT))).code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("path", PATHS[:4])
def test_they_end_when_their_time_is_up(serve: Serve, path: bytes) -> None:  # noqa: F811
    server = serve(request_timeout=0.2)
    with silent_calls(server, path, 1) as (call,):
        error = CallError.of(lambda: list(call))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "REQUEST_INCOMPLETE")
    assert error.request_id == error.metadata["x-request-id"] == "silent"
    assert error.detail(error_details_pb2.RetryInfo)
    assert server.get_user("johndoe")


@pytest.mark.parametrize("path", PATHS[:4])
def test_the_oldest_make_room_where_there_are_too_many(serve: Serve, path: bytes) -> None:  # noqa: F811
    """Not the new ones: those are whole requests too, which have just begun to arrive."""
    server = serve(max_half_sent=3)
    with silent_calls(server, path, 4) as (oldest, *others):
        error = CallError.of(lambda: list(oldest))
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_OPEN_CALLS")
        assert error.detail(error_details_pb2.RetryInfo)
        assert all(call.is_active() for call in others)
        for _ in range(5):
            assert server.get_user("johndoe")
            assert check(server.channel) == SERVING


@pytest.mark.timing
def test_the_drain_does_not_wait_for_them(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--drain-grace", "3600", "--request-timeout", "3600") as server:
        with ExitStack() as clients:
            for path in PATHS:
                clients.enter_context(OpenStreams(server.address, path, 50))
            server.signal(signal.SIGTERM)
            assert server.wait(promise(5)) == 0  # though these clients don't acknowledge the end of their connections
    assert "Traceback" not in server.stderr


@contextmanager
def silent_calls(server: ScriptedServer, path: bytes, count: int) -> Iterator[list[Any]]:
    """Begins calls, each once the headers of the one before are here, and sends none of their requests."""
    end = threading.Event()
    half_sent = server.server._half_sent
    multicallable = bare_stream(server.channel, path.decode())
    calls: list[Any] = []
    for number in range(count):
        eventually(lambda expected=number: len(half_sent) == expected, "the headers are here")  # type: ignore[misc]
        calls.append(multicallable(held_open(end), timeout=WAIT, metadata=(("x-request-id", "silent"),)))
    try:
        yield calls
    finally:
        end.set()
