"""The stores that the conformance suite runs against, each with what a test needs beyond the UserStore interface."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from tests.couchbase_node import TestCluster
from userprofile_server.settings import StoreSettings
from userprofile_server.stores import UserStore, open_store


class Peer(Protocol):
    """One empty store, and the way around our own code into it."""

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
        return open_store(self.settings)

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
        return open_store(self.settings)

    def plant(self, key: str, content: bytes) -> None:
        self._cluster.put(key, content, flags=0, collection=self._collection)

    def stored(self, key: str) -> bytes | None:
        document = self._cluster.stored(key, collection=self._collection)
        return document.value if document else None

    def close(self) -> None:
        self._cluster.close()


PEERS: dict[str, Callable[[Path], Peer]] = {
    "sqlite": SQLitePeer,
    "node": NodePeer,
    "three nodes": lambda folder: NodePeer(folder, nodes=3),
    "collection": lambda folder: NodePeer(folder, collection="app.users"),
}
