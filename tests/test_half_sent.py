"""Requests of which only a part arrives: they hold no thread, and no other call waits for them."""

import signal

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.slow_reader import OpenStreams
from tests.support import CallError, GetUser, ServerProcess
from tests.test_health import REFLECTION, SERVING, check, reflect

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
def test_everything_else_is_answered(address: str, path: bytes, sent: bytes) -> None:
    with OpenStreams(address, path, 50, sent), grpc.insecure_channel(address) as channel:
        for _ in range(3):
            assert GetUser(channel)("johndoe").username == "johndoe"
            assert check(channel) == SERVING
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
            assert next(watch).status == SERVING
            watch.cancel()
            assert reflect(channel, REFLECTION[0], list_services="").list_services_response.service


@pytest.mark.parametrize("path", PATHS[:4])
def test_a_call_without_a_request_is_told_so(address: str, path: bytes) -> None:
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(path.decode())
        assert CallError.of(lambda: list(call(iter([]), timeout=10))).code is grpc.StatusCode.UNIMPLEMENTED


def test_they_are_part_of_the_drain_and_end_with_its_grace(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--drain-grace", "0.5") as server:
        with OpenStreams(server.address, PATHS[0], 50), OpenStreams(server.address, PATHS[2], 50):
            server.signal(signal.SIGTERM)
            assert server.wait() == 0
    assert "Traceback" not in server.stderr
