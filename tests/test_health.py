"""Health checks and reflection: what load balancers and grpcurl depend on."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from tests.slow_reader import OpenStreams, SlowReader
from tests.support import CallError
from tests.test_get_user import Serve, serve  # noqa: F401, a fixture

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ["", "userprofile.v1.UserProfileService"]


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as channel:
        yield channel


def check(channel: grpc.Channel, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


@pytest.mark.parametrize("service", SERVICES)
def test_the_server_and_the_service_are_serving(channel: grpc.Channel, service: str) -> None:
    assert check(channel, service) == SERVING


def test_a_service_that_is_not_here_is_unknown(channel: grpc.Channel) -> None:
    assert CallError.of(lambda: check(channel, "nothing.v1.Here")).code is grpc.StatusCode.NOT_FOUND


def test_answers_while_every_worker_is_busy(serve: Serve) -> None:  # noqa: F811
    release = threading.Event()
    busy = threading.Semaphore(0)

    def hold(_timeout: float) -> None:
        busy.release()
        release.wait(20)

    server = serve(hold, workers=2)
    callers = [threading.Thread(target=server.get_user, args=("johndoe",)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for _ in callers:
        assert busy.acquire(timeout=10)
    try:
        assert [check(server.channel, service) for service in SERVICES] == [SERVING, SERVING]
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(watch).status == SERVING
        watch.cancel()
    finally:
        release.set()
        for caller in callers:
            caller.join()


def test_many_watches_hold_no_thread(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=20) for _ in range(20)]
    assert [next(watch).status for watch in watches] == [SERVING] * 20
    assert check(channel) == SERVING
    for watch in watches:
        watch.cancel()


REFLECTION = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


def reflect(channel: grpc.Channel, name: str, **question: str) -> reflection_pb2.ServerReflectionResponse:
    call = channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (response,) = call(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=10)
    return response


@pytest.mark.parametrize("version", REFLECTION)
def test_reflection_lists_every_service_in_both_versions(channel: grpc.Channel, version: str) -> None:
    listed = reflect(channel, version, list_services="").list_services_response.service
    assert [service.name for service in listed] == [
        "grpc.health.v1.Health",
        *REFLECTION,
        "userprofile.v1.UserProfileService",
    ]


@pytest.mark.parametrize("version", REFLECTION)
@pytest.mark.parametrize(
    "symbol", [*REFLECTION, "userprofile.v1.UserProfileService", "grpc.health.v1.Health", "google.rpc.ErrorInfo"]
)
def test_reflection_describes_every_service_and_the_error_details(
    channel: grpc.Channel, version: str, symbol: str
) -> None:
    response = reflect(channel, version, file_containing_symbol=symbol)
    files = map(descriptor_pb2.FileDescriptorProto.FromString, response.file_descriptor_response.file_descriptor_proto)
    assert symbol in [f"{file.package}.{kind.name}" for file in files for kind in [*file.service, *file.message_type]]


@pytest.mark.parametrize("version", REFLECTION)
@pytest.mark.parametrize(
    "symbol",
    [
        "userprofile.v1.UserProfileService.GetUser",  # a method
        "userprofile.v1.GetUserRequest.username",  # a field
        "userprofile.v1.User._email",  # what makes a field optional
        "userprofile.v1.UserResult.outcome",  # a oneof
        "google.rpc.BadRequest.FieldViolation",  # a nested message
        "google.rpc.BadRequest.FieldViolation.description",
        "google.rpc.ErrorInfo.MetadataEntry.key",
        "grpc.health.v1.HealthCheckResponse.ServingStatus",  # a nested enum
        "grpc.health.v1.HealthCheckResponse.SERVING",  # a value of it
        "grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING",
        "grpc.health.v1.Health.Watch",
        f"{REFLECTION[0]}.ServerReflectionInfo",
    ],
)
def test_reflection_finds_whatever_has_a_name(channel: grpc.Channel, version: str, symbol: str) -> None:
    response = reflect(channel, version, file_containing_symbol=symbol)
    files = map(descriptor_pb2.FileDescriptorProto.FromString, response.file_descriptor_response.file_descriptor_proto)
    assert any(symbol.startswith(f"{file.package}.") for file in files)


@pytest.mark.parametrize("version", REFLECTION)
@pytest.mark.parametrize(
    "symbol",
    ["", ".", "..", "userprofile.v1", "userprofile.v1.UserProfileService.Get", "userprofile.v1.User.x", "x\0y"],
)
def test_reflection_says_what_it_does_not_find(channel: grpc.Channel, version: str, symbol: str) -> None:
    response = reflect(channel, version, file_containing_symbol=symbol)
    assert response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_reflection_answers_beside_a_thousand_open_streams_with_one_thread(address: str) -> None:
    """Over HTTP/2 by hand: each stream of grpc's own client holds a thread of these tests."""
    path = f"/{REFLECTION[0]}/ServerReflectionInfo".encode()
    with OpenStreams(address, path, 1000), grpc.insecure_channel(address) as channel:
        for version in REFLECTION:
            assert reflect(channel, version, list_services="").list_services_response.service
        assert check(channel) == SERVING
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("reflection")]) == 1


def test_watches_that_nobody_reads_keep_no_other_from_being_told(serve: Serve) -> None:  # noqa: F811
    server = serve()
    with ExitStack() as readers:
        for _ in range(8):
            readers.enter_context(SlowReader(server.address))
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        assert next(watch).status == SERVING
        watch.cancel()
