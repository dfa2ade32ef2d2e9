"""Values from files that are replaced while in use: renewed tokens and certificates.

No thread watches the files. They are checked when a call begins, so an idle client costs nothing.
"""

import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

LOOK_SECONDS = 1.0
"""Minimum seconds between two checks, and seconds that files must be unmodified before they are read."""

T = TypeVar("T")


class NowAndThen:
    """Rate limiter for checks: tells one thread, once in `LOOK_SECONDS`, to check the files."""

    def __init__(self) -> None:
        """The first check is due after `LOOK_SECONDS`."""
        self._next = time.monotonic() + LOOK_SECONDS
        self._lock = threading.Lock()

    def is_due(self) -> bool:
        """Returns whether to check now. Usually this costs only a reading of the clock."""
        now = time.monotonic()
        if now < self._next:
            return False
        with self._lock:
            if now < self._next:
                return False
            self._next = now + LOOK_SECONDS
            return True


class ChangingFiles(Generic[T]):
    """A value from one or several files. While they are invalid, missing or being written, the last value stays."""

    current: T
    """The last valid value."""

    def __init__(self, paths: Sequence[Path | str], read: Callable[[], T]) -> None:
        """Reads the value, and raises what `read` raises: ValueError or OSError."""
        self._paths = paths
        self._read = read
        self._used = self._look()  # before reading, so that a write during the read counts as a change
        self.current = read()

    def update(self) -> bool:
        """Rereads the files if they have changed. Returns whether `current` has changed."""
        look = self._look()
        if look is None or look == self._used or any(_is_fresh(modified) for *_, modified in look):
            return False
        try:
            value = self._read()
        except (ValueError, OSError):
            return False
        if self._look() != look:  # replaced during the read: perhaps one file is old and another new
            return False
        self._used = look
        changed = value != self.current
        self.current = value
        return changed

    def _look(self) -> list[tuple[int, ...]] | None:
        """Returns the files' state; None if a file is missing, or is a pipe, which can be read only once."""
        look: list[tuple[int, ...]] = []
        for path in self._paths:
            try:
                status = os.stat(path)  # noqa: PTH116, follows links, those of Kubernetes' volumes too
            except OSError:
                return None
            if not stat.S_ISREG(status.st_mode):
                return None
            look.append((status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns, status.st_mtime_ns))
        return look


def _is_fresh(modified_ns: int) -> bool:
    """Whether a file was modified so recently that it may be incomplete."""
    return 0 <= time.time_ns() - modified_ns < LOOK_SECONDS * 1e9
