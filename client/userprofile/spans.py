"""Spans of calls, without OpenTelemetry: what a call has if the application doesn't trace; see `otel_spans.py`."""

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

_UNCHANGED = nullcontext()


class CallSpan:
    """The span of one call, retries included: a context manager around it. This one is for calls without a span."""

    def __enter__(self) -> None:
        """Does nothing: the span has begun."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Ends the span, with the outcome of the call."""

    def current(self) -> AbstractContextManager[None]:
        """Makes it the current span within a block, for spans of interceptors. Entering the call's span does, too."""
        return _UNCHANGED

    def follow(self, future: Any) -> None:
        """Ends the span as soon as this call succeeds or is cancelled, before anybody asks for its response."""


NO_SPAN = CallSpan()
