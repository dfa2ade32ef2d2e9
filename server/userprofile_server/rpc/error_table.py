"""The one table from errors to what a caller reads. The table in the README is made from it."""

import logging
from dataclasses import dataclass

from grpc import StatusCode

from userprofile_server import errors

_log = logging.getLogger(__name__)

DOMAIN = "userprofile"
"""The `domain` of every ErrorInfo (https://google.aip.dev/193)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller of a failed call is told, and how loudly the operator is."""

    status: StatusCode
    reason: str
    message: str
    when: str
    """For the README: the situation, in words for a caller."""
    log_level: int = logging.DEBUG
    field: str | None = None
    """The request's field that is to blame; it makes a google.rpc.BadRequest."""
    retry: bool = True
    """False tells a client that would retry by itself not to (gRPC's pushback)."""


ANSWERS: dict[type[errors.DomainError], Answer] = {
    errors.UserNotFoundError: Answer(
        StatusCode.NOT_FOUND,
        "USER_NOT_FOUND",
        "There is no such user.",
        "nobody has this username",
    ),
    errors.InvalidUsernameError: Answer(
        StatusCode.INVALID_ARGUMENT,
        "INVALID_USERNAME",
        "The username is not valid.",
        "the username is empty, longer than 233 bytes, or has control characters",
        field="username",
    ),
    errors.InvalidBatchSizeError: Answer(
        StatusCode.INVALID_ARGUMENT,
        "INVALID_BATCH_SIZE",
        "The batch is too small or too large.",
        "a batch holds no username, or more than 100",
        field="usernames",
    ),
    errors.MalformedRequestError: Answer(
        StatusCode.INVALID_ARGUMENT,
        "MALFORMED_REQUEST",
        "The request is not a valid message of this method.",
        "the request's bytes are not the method's message",
    ),
    errors.CorruptDocumentError: Answer(
        StatusCode.DATA_LOSS,
        "CORRUPT_DOCUMENT",
        "What is stored for this user is not a user profile.",
        "the stored document is not JSON, not an object, has a field of a wrong type, another `type`, or"
        " another username than its key",
        log_level=logging.WARNING,
    ),
    # Not DATA_LOSS, for nothing is lost, and not RESOURCE_EXHAUSTED, which later may be better: google.rpc.Code says
    # FAILED_PRECONDITION where trying again helps only once somebody has changed what is there.
    errors.ProfileTooLargeError: Answer(
        StatusCode.FAILED_PRECONDITION,
        "PROFILE_TOO_LARGE",
        "The public profile of this user is too large.",
        "username, email and full_name together are longer than 32 KiB in UTF-8",
        log_level=logging.WARNING,
    ),
    errors.StoreUnavailableError: Answer(
        StatusCode.UNAVAILABLE,
        "STORE_UNAVAILABLE",
        "The storage can't be reached.",
        "the store is down, refuses, or is not yet connected",
        log_level=logging.WARNING,
    ),
    errors.StoreTimeoutError: Answer(
        StatusCode.UNAVAILABLE,
        "STORE_TIMEOUT",
        "The storage did not answer in time.",
        "the store took longer than `--store-timeout`, and the caller had time left; comes with a pushback"
        " of -1, because a retry would multiply the load",
        log_level=logging.WARNING,
        retry=False,
    ),
    errors.DeadlineExceededError: Answer(
        StatusCode.DEADLINE_EXCEEDED,
        "DEADLINE_EXCEEDED",
        "The deadline is over.",
        "the time that the caller gave is up",
        log_level=logging.INFO,  # callers choose it, but a slow store may show itself in nothing else
    ),
    errors.StoreDamagedError: Answer(
        StatusCode.DATA_LOSS,
        "STORE_DAMAGED",
        "The storage is damaged.",
        "the store can't read what it has kept, all of it or the part where this user's document was; asking again"
        " doesn't help, and the server's log says what is damaged",
        log_level=logging.ERROR,
    ),
    errors.StoreMisconfiguredError: Answer(
        StatusCode.INTERNAL,
        "STORE_MISCONFIGURED",
        "The service is misconfigured.",
        "the server's own file, address or credentials for the store are wrong; the server's log says which",
        log_level=logging.ERROR,
    ),
}

UNEXPECTED = Answer(
    StatusCode.INTERNAL,
    "INTERNAL",
    "The service failed unexpectedly.",
    "anything else; the server's log has the details under the request id",
    log_level=logging.ERROR,
)
"""For whatever isn't in the table: a bug. Only the request id leads from the caller to the log."""


def answer_to(error: errors.DomainError) -> Answer:
    """Returns the answer to `error`, and tells the operator of it as loudly as the answer says."""
    answer = ANSWERS.get(type(error), UNEXPECTED)
    if _log.isEnabledFor(answer.log_level):
        text = ": ".join(filter(None, (answer.reason, str(error))))
        _log.log(answer.log_level, "%s", text, extra={"kind": answer.reason})
    return answer
