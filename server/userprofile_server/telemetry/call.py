"""The call that is being served: what lines of the log and traces say of it."""

from contextvars import ContextVar
from typing import Any


class Call:
    """Filled in by the stages that the call passes (`rpc/stages`)."""

    __slots__ = ("principal", "reason", "request_id", "span", "trace_id", "traceparent")

    def __init__(self, request_id: str, traceparent: str | None = None) -> None:
        """`request_id` is in each line of the log, and in the response. `traceparent` is the caller's, and valid."""
        self.request_id = request_id
        self.traceparent = traceparent
        self.trace_id = None if traceparent is None else traceparent[3:35]
        """The trace that the call is a part of; in each line of the log."""
        self.span: Any = None
        """The call's span, if there is one and it is sampled (`telemetry/tracing.py`)."""
        self.principal: str | None = None
        """The caller, once authorization has identified it."""
        self.reason: str | None = None
        """Why the call failed (`ErrorReason`); None if it hasn't failed."""


current: ContextVar[Call] = ContextVar("call", default=Call("-"))  # noqa: B039, nobody changes the default
"""The call of the current context. grpc runs every call in a context of its own."""
