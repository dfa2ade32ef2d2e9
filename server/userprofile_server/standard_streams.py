"""Standard input, output and error of a command line, where any of them may be closed, full, or of a poor encoding."""

import errno
import io
import os
import sys
from typing import Any


class OutputError(Exception):
    """Raised by whatever writes to `sys.stdout` when that can't be written. Once: what comes after it is dropped."""

    def __init__(self, error: OSError) -> None:
        """Takes what the system said."""
        super().__init__(f"standard output can't be written: {error.strerror}")
        self.reader_has_left = error.errno == errno.EPIPE
        """Nothing that anybody needs to be told: `… | head -1`."""


def prepare() -> None:
    """Makes the standard streams safe to use.

    - A closed one becomes the null device. Else the next file or socket that is opened would get its number, and
      what is printed. `sys.stdin` and `sys.stdout` stay None.
    - Text that the encoding lacks is written in backslash escapes.
    - Errors of `sys.stderr` are ignored: there is nowhere to tell them. Those of `sys.stdout` are `OutputError`s.
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
            if written is None:  # nobody reads, and whoever shares it with us doesn't want to wait
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
