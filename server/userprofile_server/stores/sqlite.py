"""The embedded store: one SQLite file, no server. Documents are kept as JSON under the keys of every other store."""

import json
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from userprofile_server.documents import document_key, parse_user, user_or_error
from userprofile_server.errors import (
    StoreError,
    StoreMisconfiguredError,
    StoreTimeoutError,
    StoreUnavailableError,
    UserNotFoundError,
)
from userprofile_server.models import User
from userprofile_server.settings import StoreSettings
from userprofile_server.stores.base import Document, Outcome, UserStore
from userprofile_server.stores.sqlite_url import path_of

_log = logging.getLogger(__name__)

K = TypeVar("K")
T = TypeVar("T")

# Both stand in the file's header, so that we neither touch another application's database nor
# misread one that a later version of ours has changed (https://www.sqlite.org/pragma.html).
_APPLICATION_ID = 0x75_70_72_66
_SCHEMA_VERSION = 1
_SCHEMA = "CREATE TABLE userprofiles (key TEXT PRIMARY KEY NOT NULL, document TEXT NOT NULL)"

_OPEN_TIMEOUT = 5.0
_BUSY_PAUSE = 0.002

# By primary result code (https://www.sqlite.org/rescode.html); any other means "try again later".
_MISCONFIGURED = {
    sqlite3.SQLITE_NOTADB: "is not a SQLite database",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_READONLY: "is read-only",
    sqlite3.SQLITE_CANTOPEN: "can't be opened: does its folder exist, and may this user write there?",
    sqlite3.SQLITE_PERM: "can't be opened: this user may not",
    sqlite3.SQLITE_AUTH: "can't be opened: this user may not",
}
_UNAVAILABLE = {
    sqlite3.SQLITE_FULL: "can't grow: the disk is full",
    sqlite3.SQLITE_IOERR: "can't be read or written: the disk reports an error",
}


def open_sqlite(settings: StoreSettings) -> UserStore:
    """Opens `sqlite:///relative.db` or `sqlite:////absolute/path.db`, and makes the file if there is none."""
    return SQLiteUserStore(path_of(settings.store))


class SQLiteUserStore:
    """One connection to one database file, in WAL mode: readers go on reading while an import writes."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file at `path`.

        Raises:
            StoreMisconfiguredError: not a database, another application's, a newer version's, read-only.
            StoreUnavailableError: the disk is full or fails.
            StoreTimeoutError: a writer has kept the file locked for 5 seconds.
        """
        self._path = path
        # The keeper of a handle may probe and close while the worker reads; a connection that is closed
        # in the middle of a statement takes the process with it.
        self._lock = threading.Lock()
        self._connection = self._guard(self._connect)
        try:
            self._guard(lambda: self._retry_while_locked(_OPEN_TIMEOUT, self._prepare))
        except StoreError:
            self._connection.close()
            raise

    def get(self, username: str, *, timeout: float) -> User:
        """See `UserReader.get`."""
        document = self._read(self._select, document_key(username), timeout)
        if document is None:
            raise UserNotFoundError
        return parse_user(username, document)

    def get_many(self, usernames: Sequence[str], *, timeout: float) -> dict[str, Outcome]:
        """See `UserReader.get_many`."""
        outcomes = self._read(self._select_many, {document_key(username): username for username in usernames}, timeout)
        return {username: outcomes.get(username) or UserNotFoundError() for username in usernames}

    def put(self, documents: Sequence[Document], *, timeout: float) -> int:
        """See `UserStore.put`. One transaction: all of the documents are stored, or none is."""
        return self._guard(lambda: self._retry_while_locked(timeout, lambda: self._write(documents)))

    def probe(self, *, timeout: float) -> None:
        """See `UserStore.probe`."""
        self._read(self._select, f"probe::{secrets.token_hex(8)}", timeout)

    def close(self) -> None:
        """See `UserStore.close`. Waits for a statement that is under way."""
        with self._lock:
            self._connection.close()

    def _connect(self) -> sqlite3.Connection:
        with suppress(OSError):  # what is wrong with the path SQLite says better
            # A file of password hashes is nobody else's to read; SQLite gives -wal and -shm the same mode.
            os.close(os.open(self._path, os.O_CREAT | os.O_RDONLY, 0o600))
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self._path))}?mode=rwc",
            uri=True,
            timeout=0,  # waiting for a lock is ours, by each call's own timeout
            isolation_level=None,  # transactions begin where the code says so
            check_same_thread=False,  # opened and closed by one thread, used by another
        )
        connection.text_factory = bytes
        return connection

    def _prepare(self) -> None:
        application_id, version, tables = self._in_transaction(self._describe, begin="BEGIN")
        if not application_id and not tables:
            self._connection.execute("PRAGMA journal_mode = WAL")
            application_id, version, tables = self._in_transaction(self._create)
        if application_id != _APPLICATION_ID:
            raise StoreMisconfiguredError(f"{self._path} is the database of another application", permanent=True)
        if version > _SCHEMA_VERSION:
            raise StoreMisconfiguredError(
                f"{self._path} was made by a newer version of userprofile"
                f" (schema {version}; this version knows {_SCHEMA_VERSION})",
                permanent=True,
            )
        if "userprofiles" not in tables:
            raise StoreMisconfiguredError(f"{self._path} is damaged: its table is missing", permanent=True)

    def _describe(self) -> tuple[int, int, list[str]]:
        tables = [name.decode() for (name,) in self._connection.execute("SELECT name FROM sqlite_master")]
        return self._pragma("application_id"), self._pragma("user_version"), tables

    def _pragma(self, name: str) -> int:
        value: int = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def _create(self) -> tuple[int, int, list[str]]:
        if not self._describe()[2]:  # else another worker was faster
            self._connection.execute(_SCHEMA)
            self._connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            self._connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            _log.info("made a new, empty database: %s", self._path)
        return self._describe()

    def _read(self, select: Callable[[K], T], wanted: K, timeout: float) -> T:
        try:
            return select(wanted)
        except sqlite3.Error:
            # Only a read that failed pays for the guard and for looking at the clock.
            return self._guard(lambda: self._retry_while_locked(timeout, lambda: select(wanted)))

    def _select(self, key: str) -> bytes | None:
        with self._lock:
            row = self._connection.execute("SELECT document FROM userprofiles WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _select_many(self, usernames: Mapping[str, str]) -> dict[str, Outcome]:
        """Takes usernames by key. Each document is let go of before the next one is read: they may be large."""
        # json_each, because a list of placeholders would be another statement for each number of keys.
        with self._lock:
            rows = self._connection.execute(
                "SELECT key, document FROM userprofiles WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(list(usernames)),),
            )
            return {(username := usernames[key.decode()]): user_or_error(username, document) for key, document in rows}

    def _write(self, documents: Sequence[Document]) -> int:
        def write() -> int:
            replaced = 0
            for username, content in documents:
                row = (content.decode(), document_key(username))
                if self._connection.execute("UPDATE userprofiles SET document = ? WHERE key = ?", row).rowcount:
                    replaced += 1
                else:
                    self._connection.execute("INSERT INTO userprofiles (document, key) VALUES (?, ?)", row)
            return replaced

        with self._lock:
            return self._in_transaction(write)

    def _in_transaction(self, work: Callable[[], T], begin: str = "BEGIN IMMEDIATE") -> T:
        self._connection.execute(begin)
        try:
            result = work()
            self._connection.execute("COMMIT")
        except BaseException:  # Ctrl-C too
            if self._connection.in_transaction:  # some errors have rolled back already
                self._connection.execute("ROLLBACK")
            raise
        return result

    @staticmethod
    def _retry_while_locked(timeout: float, attempt: Callable[[], T]) -> T:
        deadline = time.monotonic() + timeout
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if _primary_code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
            left = deadline - time.monotonic()
            if left <= 0:
                raise StoreTimeoutError("another writer has locked the database file")
            time.sleep(min(_BUSY_PAUSE, left))

    def _guard(self, attempt: Callable[[], T]) -> T:
        """Runs `attempt` and turns what SQLite raises into the domain's errors."""
        try:
            return attempt()
        except sqlite3.Error as error:
            code = _primary_code(error)
            name = getattr(error, "sqlite_errorname", type(error).__name__)
            if code in _MISCONFIGURED:
                raise StoreMisconfiguredError(
                    f"{self._path} {_MISCONFIGURED[code]} ({name})", permanent=True
                ) from error
            problem = _UNAVAILABLE.get(code, "can't be used now")
            raise StoreUnavailableError(f"{self._path} {problem} ({name})") from error


def _primary_code(error: sqlite3.Error) -> int:
    # Errors that Python's sqlite3 raises by itself (a closed connection) carry no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
