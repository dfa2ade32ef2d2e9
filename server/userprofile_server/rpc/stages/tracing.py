"""The stage that makes the span of a call (https://opentelemetry.io/docs/specs/semconv/rpc/grpc/)."""

import time
from collections.abc import Callable

import grpc

from userprofile_server.rpc import health
from userprofile_server.rpc.stages import Handler, Method, Stage, status_of
from userprofile_server.telemetry import call
from userprofile_server.telemetry.tracing import Tracing

_TRACESTATE = "tracestate"

_SERVER_FAILURES = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""The statuses that are errors of a server's span; the others are about the request or its caller."""


def tracing(spans: Tracing, queued_at: Callable[[], float | None]) -> Stage:
    """Returns the stage. `queued_at` returns when the calling thread's call was queued, by the monotonic clock.

    Health checks and streams, which are reflection's, have no spans.
    """

    def with_span(method: Method, handle: Handler) -> Handler:
        if method.containing_service is health.SERVICE or method.server_streaming:
            return handle
        name = f"{method.containing_service.full_name}/{method.name}"
        known = {"rpc.system.name": "grpc", "rpc.method": name}

        def handle_in_span(request: object, context: grpc.ServicerContext) -> object:
            current = call.current.get()
            tracestate = () if current.traceparent is None else _tracestate(context)
            queued_since = queued_at()
            waited = 0.0 if queued_since is None else time.monotonic() - queued_since
            span = spans.begin(name, known, current, tracestate, waited=waited)
            if span is None:
                return handle(request, context)
            try:
                return handle(request, context)
            finally:
                code = status_of(context)
                attributes = {"rpc.status_code": code.name, "userprofile.request_id": current.request_id}
                if current.reason is not None:
                    attributes["userprofile.reason"] = current.reason
                spans.end(span, attributes, code.name if code in _SERVER_FAILURES else None)

        return handle_in_span

    return with_span


def _tracestate(context: grpc.ServicerContext) -> list[str]:
    return [str(value) for key, value in context.invocation_metadata() if key == _TRACESTATE]
