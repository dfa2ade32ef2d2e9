"""The stores that the conformance suite runs against, each with what a test needs beyond the UserStore interface."""

import sqlite3
from pathlib import Path
from typing import Protocol

from tests.support import open_url
from userprofile_server.stores import UserStore


class Peer(Protocol):
    """One empty store, and the way around our own code into it."""

    url: str

    def open(self) -> UserStore:
        """Opens a handle."""
        ...

    def plant(self, key: str, content: bytes) -> None:
        """Stores any bytes, as another tool might."""
        ...

    def stored(self, key: str) -> bytes | None:
        """Returns the bytes under a key."""
        ...


class SQLitePeer:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "conformance.db"
        self.url = f"sqlite:///{self._path}"

    def open(self) -> UserStore:
        return open_url(self.url)

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
