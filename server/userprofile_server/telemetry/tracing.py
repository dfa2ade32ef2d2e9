"""Spans of calls and of the store's operations, by OpenTelemetry's SDK (`tracing_setup.py`).

Spans never hold up a call: they wait in a bounded queue, and a thread of the SDK sends them. No attribute has anything
of a request, a document or an error's text.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import metadata

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider

from userprofile_server.errors import StoreError
from userprofile_server.telemetry import call
from userprofile_server.telemetry.call import Call

_log = logging.getLogger(__name__)

_SCHEMA = "https://opentelemetry.io/schemas/1.45.0"
"""The semantic conventions that attributes follow; those of RPC are stable since then."""

_CLOSE_SECONDS = 1.0
"""Seconds that the end of the process waits for the last spans to be sent."""

_NO_PARENT = Context()


class Tracing:
    """Makes the spans of calls, and one for each operation of the store within. A `stores.reconnecting.StoreObserver`.

    Samplers decide at a span's start. Without a traceparent a span begins a new trace.
    """

    def __init__(self, provider: TracerProvider, store: str) -> None:
        """Makes spans by `provider`; `close` shuts it down."""
        self._provider = provider
        self._tracer = provider.get_tracer("userprofile_server", metadata.version("userprofile"), schema_url=_SCHEMA)
        self._store = store
        # It logs a tracestate that isn't valid, with its text, which is a caller's.
        logging.getLogger("opentelemetry.trace.span").setLevel(logging.CRITICAL)

    def begin(
        self, name: str, attributes: Mapping[str, str], call: Call, tracestate: Sequence[str], *, waited: float
    ) -> trace.Span | None:
        """Begins the span of `call`, which has `waited` for so many seconds; None if it isn't sampled."""
        span = self._tracer.start_span(
            name,
            self._parent(call.traceparent, tracestate),
            trace.SpanKind.SERVER,
            attributes,
            start_time=time.time_ns() - int(waited * 1e9),
        )
        if not span.is_recording():
            return None
        call.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        call.span = span
        return span

    def end(self, span: trace.Span, attributes: Mapping[str, str], error: str | None) -> None:
        """Ends a call's span. `error` is the kind of the server's failure, None for all that isn't its fault."""
        span.set_attributes(attributes)
        if error is not None:
            self._fail(span, error)
        span.end()

    def operation(self, name: str, seconds: float, error: StoreError | None) -> None:
        """Makes the span of an operation of the store that has just ended, within that of the current call."""
        parent: trace.Span | None = call.current.get().span
        if parent is None:
            return
        now = time.time_ns()
        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(parent, _NO_PARENT),
            trace.SpanKind.CLIENT,
            {"db.system.name": self._store, "db.operation.name": name},
            start_time=now - int(seconds * 1e9),
        )
        if error is not None:
            self._fail(span, type(error).__name__)
        span.end(now)

    def connected(self) -> None:
        """Does nothing."""

    def lost(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Sends the last spans, for at most a second: perhaps nobody takes them."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            _log.warning("the last spans are lost: they were not taken within %g s", _CLOSE_SECONDS)

    def _parent(self, traceparent: str | None, tracestate: Sequence[str]) -> Context:
        if traceparent is None:
            return _NO_PARENT
        context = trace.SpanContext(
            int(traceparent[3:35], 16),
            int(traceparent[36:52], 16),
            is_remote=True,
            trace_flags=trace.TraceFlags(int(traceparent[53:55], 16)),
            trace_state=trace.TraceState.from_header(list(tracestate)),
        )
        return trace.set_span_in_context(trace.NonRecordingSpan(context), _NO_PARENT)

    def _fail(self, span: trace.Span, kind: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(trace.StatusCode.ERROR)
