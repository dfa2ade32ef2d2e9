"""What a call can raise: one tree, so that `except UserProfileError` catches all of it."""

import functools
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

_DOMAIN = "userprofile"


class UserProfileError(Exception):
    """Base of every error of a call, and the error itself where no class below fits."""

    def __init__(
        self, message: str, *, code: grpc.StatusCode, reason: str | None = None, request_id: str | None = None
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
        """Finds the call in the server's log; None if it got no answer from the service."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Makes it picklable, for process pools and task queues."""
        make = functools.partial(type(self), code=self.code, reason=self.reason, request_id=self.request_id)
        return make, (self.message,)

    def __str__(self) -> str:
        """Returns the message with what helps to find the cause."""
        known = [self.code.name, self.reason, self.request_id and f"request id {self.request_id}"]
        return f"{self.message} ({', '.join(filter(None, known))})"


class UserNotFoundError(UserProfileError):
    """Raised when nobody has this username."""


class InvalidUsernameError(UserProfileError):
    """Raised when no user can have this name: empty, too long, or with control characters."""


class CorruptProfileError(UserProfileError):
    """Raised when the user is stored, but what is stored isn't a profile. Asking again doesn't help."""


class ServiceUnavailableError(UserProfileError):
    """Raised when the server, or the storage behind it, can't be reached now."""


class DeadlineExceededError(UserProfileError):
    """Raised when the timeout of the call is over."""


_BY_REASON: dict[str, type[UserProfileError]] = {
    "USER_NOT_FOUND": UserNotFoundError,
    "INVALID_USERNAME": InvalidUsernameError,
    "CORRUPT_DOCUMENT": CorruptProfileError,
}
_BY_CODE: dict[grpc.StatusCode, type[UserProfileError]] = {
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
}


def from_rpc_error(error: grpc.RpcError) -> UserProfileError:
    """Returns the error that stands for what a stub raised."""
    assert isinstance(error, grpc.Call)  # all that stubs raise are calls too
    code = error.code()
    message = error.details() or code.name
    reason = request_id = None
    status = _status_of(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        request = error_details_pb2.RequestInfo()
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(info) and info.domain == _DOMAIN:
            reason = info.reason
        elif detail.Unpack(request):
            request_id = request.request_id
        elif detail.Unpack(bad_request):
            problems = (f"{problem.field} {problem.description}" for problem in bad_request.field_violations)
            message = f"{message.rstrip('.')}: {'; '.join(problems)}."
    error_class = _BY_REASON.get(reason or "") or _BY_CODE.get(code, UserProfileError)
    return error_class(message, code=code, reason=reason, request_id=request_id)


def invalid_unicode() -> InvalidUsernameError:
    """Returns the error for a name that can't even be put into a request (a lone surrogate)."""
    return InvalidUsernameError(
        "The username is not valid: username must be valid Unicode.",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_USERNAME",
    )


def _status_of(call: grpc.Call) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(call)
    except (ValueError, DecodeError):  # details that contradict the status, or aren't details: not our server's
        return None
