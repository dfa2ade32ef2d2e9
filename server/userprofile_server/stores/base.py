"""What every store can do. `tests/conformance` states the same as cases, and every store passes all of them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from userprofile_server.errors import DomainError
from userprofile_server.models import User

Outcome = User | DomainError
"""What became of one name of several: the user, or the error that asking for it alone would have raised."""


class Document(NamedTuple):
    """A user's document on its way into a store: JSON in UTF-8."""

    username: str
    content: bytes


class UserReader(Protocol):
    """What answering a call takes of a store.

    Every timeout is in seconds and above zero. Every method raises only the domain's errors
    (`userprofile_server.errors`), and none of them holds anything out of a document.
    """

    def get(self, username: str, *, timeout: float) -> User:
        """Returns the public profile of `username`, which is a valid name already.

        Raises:
            UserNotFoundError: the store answered, and has no such user.
            CorruptDocumentError: the document is there, but isn't a user profile.
            ProfileTooLargeError: its public part is larger than a profile may be.
            StoreError: the store didn't answer.
        """
        ...

    def get_many(self, usernames: Sequence[str], *, timeout: float) -> dict[str, Outcome]:
        """Returns what became of each of the names, which are valid and differ, in one round for all of them.

        Raises:
            StoreError: the store answered for none of them.
        """
        ...


class UserStore(UserReader, Protocol):
    """One handle on a store, owned by one thread at a time."""

    def put(self, documents: Sequence[Document], *, timeout: float) -> int:
        """Stores all documents durably, in order, and returns how many took the place of an older one.

        Raises:
            DocumentsRefusedError: some can't be stored, and all others are.
            StoreError: not all of them are stored for certain. Storing them again does no harm.
        """
        ...

    def probe(self, *, timeout: float) -> None:
        """Reads keys that nobody has used. Returns when the store has answered; raises StoreError if it hasn't.

        Other threads than the handle's own may call it, at any time.
        """
        ...

    def close(self) -> None:
        """Lets go of files and connections. Later calls raise StoreUnavailableError; closing again does nothing.

        Other threads than the handle's own may call it, while a read is under way too.
        """
        ...


@runtime_checkable
class Examinable(Protocol):
    """A store that can look for damage in what it has kept. An ability of its own: a cluster does this by itself."""

    def examine(self, *, seconds: float | None) -> Iterator[str]:
        """Yields lines about what was looked at, for `seconds` at most; None takes the time it needs.

        Raises:
            StoreDamagedError: something is damaged; the text says what.
        """
        ...
