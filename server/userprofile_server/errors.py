"""The errors that the domain knows. They know nothing of gRPC: `rpc/error_table.py` gives each its status.

What `str()` says of them is for the operator's log. It never reaches a caller, and it never holds a
username (personal data), a document or anything taken out of one.
"""

from collections.abc import Mapping


class DomainError(Exception):
    """Base of every error that a store or the service raises on purpose."""


class MalformedRequestError(DomainError):
    """Raised when the bytes of a request are not the message that the method takes."""


class InvalidUsernameError(DomainError):
    """Raised when no user can have this name. The text says why without repeating it: the caller reads it."""


class InvalidBatchSizeError(DomainError):
    """Raised when a batch asks for nobody or for too many. The text says so: the caller reads it."""


class UserNotFoundError(DomainError):
    """Raised when the store answered, and has no such user."""


class CorruptDocumentError(DomainError):
    """Raised when a user's document is there, but isn't a user profile. The text says what is wrong with its form."""


class ProfileTooLargeError(DomainError):
    """Raised when the public part of a user's document is larger than a profile may be."""


class DeadlineExceededError(DomainError):
    """Raised when the caller's own time is up."""


class StoreError(DomainError):
    """Base of what can go wrong with a store as a whole. The text says what, in words for an operator."""

    def __init__(self, message: str = "", *, permanent: bool = False) -> None:
        """`permanent` says that the mistake is this process's own (a URL, a path): no server starts with it."""
        super().__init__(message)
        self.permanent = permanent


class StoreUnavailableError(StoreError):
    """Raised when the store can't answer now and may well answer later."""


class StoreTimeoutError(StoreError):
    """Raised when the store didn't answer within the timeout that it was given."""


class DocumentsRefusedError(StoreError):
    """Raised when a store has stored all documents but some, which it won't take as they are or as things stand."""

    def __init__(self, reasons: Mapping[str, str], *, replaced: int) -> None:
        """`reasons` says by username why a document wasn't stored, `replaced` how many of the others took a place."""
        super().__init__("; ".join(sorted(set(reasons.values()))))
        self.reasons = reasons
        self.replaced = replaced


class StoreDamagedError(StoreError):
    """Raised when what the store has kept can't be read any more, all of it or a part: it has to be restored."""


class StoreMisconfiguredError(StoreError):
    """Raised when the store can't answer until an operator changes something: address, credentials, file."""
