"""Standard input, output and error of a command, any of which may be closed, full, or have a limited encoding."""

import errno
import io
import os
import sys
from typing import Any


class OutputError(Exception):
    """Raised once, by the write, if `sys.stdout` can't be written. Later output is dropped."""

    def __init__(self, error: OSError) -> None:
        """`error` is the system's error."""
        super().__init__(f"standard output can't be written: {error.strerror}")
        self.reader_has_left = error.errno == errno.EPIPE
        """Not worth an error message: `… | head -1`."""


def prepare() -> None:
    """Makes the standard streams safe to use.

    - A closed stream becomes the null device. Otherwise the next file or socket would get its descriptor, and the
      printed text. `sys.stdin` and `sys.stdout` stay None.
    - Characters that the encoding lacks are written as backslash escapes.
    - Errors of `sys.stderr` are ignored: there is nowhere to report them. Errors of `sys.stdout` raise `OutputError`.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    if sys.stdout is not None:
        sys.stdout = _text(_Stdout(1, "w", closefd=False), sys.stdout.encoding)
    sys.stderr = _text(_Stderr(2, "w", closefd=False), sys.stderr.encoding if sys.stderr is not None else "utf-8")


def _text(raw: io.FileIO, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty() or raw.fileno() == 2,
    )


class _Stdout(io.FileIO):
    _failed = False

    def write(self, data: Any, /) -> int:
        if self._failed:
            return len(data)
        try:
            written = super().write(data)
            if written is None:  # nobody reads, and another process has made the shared pipe non-blocking
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError as error:
            self._failed = True
            raise OutputError(error) from None
        return written


class _Stderr(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)
