"""The errors of calls. All derive from UserProfileError."""

import re
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from userprofile import reasons
from userprofile.gateways import in_words
from userprofile.printable import printable, shortened
from userprofile.service_config import PUSHBACK
from userprofile.user import User

_MAX_MESSAGE = 1000
"""Maximum characters of a message. Ours have about 100; longer ones aren't written for people."""

# The patterns of the service's reasons (https://google.aip.dev/193) and request ids. Anything else isn't ours.
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
REQUEST_ID = re.compile(r"[!-~]{1,128}")

_DOMAIN = "userprofile"


class UserProfileError(Exception):
    """Base class of all errors of calls; raised itself if no subclass fits."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str | None = None,
        request_id: str | None = None,
        retryable: bool = False,
    ) -> None:
        """See the attributes."""
        super().__init__(message)
        self.message = message
        """A sentence for people. Programs check the class or `reason`."""
        self.code = code
        """The gRPC status code."""
        self.reason = reason
        """One of `userprofile.reasons`, for example `USER_NOT_FOUND`, or a later version's; None if there is none."""
        self.request_id = request_id
        """Identifies the call in the server's log."""
        self.retryable = retryable
        """Whether a retry after a pause may succeed. Calls were already retried; single results of a batch were not."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Makes the error picklable, for process pools and task queues."""
        return _remake, (type(self), self.args, vars(self).copy())

    def __str__(self) -> str:
        """Returns the message with code, reason and request id."""
        known = [self.code.name, self.reason, self.request_id and f"request id {self.request_id}"]
        return f"{self.message} ({', '.join(filter(None, known))})"


def _remake(kind: type[UserProfileError], args: tuple[Any, ...], state: dict[str, Any]) -> UserProfileError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)  # includes notes (PEP 678) and attributes that others have set
    return error


class UserNotFoundError(UserProfileError):
    """Raised when no user has this username."""


class InvalidUsernameError(UserProfileError):
    """Raised when the username is not valid: empty, too long, or with control characters."""


class CorruptProfileError(UserProfileError):
    """Raised when the stored document of the user is not a valid profile. A retry doesn't help."""


class ProfileTooLargeError(UserProfileError):
    """Raised when the profile's strings are too long in total to be sent. A retry doesn't help."""


class ServiceUnavailableError(UserProfileError):
    """Raised when the service, or the store behind it, is unavailable or overloaded.

    The reason is `SERVICE_UNREACHABLE` if the service sent no response: no server could be connected to, the connection
    was lost, or a gateway responded in its place. The message then has gRPC's description. It is `CALLER_NOT_VERIFIED`
    while the server fetches the key that the caller's token is signed with.
    """


class DeadlineExceededError(UserProfileError):
    """Raised when the deadline of the call has passed."""


class UnauthenticatedError(UserProfileError):
    """Raised when the server does not know the caller: the token or certificate is missing or not valid.

    The reason is `CALLER_UNKNOWN` if the service says so, and None if a gateway does.
    """


class PermissionDeniedError(UserProfileError):
    """Raised when the server's policy does not allow the caller to call the method, or to see one of the fields.

    The reason is `CALLER_NOT_ALLOWED` if the service says so, and None if a gateway does. If it is about a field, the
    message names it.
    """


class BatchError(UserProfileError):
    """Raised by `get_users` when some of the users could not be read."""

    def __init__(
        self, message: str, *, users: dict[str, User], errors: dict[str, UserProfileError], **keywords: Any
    ) -> None:
        """See the attributes. `code`, `reason`, `request_id` and `retryable` are those of the first error."""
        super().__init__(message, **keywords)
        self.users = users
        """The users that were found, by username."""
        self.errors = errors
        """The errors of users that could not be read, by username. Users not found are in neither mapping."""


# A reason counts only with its own code: with another code the server contradicts itself.
_BY_REASON: dict[tuple[grpc.StatusCode, str | None], type[UserProfileError]] = {
    (grpc.StatusCode.NOT_FOUND, reasons.USER_NOT_FOUND): UserNotFoundError,
    (grpc.StatusCode.INVALID_ARGUMENT, reasons.INVALID_USERNAME): InvalidUsernameError,
    (grpc.StatusCode.DATA_LOSS, reasons.CORRUPT_DOCUMENT): CorruptProfileError,
    (grpc.StatusCode.FAILED_PRECONDITION, reasons.PROFILE_TOO_LARGE): ProfileTooLargeError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.OVERLOADED): ServiceUnavailableError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.TOO_MANY_OPEN_CALLS): ServiceUnavailableError,
}
_BY_CODE: dict[grpc.StatusCode, type[UserProfileError]] = {
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: Any, request_id: str | None, *, target: str, timeout: float) -> UserProfileError:
    """Returns the error for the grpc.RpcError that a stub raised.

    Args:
        error: The grpc.RpcError.
        request_id: The id of the call.
        target: The target of the client.
        timeout: The timeout of the call, in seconds.
    """
    code = error.code()
    details = error.details() or code.name
    message = in_words(details)
    status = _status_of(error) or status_pb2.Status()
    if message is details and not status.details:  # the text comes from gRPC itself, or from a proxy
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            waited = f"within {timeout:.3g} s" if timeout > 0 else "since the deadline had passed before the call"
            message = f"no response from {target} {waited} ({message})"
        elif code is grpc.StatusCode.UNIMPLEMENTED:
            message = (
                f"the server at {target} doesn't have this method: it isn't a userprofile service, or an older one"
                f" ({message})"
            )
    # Like gRPC: a pushback that isn't a number forbids retries, as -1 does.
    pushbacks = [value for key, value in error.trailing_metadata() or () if key == PUSHBACK]
    return _make(code, message, status, request_id, retry_allowed=all(str(value).isdecimal() for value in pushbacks))


def never_reached(refusal: Any, request_id: str | None, target: str, timeout: float) -> UserProfileError:
    """Returns the error of a call that waited for a server until its deadline.

    Args:
        refusal: The grpc.RpcError with the last cause that gRPC knows.
        request_id: The id of the call.
        target: The target of the client.
        timeout: The timeout of the call, in seconds.
    """
    message = f"no server at {target} could be reached within {timeout:.3g} s: {refusal.details()}"
    return _make(grpc.StatusCode.UNAVAILABLE, message, status_pb2.Status(), request_id)


def from_status(status: status_pb2.Status, request_id: str | None) -> UserProfileError:
    """Returns the error for one result of a batch."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.OK:  # contradictory: an error with code OK
        code = grpc.StatusCode.UNKNOWN
    return _make(code, status.message or code.name, status, request_id)


def _make(
    code: grpc.StatusCode,
    message: str,
    status: status_pb2.Status,
    request_id: str | None,
    *,
    retry_allowed: bool = True,
) -> UserProfileError:
    details = _Details(status)
    reason = details.reason
    request_id = details.request_id or request_id
    if details.problems:
        message = f"{message.rstrip('.')}: {'; '.join(details.problems)}."
    message = printable(shortened(message, _MAX_MESSAGE))
    if reason is None:
        reason = _reason_for(code, message)
    if reason == reasons.CALL_REFUSED:
        error_class: type[UserProfileError] = ServiceUnavailableError
    else:
        error_class = _BY_REASON.get((code, reason)) or _BY_CODE.get(code, UserProfileError)
    # The service marks retryable errors with RetryInfo. Other errors are retryable if the client gave them a reason.
    retryable = reason is not None and retry_allowed if details.reason is None else details.retry_helps
    return error_class(message, code=code, reason=reason, request_id=request_id, retryable=retryable)


def _reason_for(code: grpc.StatusCode, message: str) -> str | None:
    """Returns the client's own reason for an error without a reason of the service."""
    if code is grpc.StatusCode.UNAVAILABLE:
        return reasons.SERVICE_UNREACHABLE
    # The caller's own cancellation never gets here. A message over a size limit isn't worth a retry.
    if code is grpc.StatusCode.CANCELLED or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and not _SIZE.search(message)):
        return reasons.CALL_REFUSED
    return None


_SIZE = re.compile("larger than|size|too large", re.IGNORECASE)


class _Details:
    """The details of an error. Details that can't be decoded don't come from our server, and are skipped."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.reason: str | None = None
        self.request_id: str | None = None
        self.retry_helps = False
        self.problems: list[str] = []
        for detail in status.details:
            with suppress(DecodeError):
                self._read(detail)

    def _read(self, detail: Any) -> None:
        info = error_details_pb2.ErrorInfo()
        request = error_details_pb2.RequestInfo()
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(info) and info.domain == _DOMAIN:
            self.reason = info.reason if _REASON.fullmatch(info.reason) else None
        elif detail.Unpack(request):
            self.request_id = request.request_id if REQUEST_ID.fullmatch(request.request_id) else None
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            self.retry_helps = True
        elif detail.Unpack(bad_request):
            # The index within a batch means nothing to the caller, whose usernames were split into batches.
            fields = ((re.sub(r"s\[\d+\]$", "", problem.field), problem) for problem in bad_request.field_violations)
            self.problems += (f"{field} {problem.description}" for field, problem in fields)


def closed_meanwhile(request_id: str | None) -> UserProfileError:
    """Returns the error of a call that was in progress when its client was closed."""
    return UserProfileError("The client was closed.", code=grpc.StatusCode.CANCELLED, request_id=request_id)


def unsendable(username: str) -> InvalidUsernameError | None:
    """Returns the error of a username that can't be sent; None for any other, which the server validates."""
    if not isinstance(username, str):
        raise TypeError(f"a username is a string, not {type(username).__name__}")
    try:
        size = len(username.encode())
    except UnicodeEncodeError:  # a lone surrogate
        return _invalid("must be valid Unicode")
    return _invalid("must not be longer than 233 bytes in UTF-8") if size > _MAX_SENT_BYTES else None


_MAX_SENT_BYTES = 600  # a hundred usernames of this size fit into a request


def _invalid(problem: str) -> InvalidUsernameError:
    return InvalidUsernameError(
        f"The username is not valid: username {problem}.",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason=reasons.INVALID_USERNAME,
    )


def _status_of(call: Any) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(call)
    except (ValueError, DecodeError):  # invalid details, or details that contradict the status: not our server's
        return None
