"""The first stage: every call has a request id, the caller's own or a new one, and hears it back."""

import itertools
import re
import secrets
from contextvars import ContextVar

import grpc

from userprofile_server.rpc.handler import Handler

METADATA_KEY = "x-request-id"

current: ContextVar[str] = ContextVar("request_id", default="-")
"""The request id of the call that this thread is answering; `-` outside of calls."""

# What callers send goes into our log lines and back over the wire: visible ASCII, and not much of it.
_ACCEPTED = re.compile(r"[!-~]{1,128}")

# Unlike any other process's, and then counted, which costs a call less than drawing a number.
_PROCESS = secrets.token_hex(8)
_numbers = itertools.count(1)


def with_request_id(handle: Handler) -> Handler:
    """Takes the id from the call's metadata or makes one, and returns it in the trailing metadata."""

    def handle_with_request_id(request: object, context: grpc.ServicerContext) -> object:
        request_id = _from_caller(context) or f"{_PROCESS}{next(_numbers):016x}"
        current.set(request_id)  # grpc runs every call in a context of its own
        context.set_trailing_metadata(((METADATA_KEY, request_id),))
        return handle(request, context)

    return handle_with_request_id


def _from_caller(context: grpc.ServicerContext) -> str | None:
    for key, value in context.invocation_metadata():
        if key == METADATA_KEY:
            return value if isinstance(value, str) and _ACCEPTED.fullmatch(value) else None
    return None
