"""Spans of the server, received by a small receiver of the real protocol."""

import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.canary import guard
from tests.otlp_receiver import Receiver, receiving
from tests.supervised import Supervised
from tests.support import WAIT, GetUser, ServerProcess, documents_in, eventually, health_stub
from tests.test_operations import texts_of_the_server
from tests.test_quoted_log_lines import TRACING, is_in, quotes
from tests.test_trace_context import PARENT, TRACE, VALID
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc
from userprofile_server.telemetry.tracing_setup import _session, is_wanted, tracing_from_environment

METHOD = "userprofile.v1.UserProfileService/GetUser"
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "20"}
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
MIB = 1024 * 1024


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@contextmanager
def serving(url: str, *args: str, **env: str) -> Iterator[tuple[ServerProcess, grpc.Channel]]:
    with ServerProcess(url, *args, **SOON, **env) as server, grpc.insecure_channel(server.address) as channel:
        yield server, channel


def stopped(server: ServerProcess) -> str:
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    return server.stderr


def test_a_call_has_a_span_and_a_child_for_the_store(user_store_url: str, receiver: Receiver) -> None:
    trace = [("traceparent", VALID), ("tracestate", "vendor=1"), ("x-request-id", "mine")]
    with serving(user_store_url, "--log-calls", "1", **{ENDPOINT: receiver.endpoint}) as (server, channel):
        GetUser(channel)("johndoe", metadata=trace)
        call, store = receiver.wait_for(2)
        log = stopped(server)
    assert (call.name, call.kind, call.trace_id, call.parent) == (METHOD, "SERVER", TRACE, PARENT)
    assert call.trace_state == "vendor=1"
    assert call.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.status_code": "OK",
        "userprofile.request_id": "mine",
    }
    assert (store.name, store.kind, store.trace_id, store.parent) == ("get", "CLIENT", TRACE, call.span_id)
    assert store.attributes == {"db.system.name": "sqlite", "db.operation.name": "get"}
    assert call.begin <= store.begin <= store.end <= call.end
    assert call.resource["service.name"] == "userprofile"
    assert call.resource["process.pid"] == server.pid
    assert not call.failed
    assert not store.failed
    assert f"trace_id={TRACE}" in log
    assert not any(b"johndoe" in body for body in receiver.bodies)


def test_without_a_parent_a_span_begins_a_trace_whose_id_is_in_the_log(user_store_url: str, receiver: Receiver) -> None:
    variables = {ENDPOINT: receiver.endpoint, "OTEL_SERVICE_NAME": "profiles"}
    with serving(user_store_url, "--log-calls", "1", **variables) as (server, channel):
        GetUser(channel)("johndoe")
        call, _ = receiver.wait_for(2)
        log = stopped(server)
    assert call.parent == ""
    assert f"trace_id={call.trace_id}" in log
    assert call.resource["service.name"] == "profiles"


def test_failures_are_those_of_the_server_and_have_no_text(user_store_url: str, receiver: Receiver) -> None:
    documents_in(user_store_url, {"broken": {"disabled": "yes"}})
    with serving(user_store_url, **{ENDPOINT: receiver.endpoint}) as (_, channel):
        GetUser(channel).error("nobody")
        GetUser(channel).error("broken")
        pb_grpc.UserProfileServiceStub(channel).BatchGetUsers(pb.BatchGetUsersRequest(usernames=["a", "b"]))
        health_stub(channel).Check(health_pb2.HealthCheckRequest(), timeout=WAIT)  # has none
        spans = receiver.wait_for(6)
    found = [
        (
            span.attributes["rpc.status_code"],
            span.attributes.get("userprofile.reason"),
            span.attributes.get("error.type"),
        )
        for span in spans
        if span.kind == "SERVER"
    ]
    assert found == [
        ("NOT_FOUND", "USER_NOT_FOUND", None),
        ("DATA_LOSS", "CORRUPT_DOCUMENT", "DATA_LOSS"),
        ("OK", None, None),
    ]
    assert [span.failed for span in spans if span.kind == "SERVER"] == [False, True, False]
    assert [span.name for span in spans if span.kind == "CLIENT"] == ["get", "get", "get_many"]
    assert not any(word in body for body in receiver.bodies for word in (b"nobody", b"broken", b"Input"))


def test_the_callers_decision_and_the_sampler_are_followed(user_store_url: str, receiver: Receiver) -> None:
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    with serving(user_store_url, **sampler, **{ENDPOINT: receiver.endpoint}) as (server, channel):
        GetUser(channel)("johndoe")
        GetUser(channel)("johndoe", metadata=[("traceparent", VALID[:-1] + "0")])
        GetUser(channel)("johndoe", metadata=[("traceparent", VALID.upper())])
        GetUser(channel)("johndoe", metadata=[("traceparent", VALID), ("tracestate", "secret-of-a-caller")])
        call, _ = receiver.wait_for(2)
        assert "secret-of-a-caller" not in stopped(server)
    assert (call.parent, call.trace_state) == (PARENT, "")


def test_the_last_spans_are_sent_when_the_server_ends(user_store_url: str, receiver: Receiver) -> None:
    variables = {ENDPOINT: receiver.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    with ServerProcess(user_store_url, **variables) as server, grpc.insecure_channel(server.address) as channel:
        GetUser(channel)("johndoe")
        stopped(server)
    receiver.wait_for(2)


@pytest.mark.parametrize("receiver_is", ["gone", "silent", "failing"])
def test_a_receiver_that_is_lost_holds_up_neither_calls_nor_the_end(
    user_store_url: str, receiver: Receiver, receiver_is: str
) -> None:
    endpoint = receiver.endpoint
    if receiver_is == "gone":
        with socket.create_server(("127.0.0.1", 0)) as free:
            endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    elif receiver_is == "silent":
        receiver.released.clear()
    else:
        receiver.status = 503
    variables = {ENDPOINT: endpoint, "OTEL_BSP_MAX_QUEUE_SIZE": "20", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10"}
    with serving(user_store_url, **variables) as (server, channel):
        for _ in range(100):
            GetUser(channel)("johndoe")
        eventually(lambda: receiver_is == "gone" or receiver.requests, "it was tried")
        log = stopped(server)
    assert "the last spans are lost" in log or receiver_is != "silent", log
    assert len(log.splitlines()) < 20, log


def test_little_is_read_of_a_response_that_does_not_end() -> None:
    sent = 0

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal sent
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while sent < 256 * MIB:
                    sent += self.wfile.write(bytes(MIB))

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        session = _session({})
        assert session is not None
        with session:
            assert session.post(f"http://127.0.0.1:{server.server_port}", timeout=WAIT).ok
        thread.join()
    assert sent < 256 * MIB
    assert _session({"OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "ours"}) is None


def test_each_of_several_processes_sends_its_own(user_store_url: str, receiver: Receiver) -> None:
    with Supervised(user_store_url, **SOON, **{ENDPOINT: receiver.endpoint}) as server:
        server.in_log("ready: all 2 processes")

        def both() -> bool:
            with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                GetUser(channel)("johndoe")
            return len({span.resource["process.pid"] for span in receiver.spans}) == 2

        eventually(both, "spans of both")


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({ENDPOINT: "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "true", ENDPOINT: "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "false", ENDPOINT: "http://x"}, True),
    ],
)
def test_what_turns_spans_on(variables: dict[str, str], wanted: bool) -> None:
    assert is_wanted(variables) == wanted


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER is 'console', and has to be otlp"),
        ({ENDPOINT: "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "the protocol of OTLP is 'grpc'"),
        (
            {ENDPOINT: "http://x", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
            "ValueError: max_queue_size",
        ),
        ({ENDPOINT: "caller:A-TOKEN@host:4318"}, f"{ENDPOINT} is no URL"),
        ({ENDPOINT: "http://[A-TOKEN"}, f"{ENDPOINT} is no URL"),
        ({ENDPOINT: "http:///?key=A-TOKEN"}, f"{ENDPOINT} is no URL"),
        (
            {ENDPOINT: "http://x", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%0AA-TOKEN"},
            "OTEL_EXPORTER_OTLP_HEADERS has a character",
        ),
    ],
)
def test_what_cannot_be_is_an_error_in_the_log_and_no_reason_not_to_serve(
    variables: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing_from_environment("sqlite") is None
    assert f"no spans are sent: {problem}" in caplog.text
    assert "A-TOKEN" not in caplog.text


def test_without_the_extra_the_log_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://x")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert tracing_from_environment("sqlite") is None
    assert "pip install 'userprofile[otel]'" in caplog.text


def test_headers_for_the_receiver_which_may_be_tokens_stay_out_of_the_log(
    user_store_url: str, receiver: Receiver
) -> None:
    token = guard("a-token-for-the-receiver")
    receiver.status = 401
    for headers in (f"authorization=Bearer {token}", f"authorization: Bearer {token}"):
        with serving(user_store_url, OTEL_EXPORTER_OTLP_HEADERS=headers, **{ENDPOINT: receiver.endpoint}) as (
            server,
            channel,
        ):
            GetUser(channel)("johndoe")
            eventually(lambda server=server: "401" in server.stderr, "refused")  # type: ignore[misc]
            assert token not in stopped(server)


def test_the_query_of_the_receivers_url_which_may_be_a_token_stays_out_of_the_log(user_store_url: str) -> None:
    token = guard("a-token-in-the-url")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://user:{token}@127.0.0.1:{unused.getsockname()[1]}/v1/traces?key={token}"
        with serving(user_store_url, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=endpoint) as (server, channel):
            GetUser(channel)("johndoe")
            eventually(lambda: "Connection refused" in server.stderr, lambda: server.stderr)
            assert token not in stopped(server)


@pytest.mark.parametrize("quote", quotes(TRACING))
def test_the_server_writes_what_the_page_quotes(quote: str) -> None:
    assert any(is_in(text, [quote]) for text in texts_of_the_server() if len(text.split()) > 4), quote
