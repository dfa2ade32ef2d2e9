"""The stores that the conformance suite runs against, each with what a test needs beyond the UserStore interface."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from couchbase.auth import PasswordAuthenticator
from couchbase.cluster import Cluster as SDKCluster
from couchbase.options import ClusterOptions
from couchbase.transcoder import Transcoder
from pydantic import SecretStr

from tests.conformance.couchbase_mock import shared_mock
from tests.couchbase_node import TestCluster
from userprofile_server.documents import document_key
from userprofile_server.settings import StoreSettings
from userprofile_server.stores import Document, UserStore, open_store
from userprofile_server.stores.couchbase import CouchbaseURL


class Peer(Protocol):
    """One store, which may have others' users in it, and the way around our own code into it."""

    settings: StoreSettings

    def open(self) -> UserStore:
        """Opens a handle."""
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


class SQLitePeer:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "conformance.db"
        self.settings = StoreSettings(store=f"sqlite:///{self._path}")

    def open(self) -> UserStore:
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


def couchbase_settings(url: str, username: str = "username", password: str = "password") -> StoreSettings:
    return StoreSettings(store=url, couchbase_username=username, couchbase_password=SecretStr(password))


class NodePeer:
    """Our own node, by way of the SDK's sockets."""

    def __init__(self, _folder: Path, nodes: int = 1, collection: str | None = None) -> None:
        self._cluster = TestCluster(nodes)
        self._collection = collection or "_default._default"
        query = ""
        if collection is not None:
            scope, _, name = collection.partition(".")
            self._cluster.add_collection(scope, name)
            query = f"?scope={scope}&collection={name}"
        self.settings = couchbase_settings(f"couchbase://{self._cluster.hosts}/default{query}")

    def open(self) -> UserStore:
        return open_store(self.settings, writable=True)

    def plant(self, key: str, content: bytes) -> None:
        self._cluster.put(key, content, flags=0, collection=self._collection)

    def stored(self, key: str) -> bytes | None:
        document = self._cluster.stored(key, collection=self._collection)
        return document.inflated() if document else None

    def close(self) -> None:
        self._cluster.close()


class _AnyBytes(Transcoder):
    """What other tools write: bytes with flags that say nothing."""

    def encode_value(self, value: bytes) -> tuple[bytes, int]:
        return value, 0

    def decode_value(self, value: bytes, flags: int) -> bytes:
        return value


class SDKPeer:
    """A bucket of a cluster that isn't ours: what a test has stored, and nothing else, is removed after it."""

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        url = CouchbaseURL.parse(settings.store)
        password = settings.couchbase_password.get_secret_value() if settings.couchbase_password else ""
        authenticator = PasswordAuthenticator(settings.couchbase_username, password)
        self._sdk = SDKCluster(url.connection, ClusterOptions(authenticator, transcoder=_AnyBytes()))
        self._collection = self._sdk.bucket(url.bucket).scope(url.scope).collection(url.collection)
        self._keys: set[str] = set()

    def open(self) -> UserStore:
        store = open_store(self.settings, writable=True)
        put = store.put

        def put_and_remember(documents: Sequence[Document], *, timeout: float) -> int:
            self._keys.update(document_key(username) for username, _ in documents)
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


def _mock_peer(_folder: Path) -> Peer:
    return SDKPeer(couchbase_settings(f"couchbase://{shared_mock().host}/default", "default", "any"))


def _cluster_peer(_folder: Path) -> Peer:
    return SDKPeer(
        couchbase_settings(
            os.environ["USERPROFILE_TEST_COUCHBASE"],
            os.environ["USERPROFILE_COUCHBASE_USERNAME"],
            os.environ["USERPROFILE_COUCHBASE_PASSWORD"],
        )
    )


def _peers() -> dict[str, Callable[[Path], Peer]]:
    """The peers of this run: those that Python alone can make, unless the environment names another one."""
    if "USERPROFILE_TEST_COUCHBASE" in os.environ:
        return {"cluster": _cluster_peer}
    if "COUCHBASEMOCK" in os.environ:
        return {"CouchbaseMock": _mock_peer}
    return {
        "sqlite": SQLitePeer,
        "node": NodePeer,
        "three nodes": lambda folder: NodePeer(folder, nodes=3),
        "collection": lambda folder: NodePeer(folder, collection="app.users"),
    }


PEERS = _peers()
