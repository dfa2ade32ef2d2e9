"""Logs: one line per event on stderr, as text or JSON, with the request id of its call.

Logging never blocks: lines go into a bounded queue, and one thread writes them. If nobody reads stderr, lines are
dropped and counted; calls, the drain and the exit of the process go on.
"""

import io
import logging
import os
import select
import stat
import sys
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Literal

from pydantic import Field

from userprofile_server.settings_base import Group
from userprofile_server.telemetry.log_format import Formatter, add_call, formatter

QUEUE_BYTES = 1024 * 1024
"""The maximum size of queued lines, in bytes: about ten thousand lines."""

REPEAT_SECONDS = 10.0
"""A repeated kind of event is logged once and then counted, with one line every so many seconds."""

_MOST_KINDS = 1000
"""The maximum number of kinds with a count of their own: there may be as many as callers. Others share one count."""

_CLOSE_SECONDS = 2.0
"""Seconds that the exit of the process waits for the last lines to be written."""

_STDERR = 2

_writer: "LogWriter | None" = None


class LogSettings(Group):
    """What is logged."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The lowest level that is logged, to stderr. Usernames appear at debug only, hashes never.",
    )
    format: Literal["auto", "text", "json"] = Field(
        default="auto",
        description="The form of log lines: text, or JSON, one object per line. auto: text on a terminal, else JSON.",
    )
    calls: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description=(
            "The fraction of successful calls that are logged, at level info; above 0, failed calls are logged too,"
            " and counted when they repeat. Health checks only if they fail."
        ),
    )


def configure(settings: LogSettings, process: str | None = None) -> "LogWriter":
    """Writes our own logs, the libraries' warnings and everything printed to `sys.stderr` to stderr.

    `LogWriter.close` writes the rest. At debug level every event is logged, however often it happens. `process` is this
    process's name, for each line, if several processes share one log.
    """
    global _writer
    writer = _writer = LogWriter(formatter(settings.format, process, on_terminal=os.isatty(_STDERR)))
    handler = _QueueHandler(writer, count_repeats=settings.level != "debug")
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("userprofile_server").setLevel(settings.level.upper())
    # It logs each metadata value that isn't UTF-8, with the value, which may be a token. A filter would still leave the
    # cost of a log record, on gRPC's own thread, for each of the hundreds of values that a call may have.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
    _never_wait_for_stderr()
    sys.stderr = _Stderr(writer)
    writer.start(handler.report_repeats)
    return writer


def lines_dropped() -> int:
    """Returns how many lines this process has lost, because nobody read stderr."""
    return _writer.dropped if _writer is not None else 0


class LogWriter:
    """Writes lines to file descriptor 2, on its own thread.

    Uses `os.write`, without a lock: a thread that is stuck in it holds nothing that Python needs to exit.
    """

    def __init__(self, formatter: Formatter) -> None:
        """Accepts lines from now on; `start` begins to write them. `formatter` makes those of records."""
        self.formatter = formatter
        # SimpleQueue.put is reentrant: a destructor or a signal handler may call it during another put.
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._lock = threading.RLock()  # never held during a write
        self._waiting = 0
        self._dropped = 0
        self.dropped = 0
        """Lines that were lost since the start."""
        self._cut_off = False  # the last line, in its middle
        self._thread: threading.Thread | None = None

    def start(self, every_second: Callable[[], None]) -> None:
        """Starts the thread, which also calls `every_second` about once a second."""
        self._thread = threading.Thread(target=self._run, args=[every_second], name="log writer", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Queues `line`, which ends with a newline. Drops and counts it if the queue is full."""
        with self._lock:
            if self._waiting + len(line) > QUEUE_BYTES:
                self._dropped += 1
                self.dropped += 1
                return
            if self._dropped:
                self._put(self._dropped_lines(self._dropped))
                self._dropped = 0
            self._put(line)

    def close(self, timeout: float = _CLOSE_SECONDS) -> None:
        """Waits until all lines are written, at most `timeout` seconds, because perhaps nobody reads them."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(timeout)

    def _put(self, line: bytes) -> None:
        self._waiting += len(line)
        self._queue.put(line)

    def _run(self, every_second: Callable[[], None]) -> None:
        next_look = time.monotonic() + 1
        while True:
            try:
                line = self._queue.get(timeout=max(0, next_look - time.monotonic()))
            except Empty:
                line = b""
            if line is None:
                break
            if line:
                self._write(line)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + 1
                every_second()
        self._report_dropped()

    def _write(self, line: bytes) -> None:
        written = self._send(line)
        with self._lock:
            self._waiting -= len(line)
            self._dropped += not written
            self.dropped += not written
        # Reported when the queue is empty, otherwise before the next line; see `put`.
        if written and self._queue.empty():
            self._report_dropped()

    def _report_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped and not self._send(self._dropped_lines(dropped)):
            with self._lock:
                self._dropped += dropped

    def _send(self, line: bytes) -> bool:
        """Writes a line, on a new one if the last was cut off. Returns False if it can't be written as a whole."""
        data = b"\n" + line if self._cut_off else line
        rest = _write(data)
        self._cut_off = bool(rest) and (self._cut_off or len(rest) < len(data))
        return not rest

    def _dropped_lines(self, count: int) -> bytes:
        lines = "1 log line was" if count == 1 else f"{count} log lines were"
        text = f"{lines} dropped, because standard error was not read"
        record = logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None)
        record.request_id = "-"  # whichever call's thread notices it
        return _encode(self.formatter.format(record) + "\n")


def _write(data: bytes) -> bytes:
    """Writes all of `data` to stderr, however long it takes. Returns the rest if that fails."""
    while data:
        try:
            data = data[os.write(_STDERR, data) :]
        except BlockingIOError:
            select.select([], [_STDERR], [], 1)
        except OSError:  # a closed pipe, a full disk
            break
    return data


def _never_wait_for_stderr() -> None:
    """Reopens stderr as non-blocking, so that code that writes to it directly, such as gRPC's C++ code, never blocks.

    Its lines are lost while nobody reads. The file is reopened because the flag belongs to the open file description:
    on the inherited one, it would make writes fail in all other processes that share it.
    """
    with suppress(OSError):  # a socket can't be reopened, and another user's terminal or pipe may not be
        mode = os.fstat(_STDERR).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            opened = os.open(f"/proc/self/fd/{_STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            os.dup2(opened, _STDERR)
            os.close(opened)


class _Stderr(io.TextIOBase):
    """Replaces `sys.stderr`: printed lines go through the log's queue."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._begun = threading.local()  # per thread, so that threads don't mix their lines

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(_STDERR)

    def fileno(self) -> int:
        return _STDERR

    def write(self, text: str) -> int:
        complete, newline, begun = (getattr(self._begun, "text", "") + text).rpartition("\n")
        if newline:
            self._writer.put(_encode(self._writer.formatter.printed(complete + newline)))
        self._begun.text = begun
        return len(text)


class _QueueHandler(logging.Handler):
    """Formats records on the logging thread, so that no object is kept alive, and queues the lines."""

    def __init__(self, writer: LogWriter, *, count_repeats: bool) -> None:
        super().__init__()
        self.setFormatter(writer.formatter)
        self._writer = writer
        self._repeats = _Repeats() if count_repeats else None

    def emit(self, record: logging.LogRecord) -> None:
        if self._repeats is None or self._repeats.is_first(record):
            self._put(record)

    def report_repeats(self) -> None:
        if self._repeats is not None:
            for record in self._repeats.take():
                self._put(record)

    def _put(self, record: logging.LogRecord) -> None:
        add_call(record)
        try:
            self._writer.put(_encode(self.format(record) + "\n"))
        except Exception:  # noqa: BLE001, like logging's own handlers: a wrong format mustn't fail a call
            self.handleError(record)


class _Repeats:
    """The kinds of events that were logged in the last `REPEAT_SECONDS`, each with a count of its repeats."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._known: dict[Hashable, _Counted] = {}

    def is_first(self, record: logging.LogRecord) -> bool:
        """Returns whether to log `record`. If not, counts it."""
        kind = _kind(record)
        if kind is None:
            return True
        what = getattr(record, "kind", None) or str(record.msg)
        with self._lock:
            if len(self._known) >= _MOST_KINDS and kind not in self._known:
                kind, what = record.name, "others"
            if (counted := self._known.get(kind)) is not None:
                counted.count += 1
                return False
            self._known[kind] = _Counted(record, what, time.monotonic())
        return True

    def take(self) -> list[logging.LogRecord]:
        """Returns the due records about kinds with repeats, and forgets kinds without."""
        now = time.monotonic()
        records = []
        with self._lock:
            for kind, counted in list(self._known.items()):
                if now - counted.since < REPEAT_SECONDS:
                    continue
                if counted.count:
                    records.append(counted.record())
                    counted.since, counted.count = now, 0
                else:
                    del self._known[kind]
        return records


class _Counted:
    """One kind of event: how many were not logged, and since when."""

    def __init__(self, first: logging.LogRecord, what: str, since: float) -> None:
        self._name, self._level = first.name, first.levelno
        self._what = what
        self.since = since
        self.count = 0

    def record(self) -> logging.LogRecord:
        text = f"{self._what}: {self.count} more like this in the last {REPEAT_SECONDS:.0f} s"
        return logging.LogRecord(self._name, self._level, "", 0, text, None, None)


def _kind(record: logging.LogRecord) -> Hashable:
    """Returns the key by which repeats are counted; None for a record that is always logged.

    Counted are events that callers and stores can cause at any rate: errors of calls (`kind`, see
    rpc/stages/error_boundary.py), exceptions, and messages of libraries.
    """
    kind = getattr(record, "kind", None)
    place = None
    if record.exc_info and (error := record.exc_info[1]) is not None:
        frames = error.__traceback__
        while frames is not None and frames.tb_next is not None:
            frames = frames.tb_next
        place = (type(error), frames and (frames.tb_frame.f_code.co_filename, frames.tb_lineno))
    if kind is None and place is None and record.name.startswith("userprofile_server"):
        return None
    return record.name, record.lineno, kind, place


def _encode(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
