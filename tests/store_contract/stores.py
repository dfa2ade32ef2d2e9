"""The stores that the contract's cases run on, each with what a test needs beyond the DocumentStore interface."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from couchbase.auth import PasswordAuthenticator
from couchbase.cluster import Cluster as SDKCluster
from couchbase.options import ClusterOptions
from couchbase.transcoder import Transcoder
from pydantic import SecretStr

from tests.couchbase_node import TestCluster
from tests.store_contract import dictionary_store
from tests.store_contract.couchbase_mock import shared_mock
from tests.support import WAIT, settings_for
from userprofile_server.settings import Settings
from userprofile_server.stores import BACKENDS, open_store
from userprofile_server.stores.base import Document, DocumentStore
from userprofile_server.stores.couchbase.url import CouchbaseURL


class StoreUnderTest(Protocol):
    """One store, which may have others' users in it, and the way around our own code into it."""

    settings: Settings

    def open(self) -> DocumentStore:
        """Opens a connection."""
        ...

    def plant(self, key: str, content: bytes) -> None:
        """Stores any bytes, as another tool might."""
        ...

    def stored(self, key: str) -> bytes | None:
        """Returns the bytes under a key."""
        ...

    def close(self) -> None:
        """Removes what was made for the test."""
        ...


class SQLiteUnderTest:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "contract.db"
        self.settings = settings_for(f"sqlite:///{self._path}")

    def open(self) -> DocumentStore:
        return open_store(self.settings, writable=True)

    def plant(self, key: str, content: bytes) -> None:
        with sqlite3.connect(self._path) as connection:
            connection.execute("INSERT OR REPLACE INTO userprofiles (key, document) VALUES (?, ?)", (key, content))
        connection.close()

    def stored(self, key: str) -> bytes | None:
        connection = sqlite3.connect(self._path)
        connection.text_factory = bytes
        row = connection.execute("SELECT document FROM userprofiles WHERE key = ?", (key,)).fetchone()
        connection.close()
        return row[0] if row else None

    def close(self) -> None:
        pass


class DictionaryUnderTest:
    """The smallest store: nothing more than the contract requires."""

    def __init__(self, folder: Path) -> None:
        BACKENDS["dictionary"] = dictionary_store.__name__
        self.settings = settings_for(f"dictionary://{folder}")
        self._documents = dictionary_store.DOCUMENTS[self.settings.store.url]

    def open(self) -> DocumentStore:
        return open_store(self.settings, writable=True)

    def plant(self, key: str, content: bytes) -> None:
        self._documents[key] = content

    def stored(self, key: str) -> bytes | None:
        return self._documents.get(key)

    def close(self) -> None:
        del BACKENDS["dictionary"]


def couchbase_settings(url: str, username: str = "username", password: str = "password", **values: Any) -> Settings:
    return settings_for(url, **{"couchbase_username": username, "couchbase_password": SecretStr(password), **values})


class NodeUnderTest:
    """Our own node, by way of the SDK's sockets."""

    def __init__(self, _folder: Path, nodes: int = 1, collection: str | None = None) -> None:
        self._cluster = TestCluster(nodes)
        self._collection = collection or "_default._default"
        query = ""
        if collection is not None:
            scope, _, name = collection.partition(".")
            self._cluster.add_collection(scope, name)
            query = f"?scope={scope}&collection={name}"
        url = f"couchbase://{self._cluster.hosts}/default{query}"
        self.settings = couchbase_settings(url, couchbase_bootstrap_timeout=WAIT)

    def open(self) -> DocumentStore:
        return open_store(self.settings, writable=True)

    def plant(self, key: str, content: bytes) -> None:
        self._cluster.put(key, content, flags=0, collection=self._collection)

    def stored(self, key: str) -> bytes | None:
        document = self._cluster.stored(key, collection=self._collection)
        return document.inflated() if document else None

    def close(self) -> None:
        self._cluster.close()


class _AnyBytes(Transcoder):  # type: ignore[misc] # the SDK has no types
    """What other tools write: bytes with flags that say nothing."""

    def encode_value(self, value: bytes) -> tuple[bytes, int]:
        return value, 0

    def decode_value(self, value: bytes, flags: int) -> bytes:
        return value


class ClusterUnderTest:
    """A bucket of a cluster that isn't ours: what a test has stored, and nothing else, is removed after it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        url = CouchbaseURL.parse(settings.store.url)
        password = settings.couchbase.password.get_secret_value() if settings.couchbase.password else ""
        authenticator = PasswordAuthenticator(settings.couchbase.username, password)
        self._sdk = SDKCluster(url.connection, ClusterOptions(authenticator, transcoder=_AnyBytes()))
        self._collection = self._sdk.bucket(url.bucket).scope(url.scope).collection(url.collection)
        self._keys: set[str] = set()

    def open(self) -> DocumentStore:
        store = open_store(self.settings, writable=True)
        put = store.put

        def put_and_remember(documents: Sequence[Document], *, timeout: float) -> int:
            self._keys.update(key for key, _ in documents)
            return put(documents, timeout=timeout)

        store.put = put_and_remember  # type: ignore[method-assign]
        return store

    def plant(self, key: str, content: bytes) -> None:
        self._keys.add(key)
        self._collection.upsert(key, content)

    def stored(self, key: str) -> bytes | None:
        content: bytes = self._collection.get(key).value
        return content

    def close(self) -> None:
        keys = list(self._keys)
        for start in range(0, len(keys), 500):
            self._collection.remove_multi(keys[start : start + 500])
        self._sdk.close()


def _mock(_folder: Path) -> StoreUnderTest:
    return ClusterUnderTest(couchbase_settings(f"couchbase://{shared_mock().host}/default", "default", "any"))


def _cluster(_folder: Path) -> StoreUnderTest:
    return ClusterUnderTest(
        couchbase_settings(
            os.environ["TEST_COUCHBASE"],
            os.environ["USERPROFILE_SERVER_COUCHBASE_USERNAME"],
            os.environ["USERPROFILE_SERVER_COUCHBASE_PASSWORD"],
        )
    )


def _stores() -> dict[str, Callable[[Path], StoreUnderTest]]:
    """The stores of this run: those that Python alone can make, unless the environment names another one."""
    if "TEST_COUCHBASE" in os.environ:
        return {"cluster": _cluster}
    if "COUCHBASEMOCK" in os.environ:
        return {"CouchbaseMock": _mock}
    return {
        "sqlite": SQLiteUnderTest,
        "dictionary": DictionaryUnderTest,
        "node": NodeUnderTest,
        "three nodes": lambda folder: NodeUnderTest(folder, nodes=3),
        "collection": lambda folder: NodeUnderTest(folder, collection="app.users"),
    }


STORES = _stores()
EMBEDDED = ("sqlite", "dictionary")
"""Those that are no cluster: `make test-fast` takes them."""
