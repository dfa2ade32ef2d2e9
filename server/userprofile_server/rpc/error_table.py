"""The one table from errors to the status a caller receives. The contract (`ErrorReason`) documents the reasons."""

import logging
from dataclasses import dataclass

from grpc import StatusCode

from userprofile import reasons
from userprofile_server import errors

DOMAIN = "userprofile"
"""The `domain` of every ErrorInfo (https://google.aip.dev/193)."""


@dataclass(frozen=True, slots=True, eq=False)  # a key by its identity, which costs a tenth
class ErrorStatus:
    """What the caller of a failed call receives, and the level at which the failure is logged."""

    code: StatusCode
    reason: str
    message: str
    log_level: int = logging.DEBUG
    field: str | None = None
    """The request's field that is to blame; it makes a google.rpc.BadRequest."""
    retry_delay: int | None = None
    """Seconds after which a retry may help, None if it doesn't; it makes a google.rpc.RetryInfo."""


ERROR_STATUSES: dict[type[errors.DomainError], ErrorStatus] = {
    errors.UserNotFoundError: ErrorStatus(
        StatusCode.NOT_FOUND,
        reasons.USER_NOT_FOUND,
        "There is no such user.",
    ),
    errors.InvalidUsernameError: ErrorStatus(
        StatusCode.INVALID_ARGUMENT,
        reasons.INVALID_USERNAME,
        "The username is not valid.",
        field="username",
    ),
    errors.InvalidBatchSizeError: ErrorStatus(
        StatusCode.INVALID_ARGUMENT,
        reasons.INVALID_BATCH_SIZE,
        "The batch is too small or too large.",
        field="usernames",
    ),
    errors.InvalidReadMaskError: ErrorStatus(
        StatusCode.INVALID_ARGUMENT,
        reasons.INVALID_READ_MASK,
        "The read mask is not valid.",
        field="read_mask.paths",
    ),
    errors.MalformedRequestError: ErrorStatus(
        StatusCode.INVALID_ARGUMENT,
        reasons.MALFORMED_REQUEST,
        "The request is not a valid message of this method.",
    ),
    errors.CorruptDocumentError: ErrorStatus(
        StatusCode.DATA_LOSS,
        reasons.CORRUPT_DOCUMENT,
        "The document stored for this user is not a user profile.",
        log_level=logging.WARNING,
    ),
    # Not DATA_LOSS: nothing is lost. Not RESOURCE_EXHAUSTED: a later retry doesn't help. google.rpc.Code defines
    # FAILED_PRECONDITION as "don't retry until the state of the system has been fixed".
    errors.ProfileTooLargeError: ErrorStatus(
        StatusCode.FAILED_PRECONDITION,
        reasons.PROFILE_TOO_LARGE,
        "The public profile of this user is too large.",
        log_level=logging.WARNING,
    ),
    errors.StoreUnavailableError: ErrorStatus(
        StatusCode.UNAVAILABLE,
        reasons.STORE_UNAVAILABLE,
        "The store can't be reached.",
        log_level=logging.WARNING,
        retry_delay=1,
    ),
    errors.StoreTimeoutError: ErrorStatus(
        StatusCode.UNAVAILABLE,
        reasons.STORE_TIMEOUT,
        "The store did not respond in time.",
        log_level=logging.WARNING,
    ),
    errors.DeadlineExceededError: ErrorStatus(
        StatusCode.DEADLINE_EXCEEDED,
        reasons.DEADLINE_EXCEEDED,
        "The deadline has passed.",
        log_level=logging.INFO,  # callers choose their deadlines, but this may be the only sign of a slow store
    ),
    errors.OverloadedError: ErrorStatus(
        StatusCode.RESOURCE_EXHAUSTED,
        reasons.OVERLOADED,
        "The server is overloaded.",
        log_level=logging.WARNING,
        retry_delay=1,
    ),
    errors.RequestIncompleteError: ErrorStatus(
        StatusCode.UNAVAILABLE,
        reasons.REQUEST_INCOMPLETE,
        "The request did not arrive in time.",
        log_level=logging.INFO,
        retry_delay=1,
    ),
    errors.TooManyOpenCallsError: ErrorStatus(
        StatusCode.RESOURCE_EXHAUSTED,
        reasons.TOO_MANY_OPEN_CALLS,
        "Too many calls are open.",
        log_level=logging.WARNING,
        retry_delay=1,
    ),
    # Errors about the caller are logged where they are raised, by the audit line.
    errors.CallerUnknownError: ErrorStatus(
        StatusCode.UNAUTHENTICATED,
        reasons.CALLER_UNKNOWN,
        "The call needs a valid token or client certificate.",
    ),
    errors.CallerNotVerifiedError: ErrorStatus(
        StatusCode.UNAVAILABLE,
        reasons.CALLER_NOT_VERIFIED,
        "The caller's token can't be verified yet.",
        retry_delay=1,
    ),
    errors.CallerNotAllowedError: ErrorStatus(
        StatusCode.PERMISSION_DENIED,
        reasons.CALLER_NOT_ALLOWED,
        "The caller is not allowed to call this method.",
    ),
    errors.FieldNotAllowedError: ErrorStatus(
        StatusCode.PERMISSION_DENIED,
        reasons.CALLER_NOT_ALLOWED,
        "The caller is not allowed to see this field.",
        field="read_mask.paths",
    ),
    errors.StoreDamagedError: ErrorStatus(
        StatusCode.DATA_LOSS,
        reasons.STORE_DAMAGED,
        "The store is damaged.",
        log_level=logging.ERROR,
    ),
    errors.StoreMisconfiguredError: ErrorStatus(
        StatusCode.INTERNAL,
        reasons.STORE_MISCONFIGURED,
        "The service is misconfigured.",
        log_level=logging.ERROR,
    ),
}

UNEXPECTED = ErrorStatus(
    StatusCode.INTERNAL,
    reasons.INTERNAL,
    "The service failed unexpectedly.",
    log_level=logging.ERROR,
)
"""For every exception that isn't in the table: a bug. Only the request id connects the response with the log."""


def status_for(error: errors.DomainError) -> ErrorStatus:
    """Returns the status of a call that ended with `error`."""
    return ERROR_STATUSES.get(type(error), UNEXPECTED)
