"""What a call can raise: one tree, so that `except UserProfileError` catches all of it."""

import re
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from userprofile.gateways import in_words
from userprofile.printable import printable, shortened
from userprofile.user import User

UNREACHABLE = "SERVICE_UNREACHABLE"
"""The client's own reason: the service gave no answer."""

REFUSED = "CALL_REFUSED"
"""The client's own reason: gRPC, at the other end or on the way, took the call and gave it up before an answer."""

_MAX_MESSAGE = 1000
"""Characters of a message that are kept. Ours have some 100; what is longer isn't written for people."""

# What the service's reasons (https://google.aip.dev/193) and request ids look like. Anything else isn't ours.
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
REQUEST_ID = re.compile(r"[!-~]{1,128}")

_DOMAIN = "userprofile"


class UserProfileError(Exception):
    """Base of every error of a call, and the error itself where no class below fits."""

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
        """A sentence for a person. Programs look at the class, or at `reason`."""
        self.code = code
        """The gRPC status code."""
        self.reason = reason
        """The service's reason, for example `USER_NOT_FOUND`; None if gRPC itself answered."""
        self.request_id = request_id
        """Finds the call in the server's log."""
        self.retryable = retryable
        """Whether asking again after a pause may help. A call was retried already; a name of a batch was not."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Makes it picklable, for process pools and task queues."""
        return _remake, (type(self), self.args, vars(self).copy())

    def __str__(self) -> str:
        """Returns the message with what helps to find the cause."""
        known = [self.code.name, self.reason, self.request_id and f"request id {self.request_id}"]
        return f"{self.message} ({', '.join(filter(None, known))})"


def _remake(kind: type[UserProfileError], args: tuple[Any, ...], state: dict[str, Any]) -> UserProfileError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)  # notes (PEP 678) and what others have put there included
    return error


class UserNotFoundError(UserProfileError):
    """Raised when nobody has this username."""


class InvalidUsernameError(UserProfileError):
    """Raised when no user can have this name: empty, too long, or with control characters."""


class CorruptProfileError(UserProfileError):
    """Raised when the user is stored, but what is stored isn't a profile. Asking again doesn't help."""


class ProfileTooLargeError(UserProfileError):
    """Raised when the user's e-mail address and full name are together too long to be sent. Asking again is no help."""


class ServiceUnavailableError(UserProfileError):
    """Raised when the service, or the storage behind it, can't be reached now.

    The reason is `SERVICE_UNREACHABLE` where the service gave no answer: no server can be connected to, the connection
    was lost, or a gateway answered in its place. gRPC says so by itself, and the message has its words.
    """


class DeadlineExceededError(UserProfileError):
    """Raised when the timeout of the call is over."""


class UnauthenticatedError(UserProfileError):
    """Raised when the server wants to know who calls, and the token or certificate is missing or wrong."""


class PermissionDeniedError(UserProfileError):
    """Raised when the server knows who calls, and that it isn't allowed."""


class BatchError(UserProfileError):
    """Raised by `get_users` when some of the users could be read, and others failed."""

    def __init__(
        self, message: str, *, users: dict[str, User], errors: dict[str, UserProfileError], **keywords: Any
    ) -> None:
        """See the attributes. Code, reason, request id and whether it is retryable are those of the first error."""
        super().__init__(message, **keywords)
        self.users = users
        """Those who were found, by username."""
        self.errors = errors
        """What went wrong with the others, by username. Names that nobody has are in neither of the two."""


# A reason counts with its own code alone: "nobody has this name" from a server that contradicts itself is no answer.
_BY_REASON: dict[tuple[grpc.StatusCode, str | None], type[UserProfileError]] = {
    (grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"): UserNotFoundError,
    (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_USERNAME"): InvalidUsernameError,
    (grpc.StatusCode.DATA_LOSS, "CORRUPT_DOCUMENT"): CorruptProfileError,
    (grpc.StatusCode.FAILED_PRECONDITION, "PROFILE_TOO_LARGE"): ProfileTooLargeError,
}
_BY_CODE: dict[grpc.StatusCode, type[UserProfileError]] = {
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: Any, request_id: str | None, *, target: str, timeout: float) -> UserProfileError:
    """Returns the error that stands for the grpc.RpcError that a stub raised.

    Args:
        error: What the stub raised.
        request_id: That of the call.
        target: Who was asked.
        timeout: The seconds that the call had.
    """
    code = error.code()
    details = error.details() or code.name
    message = in_words(details)
    status = _status_of(error) or status_pb2.Status()
    if message is details and not status.details:  # these are gRPC's own words, or a proxy's
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            waited = f"within {timeout:.3g} s" if timeout > 0 else "since its time was over before it began"
            message = f"no answer from {target} {waited} ({message})"
        elif code is grpc.StatusCode.UNIMPLEMENTED:
            message = (
                f"the server at {target} doesn't have this method: it isn't a userprofile service, or is an older one"
                f" ({message})"
            )
    return _make(code, message, status, request_id)


def never_reached(refusal: Any, request_id: str | None, target: str, timeout: float) -> UserProfileError:
    """Returns the error of a call that waited for a server until its time was over.

    Args:
        refusal: The grpc.RpcError with what gRPC last saw.
        request_id: That of the call.
        target: Whom the call wanted to reach.
        timeout: The seconds that it had.
    """
    message = f"no server at {target} could be reached within {timeout:.3g} s: {refusal.details()}"
    return _make(grpc.StatusCode.UNAVAILABLE, message, status_pb2.Status(), request_id)


def from_status(status: status_pb2.Status, request_id: str | None) -> UserProfileError:
    """Returns the error that stands for one result of a batch."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.OK:  # an error that says it is none
        code = grpc.StatusCode.UNKNOWN
    return _make(code, status.message or code.name, status, request_id)


def _make(code: grpc.StatusCode, message: str, status: status_pb2.Status, request_id: str | None) -> UserProfileError:
    details = _Details(status)
    reason = details.reason
    request_id = details.request_id or request_id
    if details.problems:
        message = f"{message.rstrip('.')}: {'; '.join(details.problems)}."
    message = printable(shortened(message, _MAX_MESSAGE))
    if reason is None:
        reason = _reason_for(code, message)
    if reason == REFUSED:
        error_class: type[UserProfileError] = ServiceUnavailableError
    else:
        error_class = _BY_REASON.get((code, reason)) or _BY_CODE.get(code, UserProfileError)
    # A store that is slow only gets slower by being asked again; the server says so by its pushback.
    retryable = reason == REFUSED or (code is grpc.StatusCode.UNAVAILABLE and reason != "STORE_TIMEOUT")
    return error_class(message, code=code, reason=reason, request_id=request_id, retryable=retryable)


def _reason_for(code: grpc.StatusCode, message: str) -> str | None:
    """Returns the client's own reason for what comes without one of the service's."""
    if code is grpc.StatusCode.UNAVAILABLE:
        return UNREACHABLE
    # The caller's own cancellation never gets here. A message beyond a limit stays beyond it.
    if code is grpc.StatusCode.CANCELLED or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and not _SIZE.search(message)):
        return REFUSED
    return None


_SIZE = re.compile("larger than|size|too large", re.IGNORECASE)


class _Details:
    """What is known of an error beyond its code. What can't be read isn't our server's, and is passed over."""

    def __init__(self, status: status_pb2.Status) -> None:
        self.reason: str | None = None
        self.request_id: str | None = None
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
        elif detail.Unpack(bad_request):
            # Where in a batch a name stood says nothing to a caller, whose names were many batches.
            fields = ((re.sub(r"s\[\d+\]$", "", problem.field), problem) for problem in bad_request.field_violations)
            self.problems += (f"{field} {problem.description}" for field, problem in fields)


def closed_meanwhile(request_id: str | None) -> UserProfileError:
    """Returns the error of a call that was in progress when its client was closed."""
    return UserProfileError("The client was closed.", code=grpc.StatusCode.CANCELLED, request_id=request_id)


def unsendable(username: str) -> InvalidUsernameError | None:
    """Returns the error of a name that can't even be put into a request, None of any other: the server judges those."""
    if not isinstance(username, str):
        raise TypeError(f"a username is a string, not {type(username).__name__}")
    try:
        size = len(username.encode())
    except UnicodeEncodeError:  # a lone surrogate
        return _invalid("must be valid Unicode")
    return _invalid("must not be longer than 233 bytes in UTF-8") if size > _MAX_SENT_BYTES else None


_MAX_SENT_BYTES = 600  # a hundred such names fit into a request


def _invalid(problem: str) -> InvalidUsernameError:
    return InvalidUsernameError(
        f"The username is not valid: username {problem}.",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_USERNAME",
    )


def _status_of(call: Any) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(call)
    except (ValueError, DecodeError):  # details that contradict the status, or aren't details: not our server's
        return None
