"""Spans by OpenTelemetry's API, as its semantic conventions for gRPC clients say.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/, version 1.45. No attribute has anything of a request, a response
or an error's text.
"""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from types import TracebackType
from typing import Any

import grpc
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from userprofile.errors import UserProfileError
from userprofile.spans import NO_SPAN, CallSpan
from userprofile.v1 import user_profile_service_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["UserProfileService"].full_name
_SCHEMA = "https://opentelemetry.io/schemas/1.45.0"

_HOST_PORT = re.compile(r"\[?(?P<host>[^\[\]/,]+?)\]?:(?P<port>[0-9]+)")

_w3c = TraceContextTextMapPropagator()  # not the application's propagators: its baggage is not for the server


def begin_span(method: str, target: str, trace_context: dict[str, str]) -> CallSpan:
    """Begins the span of a call of the service's `method` to the client's `target`.

    `trace_context` is that of the call that the caller serves, or empty. It is the parent unless a span is current, and
    becomes the trace context to send.
    """
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):  # the application has set none
        return NO_SPAN
    parent = get_current()
    if not trace.get_current_span(parent).get_span_context().is_valid:
        parent = _w3c.extract(trace_context, parent)
    name = f"{_SERVICE}/{method}"
    attributes = {"rpc.system.name": "grpc", "rpc.method": name, **_server(target)}
    span = _tracer(provider).start_span(name, parent, trace.SpanKind.CLIENT, attributes)
    context = trace.set_span_in_context(span, parent)
    if span.get_span_context().is_valid:  # otherwise what was received is passed on
        trace_context.clear()
        _w3c.inject(trace_context, context)
    return _OtelSpan(span, context) if span.is_recording() else NO_SPAN


class _OtelSpan(CallSpan):
    def __init__(self, span: trace.Span, context: Context) -> None:
        self._span = span
        self._context = context

    def __enter__(self) -> None:
        self._before = attach(self._context)

    @contextmanager
    def current(self) -> Iterator[None]:
        before = attach(self._context)
        try:
            yield
        finally:
            detach(before)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not GeneratorExit:  # a coroutine that was dropped ends in another context than its own
            detach(self._before)
        if kind is None:
            self._end(grpc.StatusCode.OK)
        elif isinstance(error, UserProfileError):
            self._end(error.code)
        else:
            self._fail(kind.__qualname__)

    def follow(self, future: Any) -> None:
        def done(call: Any) -> None:
            if (code := call.code()) in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
                self._end(code)  # other failures may be retried

        future.add_done_callback(done)

    def _end(self, code: grpc.StatusCode) -> None:
        if self._span.is_recording():  # not ended yet
            self._span.set_attribute("rpc.status_code", code.name)
            if code is grpc.StatusCode.OK:
                self._span.end()
            else:
                self._fail(code.name)

    def _fail(self, kind: str) -> None:
        if self._span.is_recording():
            self._span.set_attribute("error.type", kind)
            self._span.set_status(trace.StatusCode.ERROR)
            self._span.end()


@functools.lru_cache(1)
def _tracer(provider: trace.TracerProvider) -> trace.Tracer:
    return provider.get_tracer("userprofile", metadata.version("userprofile"), schema_url=_SCHEMA)


@functools.lru_cache(100)
def _server(target: str) -> dict[str, str | int]:
    """Returns the attributes for the server: host and port if the target has one of each, otherwise the target."""
    scheme, _, rest = target.partition(":")
    if scheme == "unix":
        return {"server.address": rest.removeprefix("//")}
    if scheme == "dns":
        rest = rest.rpartition("/")[2]
    found = _HOST_PORT.fullmatch(rest if scheme in ("dns", "ipv4", "ipv6") else target)
    return {"server.address": found["host"], "server.port": int(found["port"])} if found else {"server.address": target}
