"""The way of a call through the stages: in order, for every method of every service."""

import ast
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import userprofile_server
from tests.support import WAIT, CallError, GetUser, bare_call, bare_stream, health_stub, reflection_stub
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile_server import server as server_module
from userprofile_server.errors import StoreTimeoutError
from userprofile_server.rpc import service
from userprofile_server.rpc.pipeline import Pipeline, build_stages
from userprofile_server.rpc.stages import Handler, Method, Stage, add_trailing_metadata
from userprofile_server.rpc.stages.decode import decode
from userprofile_server.rpc.stages.error_boundary import with_error_boundary
from userprofile_server.rpc.stages.request_id import with_request_id
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import ServerSettings, Settings
from userprofile_server.stores.settings import StoreSettings

MINE = (("x-request-id", "mine"),)
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECT = [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")]
NOT_A_MESSAGE = b"\x0a\x05ab"


def test_the_stages_of_a_call_stand_in_this_order() -> None:
    assert build_stages() == (with_request_id, with_error_boundary, decode)
    trace, observe, authorize = Recorder(), Recorder(), Recorder()
    stages = build_stages(authorize=authorize, telemetry=observe, tracing=trace)
    assert stages == (with_request_id, trace, observe, with_error_boundary, authorize, decode)


class Recorder:
    """A stage that notes what it is made for, and what passes it."""

    def __init__(self) -> None:
        self.methods: list[str] = []
        self.requests: list[object] = []

    def __call__(self, method: Method, handle: Handler) -> Handler:
        self.methods.append(method.full_name)

        def handle_recorded(request: object, context: grpc.ServicerContext) -> object:
            self.requests.append(request)
            return handle(request, context)

        return handle_recorded


def test_every_method_of_every_service_passes_the_stages_and_its_bytes_undecoded(
    monkeypatch: pytest.MonkeyPatch, user_store_url: str
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(server_module, "build_stages", lambda **stages: (recorder, *build_stages(**stages)))
    settings = Settings(store=StoreSettings(url=user_store_url), server=ServerSettings(listen="127.0.0.1:0"))
    with UserProfileServer(settings) as address, grpc.insecure_channel(address) as channel:
        assert sorted(recorder.methods) == [
            "grpc.health.v1.Health.Check",
            "grpc.health.v1.Health.Watch",
            "grpc.reflection.v1.ServerReflection.ServerReflectionInfo",
            "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo",
            "userprofile.v1.UserProfileService.BatchGetUsers",
            "userprofile.v1.UserProfileService.GetUser",
        ]
        assert recorder.requests == []
        assert GetUser(channel)("johndoe").full_name == "John Doe"
        assert recorder.requests == [pb.GetUserRequest(username="johndoe").SerializeToString()]
        watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest(service="y"), timeout=WAIT)
        next(watch)
        watch.cancel()
        assert recorder.requests[1:] == [health_pb2.HealthCheckRequest(service="y").SerializeToString()]
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (listed,) = reflection_stub(channel).ServerReflectionInfo(iter([request]), timeout=WAIT)
        assert listed.list_services_response.service
        assert len(recorder.requests) == 3


@contextmanager
def serving(*stages: Stage, get_user: Handler) -> Iterator[grpc.Channel]:
    """A server of one method, behind these stages."""

    class Servicer:
        GetUser = staticmethod(get_user)

    server = grpc.server(ThreadPoolExecutor(1))
    Pipeline(server, stages).add(service.SERVICE, Servicer())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(0).wait()


def test_what_stages_and_servicer_add_to_the_trailing_metadata_arrives_all() -> None:
    def with_mark(_method: Method, handle: Handler) -> Handler:
        def handle_marked(request: object, context: grpc.ServicerContext) -> object:
            add_trailing_metadata(context, ("mark", "of a stage"), ("another", "mark"))
            return handle(request, context)

        return handle_marked

    def get_user(request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        add_trailing_metadata(context, ("own", "of the servicer"))
        if request.username:
            raise StoreTimeoutError
        return pb.GetUserResponse()

    with serving(with_request_id, with_error_boundary, with_mark, decode, get_user=get_user) as channel:
        _, call = GetUser(channel).with_call("", metadata=MINE)
        added = {"x-request-id": "mine", "mark": "of a stage", "another": "mark", "own": "of the servicer"}
        assert dict(call.trailing_metadata()) == added
        error = GetUser(channel).error("johndoe", metadata=MINE)
        assert error.reason == "STORE_TIMEOUT"
        assert {name: error.metadata[name] for name in added} == added
        assert error.metadata["grpc-retry-pushback-ms"] == "-1"


def test_a_method_that_the_servicer_lacks_is_not_implemented() -> None:
    with serving(*build_stages(), get_user=lambda _request, _context: pb.GetUserResponse()) as channel:
        call = bare_call(channel, "/userprofile.v1.UserProfileService/BatchGetUsers")
        assert CallError.of(lambda: call(b"", timeout=WAIT)).code is grpc.StatusCode.UNIMPLEMENTED


def test_every_method_of_the_contract_is_served_by_a_method_of_our_own() -> None:
    assert {method.name for method in service.SERVICE.methods} <= vars(service.UserProfileService).keys()


def test_nothing_overwrites_what_others_have_added_to_the_trailing_metadata() -> None:
    files = Path(userprofile_server.__path__[0]).rglob("*.py")
    callers = [
        f"{path.parent.name}/{path.name}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("set_trailing_metadata", "abort_with_status")
    ]
    assert callers == ["stages/__init__.py"]


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as channel:
        yield channel


@pytest.mark.parametrize(
    "path", [CHECK, WATCH, *REFLECT, "/userprofile.v1.UserProfileService/GetUser"], ids=lambda path: path[1:]
)
def test_a_request_that_is_not_the_message_is_the_callers_mistake_wherever_it_is_sent(
    channel: grpc.Channel, path: str
) -> None:
    if path in (CHECK, WATCH, *REFLECT):
        stream = bare_stream(channel, path)(iter([NOT_A_MESSAGE]), timeout=WAIT, metadata=MINE)
        error = CallError.of(lambda: list(stream))
    else:
        error = CallError.of(lambda: bare_call(channel, path)(NOT_A_MESSAGE, timeout=WAIT, metadata=MINE))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
    assert (error.request_id, error.metadata["x-request-id"]) == ("mine", "mine")
    assert error.detail(error_details_pb2.ErrorInfo).domain == "userprofile"


def test_health_and_reflection_return_the_callers_request_id(channel: grpc.Channel) -> None:
    _, check = health_stub(channel).Check.with_call(health_pb2.HealthCheckRequest(), timeout=WAIT, metadata=MINE)
    assert dict(check.trailing_metadata()) == dict(MINE)
    error = CallError.of(
        lambda: health_stub(channel).Check(health_pb2.HealthCheckRequest(service="x"), timeout=WAIT, metadata=MINE)
    )
    assert (error.code, error.reason, error.metadata) == (grpc.StatusCode.NOT_FOUND, None, dict(MINE))
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    reflected = reflection_stub(channel).ServerReflectionInfo(iter([request]), timeout=WAIT, metadata=MINE)
    assert len(list(reflected)) == 1
    assert dict(reflected.trailing_metadata()) == dict(MINE)


def test_a_bug_in_health_or_reflection_is_internal_and_its_text_stays_here(
    channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("userprofile_server.rpc.health._Watch.__init__", fail)
    monkeypatch.setattr("grpc_reflection.v1alpha.reflection.ReflectionServicer.ServerReflectionInfo", fail)
    for path in (WATCH, *REFLECT):
        stream = bare_stream(channel, path)(iter([b""]), timeout=WAIT, metadata=MINE)
        error = CallError.of(lambda: list(stream))  # noqa: B023, called at once
        assert (error.code, error.reason, error.request_id) == (grpc.StatusCode.INTERNAL, "INTERNAL", "mine")
        assert "secret" not in str(vars(error))
    assert [record.levelname for record in caplog.records if record.getMessage() == "INTERNAL"] == ["ERROR"] * 3
