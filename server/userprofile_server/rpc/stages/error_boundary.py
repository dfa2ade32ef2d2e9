"""The stage that turns every exception into a status from the error table."""

import logging
import random

import grpc

from userprofile.service_config import NO_RETRY, PREVIOUS_ATTEMPTS, PUSHBACK, time_suffices
from userprofile_server.errors import DomainError
from userprofile_server.rpc.error_table import UNEXPECTED, ErrorStatus, status_for
from userprofile_server.rpc.stages import Handler, Method, add_trailing_metadata
from userprofile_server.rpc.status import ForeignStatusError, to_bytes
from userprofile_server.telemetry import call

_log = logging.getLogger(__name__)

_PUSHBACK_MS = (250, 1000)
"""When a refused call may be retried: a random time within this range, so that not all return at once."""


def with_error_boundary(_method: Method, handle: Handler) -> Handler:
    """Ends failed calls with the table's status. By default grpc would send any exception's text to the caller.

    Inner stages and servicers raise instead of calling `context.abort()`. A call that was refused before it reached a
    worker (`rpc/whole_requests.py`) ends here: its request is an error. That error isn't raised, because its traceback
    would form a reference cycle, and collecting the garbage is a third of a refusal's cost.
    """

    def handle_within_boundary(request: object, context: grpc.ServicerContext) -> object:
        if isinstance(request, Exception):
            code, message = end_of_call(context, request)
        else:
            try:
                return handle(request, context)
            # BaseException: grpc would never end the call on SystemExit or a panic of a native module.
            except BaseException as error:  # noqa: BLE001
                code, message = end_of_call(context, error)
        return context.abort(code, message)

    return handle_within_boundary


def end_of_call(context: grpc.ServicerContext, error: BaseException) -> tuple[grpc.StatusCode, str]:
    """Logs the call's error, adds its details to the trailing metadata, and returns code and message."""
    if isinstance(error, ForeignStatusError):
        return error.code, error.message
    if isinstance(error, DomainError):
        status = log(error)
    else:
        status = UNEXPECTED
        _log.error("%s", status.reason, exc_info=error, extra={"kind": status.reason})
    current = call.current.get()
    current.reason = status.reason
    details = to_bytes(status, error, request_id=current.request_id)
    add_trailing_metadata(context, ("grpc-status-details-bin", details), *_retry_metadata(status, context))
    return status.code, status.message


def _retry_metadata(status: ErrorStatus, context: grpc.ServicerContext) -> list[tuple[str, str]]:
    """Returns the retry pushback as metadata, or nothing if the caller's own retry policy decides.

    The pushback forbids a retry that the deadline would cut off: the caller then receives this error instead of
    DEADLINE_EXCEEDED.
    """
    if status.code is grpc.StatusCode.UNAVAILABLE:
        previous_attempts = dict(context.invocation_metadata()).get(PREVIOUS_ATTEMPTS)
        worth = status.retry_delay is not None and time_suffices(previous_attempts, context.time_remaining())
        return [] if worth else [NO_RETRY]
    if status.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # The retry policy's pauses are for lost connections: too short here, all calls would return to a full server.
        pause = random.randint(*_PUSHBACK_MS)  # noqa: S311, not a secret
        remaining = context.time_remaining()
        return [(PUSHBACK, str(pause)) if remaining is None or remaining > pause / 1000 else NO_RETRY]
    return []


def log(error: DomainError) -> ErrorStatus:
    """Logs an error at the level of its status, and returns the status."""
    status = status_for(error)
    if _log.isEnabledFor(status.log_level):
        text = ": ".join(filter(None, (status.reason, str(error))))
        _log.log(status.log_level, "%s", text, extra={"kind": status.reason})
    return status
