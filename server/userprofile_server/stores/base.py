"""The interface of all stores: documents by key. A store knows neither users nor gRPC.

`tests/store_contract` tests every store against it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from userprofile_server.errors import StoreError
from userprofile_server.stores.settings import StorageSettings

T = TypeVar("T")

MAX_KEY_BYTES = 246
"""The longest key that a store has to accept, in bytes of UTF-8: Couchbase's limit inside a collection."""

MAX_DOCUMENT_BYTES = 20 * 1024 * 1024
"""The largest document that a store has to accept, in bytes: Couchbase's limit."""


class Document(NamedTuple):
    """A document to store: JSON in UTF-8."""

    key: str
    content: bytes


class DocumentReader(Protocol):
    """The part of a store that serving a call needs.

    Every timeout is in seconds and above zero. Every method raises only StoreErrors (`userprofile_server.errors`),
    whose text has no content of a document.
    """

    def get(self, key: str, *, timeout: float) -> bytes | None:
        """Returns the document under `key` byte for byte; None if there is none.

        Raises:
            StoreError: the store didn't respond.
        """
        ...

    def get_many(
        self, keys: Sequence[str], parse: Callable[[str, bytes], T], *, timeout: float
    ) -> dict[str, T | StoreError | None]:
        """Reads the documents under `keys`, which are distinct, in one round. Returns an outcome for each key.

        An outcome is the result of `parse(key, document)`, None if there is no document, or an error if the store
        didn't respond for this key. Documents may be large: each is parsed and released before the next one is read,
        if the store can do that. If a read is retried, a document may be parsed twice. `parse` must not raise.

        Raises:
            StoreError: the store responded for none of them.
        """
        ...


class DocumentStore(DocumentReader, Protocol):
    """One connection to a store. Only one thread uses it at a time."""

    def put(self, documents: Sequence[Document], *, timeout: float) -> int:
        """Stores all documents durably, in order, and returns how many replaced an older one.

        Raises:
            DocumentsRefusedError: some can't be stored; all others are stored.
            StoreError: some may not be stored. Storing them again is safe.
        """
        ...

    def probe(self, *, timeout: float) -> None:
        """Reads keys that don't exist. Returns if the store responds; raises StoreError if it doesn't.

        Any thread may call it at any time.
        """
        ...

    def close(self) -> None:
        """Closes files and connections. Later calls raise StoreUnavailableError; closing again does nothing.

        Any thread may call it, also during a read.
        """
        ...


@runtime_checkable
class Examinable(Protocol):
    """A store that can check its data for damage. Optional, because a cluster does this itself."""

    def examine(self, *, seconds: float | None) -> Iterator[str]:
        """Yields lines about what was checked, for `seconds` at most; None means no limit.

        Raises:
            StoreDamagedError: something is damaged; the text says what.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What a store's package provides, as its `BACKEND`. It imports a large driver only in `open`."""

    open: Callable[[StorageSettings, bool], DocumentStore]
    """Opens a connection, which allows `put` if the second argument is true; see `stores.open_store`."""
    check_url: Callable[[str], object]
    """Raises StoreMisconfiguredError if this is no valid URL of such a store. Opens nothing."""
    look_before_opening: Callable[[StorageSettings], None] = lambda _settings: None
    """For commands, which open a store once: raises a StoreError if its address isn't that of such a store."""
    diagnose: Callable[[StorageSettings, Iterator[str]], Iterator[str]] = lambda _settings, attempt: attempt
    """For `check`: yields the lines of an attempt to connect and read, with more details.

    If the attempt raises a StoreError, it may raise one with more details instead.
    """
    has_nodes: bool = False
    """Whether the store has several nodes, so that one can be down while the others respond.

    Several threads may read through one connection to such a store at once, without waiting for each other.
    """
