"""The call that is being served: what lines of the log and traces say of it."""

from contextvars import ContextVar


class Call:
    """Filled in by the stages that the call passes (`rpc/stages`)."""

    __slots__ = ("principal", "reason", "request_id", "trace_id")

    def __init__(self, request_id: str, trace_id: str | None = None) -> None:
        """`request_id` and `trace_id`, if there is one, are in each line of the log; the first also in the response."""
        self.request_id = request_id
        self.trace_id = trace_id
        self.principal: str | None = None
        """The caller, once authorization has identified it."""
        self.reason: str | None = None
        """Why the call failed (`ErrorReason`); None if it hasn't failed."""


current: ContextVar[Call] = ContextVar("call", default=Call("-"))  # noqa: B039, nobody changes the default
"""The call of the current context. grpc runs every call in a context of its own."""
