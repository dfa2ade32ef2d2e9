"""The first stage: gives every call a request id, the caller's own or a new one, and finds the trace it belongs to."""

import itertools
import re
import secrets

import grpc

from userprofile_server.rpc.stages import Handler, Method, add_trailing_metadata
from userprofile_server.telemetry import call, trace_context

METADATA_KEY = "x-request-id"

# The caller's id goes into our log lines and back over the wire, so only short visible ASCII is accepted.
_ACCEPTED = re.compile(r"[!-~]{1,128}")

# Unique to this process; a counter follows it, which costs a call less than a random number.
_PROCESS = secrets.token_hex(8)
_numbers = itertools.count(1)


def with_request_id(_method: Method, handle: Handler) -> Handler:
    """Takes the id from the call's metadata or makes one, and returns it in the trailing metadata."""

    def handle_with_request_id(request: object, context: grpc.ServicerContext) -> object:
        request_id, traceparent = _received(context)
        request_id = request_id or f"{_PROCESS}{next(_numbers):016x}"
        call.current.set(call.Call(request_id, traceparent))
        add_trailing_metadata(context, (METADATA_KEY, request_id))
        return handle(request, context)

    return handle_with_request_id


def _received(context: grpc.ServicerContext) -> tuple[str | None, str | None]:
    """Returns the caller's request id and traceparent, each None if there is none or it isn't valid.

    The first request id counts, and the last trace: gRPC drops the others.
    """
    request_id = traceparent = None
    for key, value in context.invocation_metadata():
        if key == METADATA_KEY and request_id is None:
            request_id = value
        elif key == trace_context.METADATA_KEY:
            traceparent = value
    if not (isinstance(request_id, str) and _ACCEPTED.fullmatch(request_id)):
        request_id = None
    if not (isinstance(traceparent, str) and trace_context.is_valid(traceparent)):
        traceparent = None
    return request_id, traceparent
