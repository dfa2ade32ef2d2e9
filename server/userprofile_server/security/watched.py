"""Values from files that are reread when the files change: tokens, policies, keys, certificates."""

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")

_INTERVAL = 1.0

_PATIENCE = 3.0
"""Seconds that files may be invalid before that is logged: a pair of files is written one after the other."""

_RETRY_SECONDS = 10.0
"""Seconds between two reads of invalid files that haven't changed: a certificate that isn't valid yet becomes valid."""

_MOST_CHANGES = 5
"""Checks in a row that may find the files changed. More look as if somebody rewrites them all the time."""

_Look = tuple[object, ...]
"""The state of the files; a different one means that they have changed."""


class Watched(Generic[T]):
    """A value from one or several files. While the files are invalid or missing, the last valid value stays."""

    current: T
    """The value, replaced as a whole. Read it once for each use, without a lock."""

    def __init__(
        self,
        what: str,
        files: Sequence[Path],
        read: Callable[[], T],
        on_change: Callable[[T], None] = lambda _value: None,
        on_read: Callable[[bool], None] = lambda _valid: None,
    ) -> None:
        """Reads the value. Use `Watcher.watch` for a value that is kept up to date.

        Args:
            what: The value's name in the log.
            files: All files that `read` reads. Symbolic links are followed anew each time.
            read: Returns the value, or raises ValueError or OSError. Equal values count as unchanged.
            on_change: Called on the watcher's thread with each new value, after it has become `current`.
            on_read: Called on that thread whenever changed files were read, with whether they were valid.

        Raises:
            ValueError: the files can't be read or are invalid. The text is for operators and names the path.
        """
        self._what = what
        self._files = files
        self.file = files[0]
        self._read = read
        self._on_change = on_change
        self._on_read = on_read
        self._seen = self._look()  # before reading, so that a write during the read counts as a change
        self._used = self._seen
        self._changes = 0  # checks in a row that have found the files changed
        self._wrong_since: float | None = None
        self._problem = ""
        self._retry_at = 0.0
        self._said = False
        self.current = self._checked_read()

    @property
    def valid(self) -> bool:
        """False while a former value stays in use, because the files are invalid or can't be read."""
        return self._wrong_since is None

    def check(self) -> None:
        """Rereads the files if they have changed, and were the same at two checks in a row. Never raises.

        So a file that is rewritten in place isn't read while it is being written.
        """
        look = self._look()
        settled, self._seen = look == self._seen, look
        self._changes = 0 if settled else self._changes + 1
        now = time.monotonic()
        if self._changes == _MOST_CHANGES:
            self._is_wrong("changes all the time, and is read only once it hasn't changed for a second")
        if settled and (look != self._used or (self._wrong_since is not None and now >= self._retry_at)):
            self._used = look
            self._retry_at = now + _RETRY_SECONDS
            self._update()
        if self._wrong_since is not None and not self._said and now - self._wrong_since >= _PATIENCE:
            self._said = True
            _log.error("%s: what was read before stays in use: %s", self._what, self._problem)

    def _update(self) -> None:
        try:
            value = self._checked_read()
        except Exception as error:  # noqa: BLE001, the thread has other values to watch
            self._is_wrong(str(error) if isinstance(error, ValueError) else type(error).__name__)
            return
        self._wrong_since = None
        changed = value != self.current
        if changed:
            self.current = value
        if changed or self._said:
            _log.info("%s: read again, and in use", self._what)
        self._said = False
        if changed:
            self._on_read(True)
            try:
                self._on_change(value)
            except Exception:  # noqa: BLE001, a bug, and the thread has other values to watch
                _log.exception("%s: what follows from the change failed", self._what)

    def _is_wrong(self, problem: str) -> None:
        self._problem = problem
        if self._wrong_since is None:
            self._wrong_since = time.monotonic()
            self._on_read(False)

    def _checked_read(self) -> T:
        try:
            for path in self._files:
                mode = path.stat().st_mode
                if not stat.S_ISREG(mode):  # reading might block forever, and work only once
                    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device, not a file"
                    raise ValueError(f"{path} is {kind}")
            return self._read()
        except OSError as error:
            problem = f"{error.filename or self._files[0]} can't be read: {error.strerror or type(error).__name__}"
        raise ValueError(problem)

    def _look(self) -> _Look:
        return tuple(_look_at(path) for path in self._files)


def _look_at(path: Path) -> object:
    try:
        found = os.stat(path)  # noqa: PTH116, follows links, those of Kubernetes' volumes too
    except OSError as error:
        return error.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Watcher:
    """One thread that checks all watched values of a process."""

    def __init__(
        self, interval: float = _INTERVAL, *, on_read: Callable[[Path, bool], None] = lambda _file, _valid: None
    ) -> None:
        """`interval` is the seconds between two checks; a change takes effect after two. Call `start`.

        `on_read` is called on the thread whenever changed files were read, with the first of them and whether they
        were valid.
        """
        self._interval = interval
        self._on_read = on_read
        self._watched: list[Watched[Any]] = []
        self._also: list[Callable[[], None]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="file watcher", daemon=True)

    def watch(
        self,
        what: str,
        files: Sequence[Path],
        read: Callable[[], T],
        on_change: Callable[[T], None] = lambda _value: None,
    ) -> Watched[T]:
        """Reads a value, and rereads it whenever its files change. For arguments and errors see `Watched`."""
        watched = Watched(what, files, read, on_change, lambda valid: self._on_read(files[0], valid))
        self._watched.append(watched)
        return watched

    def valid(self) -> list[tuple[Path, bool]]:
        """Returns the first file of each watched value, and whether the files are valid."""
        return [(watched.file, watched.valid) for watched in self._watched]

    def each_time(self, call: Callable[[], None]) -> None:
        """Calls `call` after each check. It must return quickly."""
        self._also.append(call)

    def start(self) -> None:
        """Starts the thread if there are values to watch; add them first."""
        if self._watched:
            self._thread.start()

    def stop(self) -> None:
        """Stops checking."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            for watched in self._watched:
                watched.check()
            for call in self._also:
                call()
