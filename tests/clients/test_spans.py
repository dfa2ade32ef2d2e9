"""Spans of the clients' calls, for applications that trace with OpenTelemetry."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import userprofile
from tests.canary import raises
from tests.clients import test_client
from tests.clients.twins import MakeClient
from tests.otlp_receiver import receiving
from tests.support import ServerProcess, documents_in
from tests.test_trace_context import PARENT, TRACE, VALID
from userprofile.otel_spans import _server
from userprofile.testing import FakeUserProfileServer

GET_USER, BATCH_GET_USERS = (f"userprofile.v1.UserProfileService/{name}" for name in ("GetUser", "BatchGetUsers"))

Serving = test_client.TestContext.Serving


class Traces(InMemorySpanExporter):
    """The application's tracer provider, and the spans that have ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, provider: TracerProvider | None = None) -> None:
        super().__init__()
        self.provider = provider or TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self))
        monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", self.provider)

    @property
    def spans(self) -> list[tuple[str, dict[str, Any]]]:
        return [(span.name, dict(span.attributes or {})) for span in self.get_finished_spans()]

    def only(self) -> ReadableSpan:
        (span,) = self.get_finished_spans()
        return span


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Traces:
    return Traces(monkeypatch)


@pytest.fixture
def client(make_client: MakeClient, fake_userprofile: FakeUserProfileServer) -> Any:
    fake_userprofile.add(userprofile.User("johndoe"))
    return make_client(fake_userprofile.target)


def context_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def test_a_call_has_a_span_that_the_server_continues(
    client: Any, fake_userprofile: FakeUserProfileServer, traces: Traces
) -> None:
    client.get_user("johndoe")
    span = traces.only()
    host, _, port = fake_userprofile.target.rpartition(":")
    assert (span.name, span.kind, span.parent) == (GET_USER, trace.SpanKind.CLIENT, None)
    assert span.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": GET_USER,
        "rpc.status_code": "OK",
        "server.address": host,
        "server.port": int(port),
    }
    assert span.status.status_code is trace.StatusCode.UNSET
    (request,) = fake_userprofile.requests
    assert request.metadata["traceparent"] == context_of(span)
    assert "tracestate" not in request.metadata


def test_the_current_span_is_the_parent_and_its_baggage_stays(
    client: Any, fake_userprofile: FakeUserProfileServer, traces: Traces
) -> None:
    with traces.provider.get_tracer("application").start_as_current_span("work") as work:
        client.get_user("johndoe", context=Serving(None, ("traceparent", VALID), ("tracestate", "a=b")))
    call = traces.get_finished_spans()[0]
    assert call.parent == work.get_span_context()
    (request,) = fake_userprofile.requests
    assert request.metadata["traceparent"] == context_of(call)
    assert not {"tracestate", "baggage"} & set(request.metadata)


def test_without_one_the_call_that_is_served_is_the_parent(
    client: Any, fake_userprofile: FakeUserProfileServer, traces: Traces
) -> None:
    client.get_user("johndoe", context=Serving(None, ("traceparent", VALID), ("tracestate", "a=b")))
    span = traces.only()
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    (request,) = fake_userprofile.requests
    assert (request.metadata["traceparent"], request.metadata["tracestate"]) == (context_of(span), "a=b")


def test_a_traceparent_given_for_the_call_is_sent(
    client: Any, fake_userprofile: FakeUserProfileServer, traces: Traces
) -> None:
    client.get_user("johndoe", metadata=[("traceparent", VALID)])
    (request,) = fake_userprofile.requests
    assert request.metadata["traceparent"] == VALID


def test_a_failed_call_says_how_it_failed_and_nothing_else(
    client: Any, fake_userprofile: FakeUserProfileServer, traces: Traces
) -> None:
    with raises(userprofile.UserNotFoundError):
        client.get_user("nobody")
    with raises(userprofile.InvalidUsernameError):
        client.get_user("\ud800")
    fake_userprofile.fail("STORE_TIMEOUT")
    with raises(userprofile.ServiceUnavailableError):
        client.get_user("johndoe")
    codes = [attributes["rpc.status_code"] for _, attributes in traces.spans]
    assert codes == ["NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE"]
    assert [attributes["error.type"] for _, attributes in traces.spans] == codes
    for span in traces.get_finished_spans():
        assert span.status.status_code is trace.StatusCode.ERROR
        assert not span.events
        assert "nobody" not in span.to_json()


def test_each_call_of_a_batch_has_its_own(client: Any, fake_userprofile: FakeUserProfileServer, traces: Traces) -> None:
    client.get_users(f"user{number}" for number in range(150))
    assert len(list(client.iter_users(["\ud800", "\udfff"]))) == 2  # neither can be asked for
    assert [name for name, _ in traces.spans] == [BATCH_GET_USERS] * 2
    assert {request.metadata["traceparent"] for request in fake_userprofile.requests} == {
        context_of(span) for span in traces.get_finished_spans()
    }


def test_retries_are_within_the_span_of_the_call(
    make_client: MakeClient, fake_userprofile: FakeUserProfileServer, traces: Traces
) -> None:
    fake_userprofile.fail("STORE_UNAVAILABLE")
    with raises(userprofile.ServiceUnavailableError):
        make_client(fake_userprofile.target, retries=2).get_user("johndoe")
    assert len(fake_userprofile.requests) == 3
    assert len({request.metadata["traceparent"] for request in fake_userprofile.requests}) == 1
    assert traces.only().name == GET_USER


def test_interceptors_are_within_the_span_of_the_call(
    make_client: MakeClient, fake_userprofile: FakeUserProfileServer, traces: Traces
) -> None:
    current: list[trace.SpanContext] = []

    class Interceptor(grpc.UnaryUnaryClientInterceptor):
        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            current.append(trace.get_current_span().get_span_context())
            return continuation(client_call_details, request)

    class AsyncInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            current.append(trace.get_current_span().get_span_context())
            return await continuation(client_call_details, request)

    kind = Interceptor if isinstance(make_client(), userprofile.UserProfileClient) else AsyncInterceptor
    client = make_client(fake_userprofile.target, interceptors=[kind()])
    with traces.provider.get_tracer("application").start_as_current_span("work") as work:
        client.find_user("johndoe")
        client.get_users(f"user{number}" for number in range(101))
        assert trace.get_current_span() is work
    ended = [span.get_span_context() for span in traces.get_finished_spans()]
    assert sorted(current, key=ended.index) == ended[:3]


def test_of_a_call_that_is_dropped_with_its_event_loop_ends_quietly(
    fake_userprofile: FakeUserProfileServer, traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    fake_userprofile.delay = 30
    client = userprofile.AsyncUserProfileClient(fake_userprofile.target)
    loop = asyncio.new_event_loop()
    call = loop.create_task(client.get_user("johndoe"))
    while not fake_userprofile.requests:
        loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    call.get_coro().close()
    call._log_destroy_pending = False  # type: ignore[attr-defined]
    assert traces.only().attributes["error.type"] == "GeneratorExit"  # type: ignore[index]
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []
    asyncio.run(client.close())


def test_a_call_that_is_not_sampled_has_none_and_says_so_to_the_server(
    client: Any, fake_userprofile: FakeUserProfileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = Traces(monkeypatch, TracerProvider(sampler=ALWAYS_OFF))
    client.get_user("johndoe")
    assert traces.spans == []
    (request,) = fake_userprofile.requests
    assert int(str(request.metadata["traceparent"])[-2:], 16) & trace.TraceFlags.SAMPLED == 0


def test_without_a_tracer_provider_there_is_none(client: Any, fake_userprofile: FakeUserProfileServer) -> None:
    client.get_user("johndoe")
    (request,) = fake_userprofile.requests
    assert "traceparent" not in request.metadata


def test_a_client_imports_nothing_of_it_by_itself() -> None:
    program = """import sys, userprofile
client = userprofile.UserProfileClient("127.0.0.1:1", retries=0, wait_for_ready=False)
try: client.get_user("johndoe")
except userprofile.ServiceUnavailableError: pass
print([name for name in sys.modules if "opentelemetry" in name])"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def serving(store_url: str) -> Iterator[tuple[Any, str]]:
    documents_in(store_url, {"johndoe": {}})
    with receiving() as receiver:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20"}
        with ServerProcess(store_url, **variables) as server:
            yield receiver, server.address


def test_client_server_and_store_make_one_trace(
    make_client: MakeClient, serving: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, address = serving
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{receiver.endpoint}/v1/traces")))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    make_client(address).get_user("johndoe")
    client, server, store = receiver.wait_for(3)
    assert len({span.trace_id for span in (client, server, store)}) == 1
    assert (client.parent, server.parent, store.parent) == ("", client.span_id, server.span_id)
    assert (client.kind, server.kind, store.kind) == ("CLIENT", "SERVER", "CLIENT")


@pytest.mark.parametrize(
    ("target", "address", "port"),
    [
        ("host:50051", "host", 50051),
        ("[::1]:50051", "::1", 50051),
        ("dns:///host:1", "host", 1),
        ("dns://192.0.2.1:53/host:1", "host", 1),
        ("dns:host:1", "host", 1),
        ("ipv4:192.0.2.1:1", "192.0.2.1", 1),
        ("ipv4:192.0.2.1:1,192.0.2.2:1", "ipv4:192.0.2.1:1,192.0.2.2:1", None),
        ("unix:///run/socket", "/run/socket", None),
        ("unix:run/socket", "run/socket", None),
        ("host", "host", None),
        ("xds:///service", "xds:///service", None),
    ],
)
def test_the_server_is_named_as_the_target_names_it(target: str, address: str, port: int | None) -> None:
    assert _server(target) == {"server.address": address, **({} if port is None else {"server.port": port})}
