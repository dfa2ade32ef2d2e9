"""The errors of the domain, independent of gRPC: `rpc/error_table.py` maps each to its status.

Their text is for the operator's log. It never reaches a caller unless stated here, and never contains a username
(personal data) or any content of a document.
"""

from collections.abc import Mapping


class DomainError(Exception):
    """Base of every error that a store or the service raises on purpose."""


class MalformedRequestError(DomainError):
    """Raised when the bytes of a request can't be decoded as the method's message."""


class InvalidUsernameError(DomainError):
    """Raised when a username isn't valid. The text says why, without the name. The caller receives the text."""


class InvalidBatchSizeError(DomainError):
    """Raised when a batch has no username or too many. The caller receives the text."""


class InvalidReadMaskError(DomainError):
    """Raised when a path of a read mask names no field of a user. The caller receives the text."""


class UserNotFoundError(DomainError):
    """Raised when the store has no such user."""


class CorruptDocumentError(DomainError):
    """Raised when a user's document exists, but isn't a valid profile. The text describes the error."""


class ProfileTooLargeError(DomainError):
    """Raised when the public fields of a user's document are larger than a profile may be."""


class DeadlineExceededError(DomainError):
    """Raised when the caller's deadline has passed."""


class OverloadedError(DomainError):
    """Raised when a call would wait too long for a worker."""


class RequestIncompleteError(DomainError):
    """Raised when the rest of a request, or a stream's next request, hasn't arrived in time."""


class TooManyOpenCallsError(DomainError):
    """Raised when too many open calls wait for their clients."""


class CallerUnknownError(DomainError):
    """Raised when a call has no identity and needs one, or its credentials aren't valid. The text says why."""


class CallerNotVerifiedError(DomainError):
    """Raised when the caller's token can't be verified yet, because its key is still to be fetched."""


class CallerNotAllowedError(DomainError):
    """Raised when the policy doesn't allow the caller to call the method."""


class FieldNotAllowedError(DomainError):
    """Raised when a read mask names a field that the caller may not see. The caller receives the text."""


class SecurityError(Exception):
    """Raised when a file of certificates, tokens or rules can't be used. The text explains it to an operator."""


class StoreError(DomainError):
    """Base of the errors of a store as a whole. The text explains the error to an operator."""

    def __init__(self, message: str = "", *, permanent: bool = False) -> None:
        """`permanent` marks a mistake in the process's own settings (a URL, a path): the server doesn't start."""
        super().__init__(message)
        self.permanent = permanent


class StoreUnavailableError(StoreError):
    """Raised when the store is unavailable now and may recover by itself."""


class StoreTimeoutError(StoreError):
    """Raised when the store didn't respond within its timeout."""


class DocumentsRefusedError(StoreError):
    """Raised when the store refused some documents and stored all others."""

    def __init__(self, reasons: Mapping[str, str], *, replaced: int) -> None:
        """`reasons` maps each refused document's key to the cause. `replaced` of the others replaced an older one."""
        super().__init__("; ".join(sorted(set(reasons.values()))))
        self.reasons = reasons
        self.replaced = replaced


class StoreDamagedError(StoreError):
    """Raised when some or all of the store's data can't be read any more and must be restored."""


class StoreMisconfiguredError(StoreError):
    """Raised when the store can't be used until an operator changes something: address, credentials, file."""
