"""The embedded store: one SQLite file, no server. Documents are stored as JSON under their keys."""

import json
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TypeVar, TypeVarTuple
from urllib.parse import quote

from userprofile_server.errors import (
    StoreDamagedError,
    StoreError,
    StoreMisconfiguredError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from userprofile_server.stores.base import Document, DocumentStore
from userprofile_server.stores.settings import StorageSettings
from userprofile_server.stores.sqlite.file import DatabaseFile
from userprofile_server.stores.sqlite.url import path_of

_log = logging.getLogger(__name__)

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

# Both are in the file's header, so that we neither write to another application's database nor misread the schema of a
# later version of ours (https://www.sqlite.org/pragma.html).
_APPLICATION_ID = 0x75_70_72_66
_SCHEMA_VERSION = 1
_SCHEMA = "CREATE TABLE userprofiles (key TEXT PRIMARY KEY NOT NULL, document TEXT NOT NULL)"

_OPEN_TIMEOUT = 5.0
_BUSY_PAUSE = 0.002
_CHECKPOINT_TIMEOUT = 1.0

_LOOK_SECONDS = 0.01
"""Seconds between two checks that the file at the path is still the opened one."""

_EXAMINE_STEP = 1000
"""Instructions of SQLite's virtual machine between two checks of the time."""

_PROBE_KEYS = 8
"""Number of keys that a probe reads, so that a single damaged page doesn't fail it."""

# By primary result code (https://www.sqlite.org/rescode.html); any other means "try again later".
_MISCONFIGURED = {
    sqlite3.SQLITE_NOTADB: "is not a SQLite database, or its header is damaged",
    sqlite3.SQLITE_READONLY: "is read-only",
    sqlite3.SQLITE_CANTOPEN: "can't be opened: does its folder exist, and may this user read it and write there?",
    sqlite3.SQLITE_PERM: "can't be opened: this user may not",
    sqlite3.SQLITE_AUTH: "can't be opened: this user may not",
}
_UNAVAILABLE = {
    sqlite3.SQLITE_FULL: "can't grow: the disk is full",
    sqlite3.SQLITE_IOERR: "can't be read or written: the disk reports an error",
}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


def open_sqlite(settings: StorageSettings, writable: bool) -> DocumentStore:
    """Opens `sqlite:///relative.db` or `sqlite:////absolute/path.db`; a `writable` one is created if missing."""
    return SQLiteStore(path_of(settings.store.url), writable=writable)


class SQLiteStore:
    """One connection to one database file, in WAL mode: readers can read while an import writes.

    If the file at the path is replaced, the store connects to the new one.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        """Opens the file at `path`; creates it if `writable`.

        Raises:
            StoreMisconfiguredError: not a database, another application's, a newer version's, or not permitted.
            StoreDamagedError: the file is damaged, or empty.
            StoreUnavailableError: there is no such file; the disk is full or fails.
            StoreTimeoutError: a writer has kept the file locked for 5 seconds.
        """
        self._path = path
        self._writable = writable
        self._immutable = False
        self._file = DatabaseFile.at(path)
        # A supervisor may probe and close while a worker reads. Closing a connection during a statement would crash the
        # process.
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._look_at = 0.0
        self._closed = False
        self._connect(create=writable)

    def get(self, key: str, *, timeout: float) -> bytes | None:
        """See `DocumentReader.get`."""
        document = self._read(timeout, self._select, key)
        if document is None and self._file.look():  # if the file was replaced, the new one may have it
            document = self._read(timeout, self._select, key)
        return document

    def get_many(
        self, keys: Sequence[str], parse: Callable[[str, bytes], T], *, timeout: float
    ) -> dict[str, T | StoreError | None]:
        """See `DocumentReader.get_many`."""
        try:
            found = self._read(timeout, self._select_many, keys, parse)
            if len(found) < len(keys) and self._file.look():
                found = self._read(timeout, self._select_many, keys, parse)
        except StoreDamagedError:  # perhaps only the page of one document
            return self._get_each(keys, parse, timeout)
        return {key: found.get(key) for key in keys}

    def put(self, documents: Sequence[Document], *, timeout: float) -> int:
        """See `DocumentStore.put`. One transaction: all of the documents are stored, or none."""

        def attempt() -> int:
            self._connect()
            return self._write(documents)

        return self._guard(lambda: self._retry_while_locked(timeout, attempt))

    def probe(self, *, timeout: float) -> None:
        """See `DocumentStore.probe`."""
        deadline = time.monotonic() + timeout
        damage: StoreDamagedError | None = None
        for _ in range(_PROBE_KEYS):
            try:
                self._read(deadline - time.monotonic(), self._select, f"probe::{secrets.token_hex(8)}")
            except StoreDamagedError as error:
                damage = error
            else:
                return
        assert damage is not None
        raise damage

    def examine(self, *, seconds: float | None) -> Iterator[str]:
        """See `Examinable.examine` and https://www.sqlite.org/pragma.html#pragma_quick_check."""
        problems = self._guard(lambda: self._retry_while_locked(_OPEN_TIMEOUT, lambda: self._quick_check(seconds)))
        if problems is None:
            yield f"no damage found in {seconds:g} s, too short a time to check the whole file"
        elif problems != ["ok"]:
            raise StoreDamagedError(f"{self._path} is damaged: {'; '.join(problems)}")
        else:
            yield "no damage found"

    def disconnect(self) -> None:
        """Closes the connection; the next call opens another. Waits for a statement in progress."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def close(self) -> None:
        """See `DocumentStore.close`. Waits for a statement in progress."""
        if self._writable and not self._closed:
            self._empty_log()
        self._closed = True
        self.disconnect()
        self._file.forget(self)

    def _connect(self, *, create: bool = False) -> None:
        """Opens the connection if there is none."""
        if self._connection is None:
            self._file.connect(self, lambda: self._open(create=create))

    def _open(self, *, create: bool) -> None:
        if self._connection is not None:  # another thread has connected already
            return
        if self._closed:
            raise StoreUnavailableError("this connection is closed")
        size = self._file.size
        if size is None and not create:
            raise StoreUnavailableError(
                f"{self._file.subject} doesn't exist; userprofile-server import creates it", permanent=True
            )
        if size == 0 and not create:
            raise StoreDamagedError(
                f"{self._path} is empty: it was cut off, or userprofile-server import never filled it", permanent=True
            )
        self._immutable = False
        if self._writable:
            with self._private_file() if size is None else nullcontext("") as like:
                self._open_in("mode=rwc" if create else "mode=rw", like)
            return
        try:
            self._open_in("mode=ro")
        except StoreMisconfiguredError:
            if self._file.log_size > 0:
                raise
            # SQLite creates -wal and -shm for a file in WAL mode even to read it. Without permission for that, the file
            # can still be read as immutable; `_read` then checks each time that it hasn't changed.
            self._open_in("mode=ro&immutable=1")
            self._immutable = True
            _log.info("no permission to write to %s: reading it as it is", self._path)

    def _open_in(self, mode: str, like: str = "") -> None:
        """Connects in a mode of https://www.sqlite.org/uri.html; a new file gets the permissions of the one `like`."""
        connection = self._guard(
            lambda: sqlite3.connect(
                f"file:{quote(os.fsencode(self._path))}?{mode}" + (f"&modeof={quote(like)}" if like else ""),
                uri=True,
                timeout=0,  # we wait for locks ourselves, by each call's own timeout
                isolation_level=None,  # transactions begin where the code says so
                check_same_thread=False,  # opened and closed by one thread, used by another
            )
        )
        connection.text_factory = bytes
        try:
            self._guard(lambda: self._retry_while_locked(_OPEN_TIMEOUT, lambda: self._prepare(connection)))
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    @contextmanager
    def _private_file(self) -> Iterator[str]:
        """Yields the name of a file that only this user may read, as required for password hashes.

        SQLite gives -wal and -shm the permissions of the database. Errors of the folder are left to SQLite.
        """
        with ExitStack() as stack:
            try:
                file = stack.enter_context(NamedTemporaryFile(dir=self._path.parent, prefix=".userprofile-"))
            except OSError:
                yield ""
            else:
                yield file.name

    def _get_each(
        self, keys: Sequence[str], parse: Callable[[str, bytes], T], timeout: float
    ) -> dict[str, T | StoreError | None]:
        found: dict[str, T | StoreError | None] = {}
        errors: list[StoreError] = []
        deadline = time.monotonic() + timeout
        for key in keys:
            try:
                document = self.get(key, timeout=max(0.0, deadline - time.monotonic()))
            except StoreError as error:
                errors.append(error.with_traceback(None))
                found[key] = errors[-1]
            else:
                found[key] = None if document is None else parse(key, document)
        if len(errors) == len(keys):
            raise errors[0]
        return found

    def _prepare(self, connection: sqlite3.Connection) -> None:
        application_id, version, tables = _in_transaction(connection, lambda: _describe(connection), begin="BEGIN")
        if self._writable and not application_id and not tables:
            connection.execute("PRAGMA journal_mode = WAL")
            application_id, version, tables = _in_transaction(connection, lambda: self._create(connection))
        if application_id != _APPLICATION_ID:
            raise StoreMisconfiguredError(f"{self._path} is the database of another application", permanent=True)
        if version > _SCHEMA_VERSION:
            raise StoreMisconfiguredError(
                f"{self._path} was made by a newer version of userprofile"
                f" (schema {version}; this version knows {_SCHEMA_VERSION})",
                permanent=True,
            )
        if "userprofiles" not in tables:
            raise StoreDamagedError(f"{self._path} is damaged: its table is missing", permanent=True)
        if self._writable:  # a restored backup may be in another mode, in which a writer blocks readers
            connection.execute("PRAGMA journal_mode = WAL")

    def _create(self, connection: sqlite3.Connection) -> tuple[int, int, list[str]]:
        if not _describe(connection)[2]:  # otherwise another worker has created the table already
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
            _log.info("created a new, empty database: %s", self._path)
        return _describe(connection)

    def _read(self, timeout: float, select: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        now = time.monotonic()
        if now >= self._look_at:
            self._file.look(immediately=self._immutable)
            self._look_at = now if self._immutable else now + _LOOK_SECONDS
        try:
            return select(*arguments)
        except sqlite3.Error:
            # Only a failed read pays for the guard and for reading the clock.
            def attempt() -> T:
                self._connect()
                return select(*arguments)

            return self._guard(lambda: self._retry_while_locked(timeout, attempt))

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise _DisconnectedError
        return self._connection

    def _select(self, key: str) -> bytes | None:
        with self._lock:
            row = self._connected().execute("SELECT document FROM userprofiles WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _select_many(self, keys: Sequence[str], parse: Callable[[str, bytes], T]) -> dict[str, T]:
        """Each document is released before the next one is read: they may be large."""
        # json_each, because placeholders would need a different statement for each number of keys.
        with self._lock:
            rows = self._connected().execute(
                "SELECT key, document FROM userprofiles WHERE key IN (SELECT value FROM json_each(?))",
                (json.dumps(keys),),
            )
            return {(name := key.decode()): parse(name, document) for key, document in rows}

    def _quick_check(self, seconds: float | None) -> list[str] | None:
        """Returns SQLite's findings, None if the time was too short."""
        self._connect()
        with self._lock, ExitStack() as stack:
            connection = self._connected()
            if seconds is not None:
                # SQLite first checks the pages, which only an interrupt ends, then the rows.
                deadline = time.monotonic() + seconds
                timer = threading.Timer(seconds, connection.interrupt)
                timer.start()
                stack.callback(timer.join)
                stack.callback(timer.cancel)
                connection.set_progress_handler(lambda: time.monotonic() >= deadline, _EXAMINE_STEP)
                stack.callback(connection.set_progress_handler, None, 0)
            try:
                # The findings name pages and rows by number, and have no content of a document.
                return [problem.decode() for (problem,) in connection.execute("PRAGMA quick_check(5)")]
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_INTERRUPT:
                    raise
                return None

    def _empty_log(self) -> None:
        """Checkpoints the write-ahead log into the file, so that a copy of the file is complete.

        Readers can prevent it; then the next writer does it.
        """
        with suppress(StoreError):
            self._guard(lambda: self._retry_while_locked(_CHECKPOINT_TIMEOUT, self._checkpoint))

    def _checkpoint(self) -> None:
        with self._lock:
            if self._connection is None:
                return
            ((busy, *_),) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if busy:
            raise _BusyError

    def _write(self, documents: Sequence[Document]) -> int:
        with self._lock:
            connection = self._connected()
            return _in_transaction(connection, lambda: _upsert(connection, documents))

    @staticmethod
    def _retry_while_locked(timeout: float, attempt: Callable[[], T]) -> T:
        deadline = time.monotonic() + timeout
        while True:
            try:
                return attempt()
            except sqlite3.OperationalError as error:
                if _primary_code(error) not in _LOCKED:
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
            if code == sqlite3.SQLITE_CORRUPT:
                raise StoreDamagedError(f"{self._path} is damaged ({name})") from error
            if name == "SQLITE_READONLY_DBMOVED":
                raise StoreUnavailableError(f"{self._path} was moved or replaced while it was written to") from error
            if code in _MISCONFIGURED:
                raise StoreMisconfiguredError(
                    f"{self._file.subject} {_MISCONFIGURED[code]} ({name})", permanent=True
                ) from error
            problem = _UNAVAILABLE.get(code, "can't be used now")
            raise StoreUnavailableError(f"{self._path} {problem} ({name})") from error


class _DisconnectedError(sqlite3.ProgrammingError):
    """Raised when another thread has found that the file was replaced, and has closed this connection."""


class _BusyError(sqlite3.OperationalError):
    """Raised when the result of a checkpoint says that readers block it."""

    sqlite_errorcode = sqlite3.SQLITE_BUSY


def _describe(connection: sqlite3.Connection) -> tuple[int, int, list[str]]:
    tables = [name.decode() for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    return _pragma(connection, "application_id"), _pragma(connection, "user_version"), tables


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _upsert(connection: sqlite3.Connection, documents: Sequence[Document]) -> int:
    replaced = 0
    for key, content in documents:
        row = (content.decode(), key)
        if connection.execute("UPDATE userprofiles SET document = ? WHERE key = ?", row).rowcount:
            replaced += 1
        else:
            connection.execute("INSERT INTO userprofiles (document, key) VALUES (?, ?)", row)
    return replaced


def _in_transaction(connection: sqlite3.Connection, work: Callable[[], T], begin: str = "BEGIN IMMEDIATE") -> T:
    connection.execute(begin)
    try:
        result = work()
        connection.execute("COMMIT")
    except BaseException:  # Ctrl-C too
        if connection.in_transaction:  # SQLite rolls back by itself after some errors
            connection.execute("ROLLBACK")
        raise
    return result


def _primary_code(error: sqlite3.Error) -> int:
    # Errors that Python's sqlite3 raises by itself (a closed connection) carry no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
