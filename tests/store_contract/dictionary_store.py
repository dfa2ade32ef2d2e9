"""The package of a third store, in full: documents in dictionaries, one for each URL, as long as the process lasts."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

from userprofile_server.errors import StoreError, StoreUnavailableError
from userprofile_server.stores.base import Backend, Document
from userprofile_server.stores.settings import StorageSettings

T = TypeVar("T")

DOCUMENTS: dict[str, dict[str, bytes]] = defaultdict(dict)


class DictionaryStore:
    def __init__(self, settings: StorageSettings, writable: bool) -> None:
        self._documents: dict[str, bytes] | None = DOCUMENTS[settings.store.url]

    def get(self, key: str, *, timeout: float) -> bytes | None:
        return self._open().get(key)

    def get_many(
        self, keys: Sequence[str], parse: Callable[[str, bytes], T], *, timeout: float
    ) -> dict[str, T | StoreError | None]:
        documents = self._open()
        return {key: parse(key, documents[key]) if key in documents else None for key in keys}

    def put(self, documents: Sequence[Document], *, timeout: float) -> int:
        stored, before = self._open(), len(self._open())
        stored.update(documents)
        return len(documents) - (len(stored) - before)

    def probe(self, *, timeout: float) -> None:
        self._open()

    def close(self) -> None:
        self._documents = None

    def _open(self) -> dict[str, bytes]:
        documents = self._documents
        if documents is None:
            raise StoreUnavailableError("this connection is closed")
        return documents


BACKEND = Backend(open=DictionaryStore, check_url=lambda url: None)
