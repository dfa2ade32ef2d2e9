"""Health checks and reflection: what load balancers and grpcurl depend on."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any, Self

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.slow_reader import OpenStreams, SlowReader
from tests.support import WAIT, CallError, ScriptedStore, eventually, health_stub, reflection_stub
from tests.test_get_user import Serve, serve  # noqa: F401, a fixture
from userprofile_server.errors import StoreUnavailableError
from userprofile_server.rpc.reflection import _with_json_names

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ["", "userprofile.v1.UserProfileService"]


@pytest.fixture
def channel(shared_address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(shared_address) as channel:
        yield channel


def check(channel: grpc.Channel, service: str = "") -> int:
    stub = health_stub(channel)
    status: int = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT).status
    return status


@pytest.mark.parametrize("service", SERVICES)
def test_the_server_and_the_service_are_serving(channel: grpc.Channel, service: str) -> None:
    assert check(channel, service) == SERVING


def test_a_service_that_is_not_here_is_unknown(channel: grpc.Channel) -> None:
    assert CallError.of(lambda: check(channel, "nothing.v1.Here")).code is grpc.StatusCode.NOT_FOUND


def test_without_a_store_both_are_not_serving_until_there_is_one(serve: Serve) -> None:  # noqa: F811
    there = threading.Event()

    def open_store() -> ScriptedStore:
        if not there.is_set():
            raise StoreUnavailableError("down")
        return ScriptedStore(lambda _timeout: None)

    channel = serve(open_store=open_store).channel
    assert [check(channel, service) for service in SERVICES] == [NOT_SERVING, NOT_SERVING]
    watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
    assert next(watch).status == NOT_SERVING
    there.set()
    assert next(watch).status == SERVING
    watch.cancel()
    assert [check(channel, service) for service in SERVICES] == [SERVING, SERVING]


def test_one_connection_that_works_is_enough_to_be_serving(serve: Serve) -> None:  # noqa: F811
    stores = iter([ScriptedStore(lambda _timeout: None)])

    def open_store() -> ScriptedStore:
        for store in stores:
            return store
        raise StoreUnavailableError("no more connections")

    channel = serve(open_store=open_store, workers=3).channel
    eventually(lambda: check(channel) == SERVING, "serving by the one that works")


def test_responds_while_every_worker_is_busy(serve: Serve) -> None:  # noqa: F811
    release = threading.Event()
    busy = threading.Semaphore(0)

    def hold(_timeout: float) -> None:
        busy.release()
        release.wait(WAIT)

    server = serve(hold, workers=2)
    callers = [threading.Thread(target=server.get_user, args=("johndoe",)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for _ in callers:
        assert busy.acquire(timeout=WAIT)
    try:
        assert [check(server.channel, service) for service in SERVICES] == [SERVING, SERVING]
        watch = health_stub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
        assert next(watch).status == SERVING
        watch.cancel()
    finally:
        release.set()
        for caller in callers:
            caller.join()


def test_many_watches_hold_no_thread(channel: grpc.Channel) -> None:
    stub = health_stub(channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT) for _ in range(20)]
    assert [next(watch).status for watch in watches] == [SERVING] * 20
    assert check(channel) == SERVING
    for watch in watches:
        watch.cancel()


def declared(file: descriptor_pb2.FileDescriptorProto) -> list[str]:
    return [service.name for service in file.service] + [message.name for message in file.message_type]


REFLECTION = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"]


def reflect(channel: grpc.Channel, name: str, **question: Any) -> reflection_pb2.ServerReflectionResponse:
    call = channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (response,) = call(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=WAIT)
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
    names = [f"{file.package}.{name}" for file in files for name in declared(file)]
    assert symbol in names


@pytest.mark.parametrize("version", REFLECTION)
@pytest.mark.parametrize(
    "symbol",
    [
        "userprofile.v1.UserProfileService.GetUser",  # a method
        "userprofile.v1.GetUserRequest.username",  # a field
        "userprofile.v1.User._email",  # what makes a field optional
        "userprofile.v1.ErrorReason",  # an enum that no message has a field of
        "userprofile.v1.ErrorReason.ERROR_REASON_INTERNAL",
        "userprofile.v1.ERROR_REASON_INTERNAL",  # its value's full name
        "userprofile.v1.BatchGetUsersResponse.Result.outcome",  # a oneof
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
    "question",
    [
        *({"file_containing_symbol": name} for name in [*REFLECTION, *SERVICES[1:], "grpc.health.v1.Health"]),
        {"file_containing_symbol": "google.rpc.BadRequest"},  # nothing of ours imports it
        {"file_by_filename": "google/protobuf/descriptor.proto"},
    ],
    ids=str,
)
def test_reflection_has_the_json_name_of_every_field(
    channel: grpc.Channel, version: str, question: dict[str, Any]
) -> None:
    response = reflect(channel, version, **question)
    files = response.file_descriptor_response.file_descriptor_proto
    assert files
    for file in map(descriptor_pb2.FileDescriptorProto.FromString, files):
        assert served_json_names(file) == json_names(descriptor_pool.Default().FindFileByName(file.name))


def field(name: str, number: int, **more: Any) -> descriptor_pb2.FieldDescriptorProto:
    options: dict[str, Any] = {"type": "TYPE_STRING", "label": "LABEL_OPTIONAL", **more}
    return descriptor_pb2.FieldDescriptorProto(name=name, number=number, **options)


def test_json_names_are_given_wherever_a_file_has_fields() -> None:
    names = ["plain", "two_words", "a__b", "_leading", "trailing_", "x_1", "x1_y", "Upper_case", "aB_c"]
    inner = descriptor_pb2.DescriptorProto(
        name="Inner",
        field=[field(name, number) for number, name in enumerate(names, start=1)],
        extension=[field("in_a_message", 100, extendee=".tests.Outer")],
    )
    file = descriptor_pb2.FileDescriptorProto(
        name="tests.proto",
        package="tests",
        message_type=[
            descriptor_pb2.DescriptorProto(
                name="Outer",
                field=[field("of_the_outer", 1), field("has_one", 2, json_name="kept")],
                nested_type=[inner],
                extension_range=[descriptor_pb2.DescriptorProto.ExtensionRange(start=100, end=200)],
            )
        ],
        extension=[field("on_its_own", 101, extendee=".tests.Outer")],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    served = descriptor_pb2.FileDescriptorProto.FromString(_with_json_names(file.SerializeToString()))
    assert served_json_names(served) == json_names(pool.FindFileByName("tests.proto"))
    assert {"twoWords", "ofTheOuter", "kept", "inAMessage", "onItsOwn"} <= set(served_json_names(served).values())


def served_json_names(file: descriptor_pb2.FileDescriptorProto) -> dict[str, str]:
    """By the fields' full names, of those at every depth."""
    prefix = f"{file.package}."
    found = {prefix + extension.name: extension.json_name for extension in file.extension}
    messages = [(prefix + message.name, message) for message in file.message_type]
    for name, message in messages:
        found |= {f"{name}.{field.name}": field.json_name for field in [*message.field, *message.extension]}
        messages += [(f"{name}.{nested.name}", nested) for nested in message.nested_type]
    return found


def json_names(file: FileDescriptor) -> dict[str, str]:
    """The same, as protobuf's runtime has worked it out."""
    found = {extension.full_name: extension.json_name for extension in file.extensions_by_name.values()}
    messages = list(file.message_types_by_name.values())
    for message in messages:
        found |= {field.full_name: field.json_name for field in [*message.fields, *message.extensions]}
        messages += message.nested_types
    return found


@pytest.mark.parametrize("version", REFLECTION)
@pytest.mark.parametrize(
    "symbol",
    ["", ".", "..", "userprofile.v1", "userprofile.v1.UserProfileService.Get", "userprofile.v1.User.x", "x\0y"],
)
def test_reflection_says_what_it_does_not_find(channel: grpc.Channel, version: str, symbol: str) -> None:
    response = reflect(channel, version, file_containing_symbol=symbol)
    assert response.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_reflection_responds_beside_a_thousand_open_streams_with_one_thread(shared_address: str) -> None:
    """Over HTTP/2 by hand: each stream of grpc's own client holds a thread of these tests."""
    path = f"/{REFLECTION[0]}/ServerReflectionInfo".encode()
    with OpenStreams(shared_address, path, 1000), grpc.insecure_channel(shared_address) as channel:
        for version in REFLECTION:
            assert reflect(channel, version, list_services="").list_services_response.service
        assert check(channel) == SERVING
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("reflection")]) == 1


def test_watches_that_are_not_read_do_not_block_others(serve: Serve) -> None:  # noqa: F811
    server = serve()
    with ExitStack() as readers:
        for _ in range(8):
            readers.enter_context(SlowReader(server.address))
        watch = health_stub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
        assert next(watch).status == SERVING
        watch.cancel()


def test_one_watch_too_many_is_refused_and_the_others_go_on(serve: Serve) -> None:  # noqa: F811
    server = serve(max_watches=2)
    stub = health_stub(server.channel)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT) for _ in range(2)]
    assert [next(watch).status for watch in watches] == [SERVING, SERVING]
    error = CallError.of(lambda: next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)))
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_OPEN_CALLS")
    assert check(server.channel) == SERVING
    server.server._health.set_serving(False)
    assert [next(watch).status for watch in watches] == [NOT_SERVING, NOT_SERVING]
    watches[0].cancel()
    eventually(lambda: len(server.server._health._watches) == 1, "the watch has ended")
    assert next(stub.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)).status == NOT_SERVING


class Conversation:
    """A reflection stream that stays open."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._call = reflection_stub(channel).ServerReflectionInfo(iter(self._requests.get, None), timeout=WAIT)

    def list_services(self) -> bool:
        self._requests.put(reflection_pb2.ServerReflectionRequest(list_services=""))
        return bool(next(self._call).list_services_response.service)

    def error(self) -> CallError:
        return CallError.of(lambda: next(self._call))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)


def test_one_reflection_stream_too_many_ends_the_one_that_is_idle_for_longest(serve: Serve) -> None:  # noqa: F811
    server = serve(max_reflection_streams=2)
    with Conversation(server.channel) as one, Conversation(server.channel) as two:
        assert one.list_services()
        assert two.list_services()
        assert one.list_services()
        with Conversation(server.channel) as three:
            assert three.list_services()
            error = two.error()
            assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_OPEN_CALLS")
            assert one.list_services()
            assert three.list_services()


@pytest.mark.parametrize("requests", [0, 1])
def test_a_reflection_stream_that_is_idle_for_too_long_ends(serve: Serve, requests: int) -> None:  # noqa: F811
    server = serve()
    with Conversation(server.channel) as conversation:
        assert all(conversation.list_services() for _ in range(requests))
        server.server._reflection._idle.seconds = 0.2
        error = conversation.error()
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "REQUEST_INCOMPLETE")
    assert not server.server._reflection._idle
