"""The reasons of a `UserProfileError`: the values of the contract's `ErrorReason`, without their prefix.

`userprofile/v1/error_reason.proto` documents the status of each, and whether a retry helps.
"""

from userprofile.v1.error_reason_pb2 import ErrorReason


def _reason(value: ErrorReason.ValueType) -> str:
    return ErrorReason.Name(value).removeprefix("ERROR_REASON_")


USER_NOT_FOUND = _reason(ErrorReason.ERROR_REASON_USER_NOT_FOUND)
INVALID_USERNAME = _reason(ErrorReason.ERROR_REASON_INVALID_USERNAME)
INVALID_BATCH_SIZE = _reason(ErrorReason.ERROR_REASON_INVALID_BATCH_SIZE)
INVALID_READ_MASK = _reason(ErrorReason.ERROR_REASON_INVALID_READ_MASK)
MALFORMED_REQUEST = _reason(ErrorReason.ERROR_REASON_MALFORMED_REQUEST)
CORRUPT_DOCUMENT = _reason(ErrorReason.ERROR_REASON_CORRUPT_DOCUMENT)
PROFILE_TOO_LARGE = _reason(ErrorReason.ERROR_REASON_PROFILE_TOO_LARGE)
STORE_UNAVAILABLE = _reason(ErrorReason.ERROR_REASON_STORE_UNAVAILABLE)
STORE_TIMEOUT = _reason(ErrorReason.ERROR_REASON_STORE_TIMEOUT)
STORE_DAMAGED = _reason(ErrorReason.ERROR_REASON_STORE_DAMAGED)
STORE_MISCONFIGURED = _reason(ErrorReason.ERROR_REASON_STORE_MISCONFIGURED)
DEADLINE_EXCEEDED = _reason(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED)
INTERNAL = _reason(ErrorReason.ERROR_REASON_INTERNAL)
OVERLOADED = _reason(ErrorReason.ERROR_REASON_OVERLOADED)
REQUEST_INCOMPLETE = _reason(ErrorReason.ERROR_REASON_REQUEST_INCOMPLETE)
TOO_MANY_OPEN_CALLS = _reason(ErrorReason.ERROR_REASON_TOO_MANY_OPEN_CALLS)
CALLER_UNKNOWN = _reason(ErrorReason.ERROR_REASON_CALLER_UNKNOWN)
CALLER_NOT_ALLOWED = _reason(ErrorReason.ERROR_REASON_CALLER_NOT_ALLOWED)
CALLER_NOT_VERIFIED = _reason(ErrorReason.ERROR_REASON_CALLER_NOT_VERIFIED)

# Set by clients, never by the service.
SERVICE_UNREACHABLE = _reason(ErrorReason.ERROR_REASON_SERVICE_UNREACHABLE)
CALL_REFUSED = _reason(ErrorReason.ERROR_REASON_CALL_REFUSED)
