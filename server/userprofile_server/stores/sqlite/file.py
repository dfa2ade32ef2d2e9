"""A database file and all connections of this process to it, which are opened and closed together.

Nothing here opens the file. On POSIX, closing any other descriptor of a file drops every lock that the process holds on
it, SQLite's included (https://www.sqlite.org/howtocorrupt.html, section 2.2). `stat` doesn't.
"""

import logging
import os
import stat
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from userprofile_server.errors import StoreDamagedError, StoreMisconfiguredError, StoreUnavailableError

_log = logging.getLogger(__name__)

_REWRITTEN_SECONDS = 1.0
"""Minimum seconds before a change of the file's content causes a reconnect.

`stat` can't tell a file that was overwritten (`cp`) from one that an import's checkpoint has changed, and a checkpoint
needs no new connection.
"""


class Connected(Protocol):
    """An owner of a connection to the file."""

    def disconnect(self) -> None:
        """Closes the connection. Waits for a statement in progress."""
        ...


class _Inode(NamedTuple):
    device: int
    number: int
    size: int
    modified: int
    """In nanoseconds."""

    def is_same_file(self, other: "_Inode | None") -> bool:
        return other is not None and self[:2] == other[:2]


class _Opened(NamedTuple):
    """The files as they were when the first connection was opened."""

    database: _Inode
    shared_memory: _Inode | None
    log: _Inode | None
    at: float
    """By the monotonic clock."""


class DatabaseFile:
    """The file at a path. If it is replaced, all connections are closed before the first one is opened again.

    A connection to the old file and one to the new file would share the old `-shm` file, and closing the one would
    drop the locks of the other.
    """

    def __init__(self, path: Path) -> None:
        """Use `at`: there is one object for each path."""
        self.path = path
        self._lock = threading.Lock()
        self._connected: weakref.WeakSet[Connected] = weakref.WeakSet()
        self._opened: _Opened | None = None
        self._left: _Opened | None = None
        """The files of the connections that were closed last."""

    @classmethod
    def at(cls, path: Path) -> "DatabaseFile":
        """Returns this process's object for `path`."""
        with _files_lock:
            file = _files.get(path.absolute())
            if file is None:
                file = _files[path.absolute()] = cls(path)
            return file

    @property
    def subject(self) -> str:
        """The path for messages about a missing file, with the target if it is a symbolic link."""
        if not self.path.is_symlink() or self.path.exists():
            return str(self.path)
        return f"{self.path} is a symbolic link to {self.path.readlink()}, which"

    @property
    def size(self) -> int | None:
        """The file's size in bytes, None if there is no such file."""
        inode = _inode(self.path)
        return None if inode is None else inode.size

    @property
    def log_size(self) -> int:
        """The size of the write-ahead log next to it, in bytes."""
        log = self._beside("-wal")
        return 0 if log is None else log.size

    def connect(self, owner: Connected, open_connection: Callable[[], None]) -> None:
        """Opens a connection for `owner`, while no other connection is opened or closed.

        Raises:
            StoreError: `open_connection` raised it; or the file is missing, or was replaced during the opening.
        """
        with self._lock:
            before = _inode(self.path)
            if self._opened is not None and not self._is_unchanged(self._opened, before):
                self._disconnect_all()
            if before is not None and self._opened is None:
                self._refuse_log_of_another(before)
            open_connection()
            after = _inode(self.path)
            if after is None or (before is not None and not after.is_same_file(before)):
                owner.disconnect()
                raise StoreUnavailableError(f"{self.path} was replaced while it was opened")
            if self._opened is None:
                self._opened = _Opened(before or after, self._beside("-shm"), self._beside("-wal"), time.monotonic())
            self._connected.add(owner)

    def look(self, *, immediately: bool = False) -> bool:
        """Checks whether the file was replaced. If so, closes all connections and returns True.

        Changed content counts as a replacement after `_REWRITTEN_SECONDS`, or `immediately`.

        Raises:
            StoreUnavailableError: there is no file.
        """
        opened = self._opened
        if opened is None:
            return True
        now = _inode(self.path)
        if now is None:
            raise StoreUnavailableError(f"{self.subject} is gone: it was moved or removed; waiting until it is back")
        if self._is_unchanged(opened, now):
            settled = not immediately and time.monotonic() - opened.at < _REWRITTEN_SECONDS
            if settled or (now == opened.database and self._has_its_companions(opened)):
                return False
        with self._lock:
            if self._opened is opened:  # otherwise another thread was faster
                self._disconnect_all()
                if not self._is_unchanged(opened, now):
                    _log.warning("%s was replaced: reading the new file", self.path)
                elif not self._has_its_companions(opened):
                    _log.warning("-wal or -shm of %s was removed while in use: opening the file again", self.path)
        return True

    def forget(self, owner: Connected) -> None:
        """Removes `owner`, which has closed its connection for good."""
        with self._lock:
            self._connected.discard(owner)
            if not self._connected:
                self._opened = None

    def _is_unchanged(self, opened: _Opened, now: _Inode | None) -> bool:
        return now is not None and now.is_same_file(opened.database) and (now.size > 0 or opened.database.size == 0)

    def _has_its_companions(self, opened: _Opened) -> bool:
        # In WAL mode both exist from the first read until the last connection is closed.
        pairs = [(opened.shared_memory, "-shm"), (opened.log, "-wal")]
        return all(then is None or then.is_same_file(self._beside(suffix)) for then, suffix in pairs)

    def _disconnect_all(self) -> None:
        for owner in list(self._connected):
            owner.disconnect()
        self._connected.clear()
        self._left, self._opened = self._opened, None

    def _refuse_log_of_another(self, now: _Inode) -> None:
        log = self._beside("-wal")
        if log is None or log.size == 0:
            return
        left = self._left
        replaced = left is not None and not now.is_same_file(left.database) and log.is_same_file(left.log)
        if replaced or now.size == 0:
            what = "was replaced" if replaced else "is empty"
            raise StoreDamagedError(
                f"{self.path} {what}, but {self.path}-wal still holds changes of the file before it, which SQLite would"
                " apply to this one; move it away to use this file as it is",
                permanent=True,
            )

    def _beside(self, suffix: str) -> _Inode | None:
        # SQLite creates them next to the file itself, not next to a link to it.
        return _inode(Path(f"{os.path.realpath(self.path)}{suffix}"))


_files: weakref.WeakValueDictionary[Path, DatabaseFile] = weakref.WeakValueDictionary()
_files_lock = threading.Lock()


def _inode(path: Path) -> _Inode | None:
    try:
        found = os.stat(path)  # noqa: PTH116, a third faster than Path.stat
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        problem = error.strerror
    else:
        if not stat.S_ISREG(found.st_mode):
            raise StoreMisconfiguredError(f"{path} is not a regular file, but {_kind(found.st_mode)}", permanent=True)
        return _Inode(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    raise StoreMisconfiguredError(f"{path} can't be accessed: {problem}", permanent=True)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a device or a socket"
