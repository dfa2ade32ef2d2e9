"""A receiver of spans, by the protocol's own messages (https://opentelemetry.io/docs/specs/otlp/)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ReceivedSpan

from tests.canary import look
from tests.support import eventually


class Span:
    """A span, with the attributes of its resource."""

    def __init__(self, received: ReceivedSpan, resource: dict[str, Any]) -> None:
        self.name = received.name
        self.kind = ReceivedSpan.SpanKind.Name(received.kind).removeprefix("SPAN_KIND_")
        self.trace_id, self.span_id = received.trace_id.hex(), received.span_id.hex()
        self.parent, self.trace_state = received.parent_span_id.hex(), received.trace_state
        self.failed = received.status.code == received.status.STATUS_CODE_ERROR
        self.attributes = attributes(received.attributes)
        self.resource = resource
        self.begin, self.end = received.start_time_unix_nano, received.end_time_unix_nano
        assert not received.events
        assert not received.status.message


def attributes(received: Any) -> dict[str, Any]:
    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")

    return {pair.key: value(pair) for pair in received}


class Receiver:
    """What was received. While `holds` is set, requests get no response."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.requests = 0
        self.status = 200
        self.released = threading.Event()
        self.released.set()
        self.endpoint = ""

    def wait_for(self, count: int) -> list[Span]:
        """Waits for so many spans, and returns them in the order in which they began."""
        eventually(lambda: len(self.spans) >= count, lambda: str([span.name for span in self.spans]))
        assert len(self.spans) == count
        return sorted(self.spans, key=lambda span: span.begin)

    def take(self, path: str, body: bytes) -> int:
        self.requests += 1
        look("spans", body)
        self.bodies.append(body)
        self.released.wait()
        if self.status == 200:
            assert path == "/v1/traces"
            for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = attributes(of_resource.resource.attributes)
                for scope in of_resource.scope_spans:
                    self.spans += (Span(span, resource) for span in scope.spans)
        return self.status


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.take(self.path, body))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
