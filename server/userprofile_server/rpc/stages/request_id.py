"""The first stage: gives every call a request id, the caller's own or a new one, and returns it."""

import itertools
import re
import secrets

import grpc

from userprofile_server.rpc.stages import Handler, Method, add_trailing_metadata
from userprofile_server.telemetry import call

METADATA_KEY = "x-request-id"

# The caller's id goes into our log lines and back over the wire, so only short visible ASCII is accepted.
_ACCEPTED = re.compile(r"[!-~]{1,128}")

# Unique to this process; a counter follows it, which costs a call less than a random number.
_PROCESS = secrets.token_hex(8)
_numbers = itertools.count(1)


def with_request_id(_method: Method, handle: Handler) -> Handler:
    """Takes the id from the call's metadata or makes one, and returns it in the trailing metadata."""

    def handle_with_request_id(request: object, context: grpc.ServicerContext) -> object:
        request_id = _from_caller(context) or f"{_PROCESS}{next(_numbers):016x}"
        call.current.set(call.Call(request_id))
        add_trailing_metadata(context, (METADATA_KEY, request_id))
        return handle(request, context)

    return handle_with_request_id


def _from_caller(context: grpc.ServicerContext) -> str | None:
    for key, value in context.invocation_metadata():
        if key == METADATA_KEY:
            return value if isinstance(value, str) and _ACCEPTED.fullmatch(value) else None
    return None
