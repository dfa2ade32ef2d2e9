"""Logs: one line an event on stderr, each with the request id of the call that it belongs to.

Nobody waits for the log. Whoever logs puts a line into a bounded queue, and one thread writes. Where stderr isn't
read, lines are dropped and counted; calls, the drain and the end of the process go on.
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

from userprofile_server.rpc import request_id

QUEUE_BYTES = 1024 * 1024
"""How much text may wait to be written, some ten thousand lines."""

REPEAT_SECONDS = 10.0
"""A kind of event that goes on and on is logged once, and then counted: one line in so many seconds."""

_CLOSE_SECONDS = 2.0
"""How long the end of the process waits for the last lines to be written."""

_STDERR = 2


def configure(level: str) -> "LogWriter":
    """Sends our own logs at `level` and above, the libraries' warnings and all that is printed to stderr there.

    `LogWriter.close` writes what is left. At debug level every event is logged, however often it happens.
    """
    writer = LogWriter()
    handler = _QueueHandler(writer, count_repeats=level != "debug")
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("userprofile_server").setLevel(level.upper())
    logging.getLogger("grpc._cython.cygrpc").addFilter(_holds_no_metadata)
    _never_wait_for_stderr()
    sys.stderr = _Stderr(writer)
    writer.start(handler.tell_repeats)
    return writer


class LogWriter:
    """Writes lines to file descriptor 2 in a thread of its own.

    By `os.write`, without a lock: a thread that is stuck in it holds nothing that Python needs at its end.
    """

    def __init__(self) -> None:
        """Takes lines from now on; `start` begins to write them."""
        # A SimpleQueue can be put into by a destructor or a signal handler that interrupts a put.
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._lock = threading.RLock()  # never held while anything is written
        self._waiting = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def start(self, every_second: Callable[[], None]) -> None:
        """Starts the thread, which also calls `every_second` about once a second."""
        self._thread = threading.Thread(target=self._run, args=[every_second], name="log writer", daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Has `line`, with its newline, written later; or counts it as dropped if too much waits."""
        with self._lock:
            if self._waiting + len(line) > QUEUE_BYTES:
                self._dropped += 1
                return
            if self._dropped:
                self._put(_dropped_lines(self._dropped))
                self._dropped = 0
            self._put(line)

    def close(self, timeout: float = _CLOSE_SECONDS) -> None:
        """Waits until all lines are written, `timeout` seconds at most: perhaps nobody reads them."""
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
        self._tell_dropped()

    def _write(self, line: bytes) -> None:
        written = _write(line)
        with self._lock:
            self._waiting -= len(line)
            self._dropped += not written
        # Told as soon as there is nothing older to tell, or else with the next line, see `put`.
        if written and self._queue.empty():
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        if dropped and not _write(_dropped_lines(dropped)):
            with self._lock:
                self._dropped += dropped


def _write(data: bytes) -> bool:
    """Writes all of `data` to stderr, however long it takes. False if that can't be done."""
    while data:
        try:
            data = data[os.write(_STDERR, data) :]
        except BlockingIOError:
            select.select([], [_STDERR], [], 1)
        except OSError:  # a closed pipe, a full disk
            return False
    return True


def _dropped_lines(count: int) -> bytes:
    lines = "1 log line was" if count == 1 else f"{count} log lines were"
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"{now} WARNING {__name__} [-] {lines} dropped, because standard error was not read\n".encode()


def _never_wait_for_stderr() -> None:
    """Opens what stderr is anew as non-blocking, for those who write there behind our back, like gRPC's C++ code.

    Their lines are lost while nobody reads. Opened anew, because the flag belongs to what is open: set on the one
    that we were given, it would make writes fail in all other processes that share it.
    """
    with suppress(OSError):  # a socket can't be opened so; nor may another user's terminal or pipe
        mode = os.fstat(_STDERR).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            opened = os.open(f"/proc/self/fd/{_STDERR}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            os.dup2(opened, _STDERR)
            os.close(opened)


class _Stderr(io.TextIOBase):
    """What `sys.stderr` is while we serve: lines that others print go the way of the log."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._begun = threading.local()  # of each thread, so that no line has two writers

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(_STDERR)

    def fileno(self) -> int:
        return _STDERR

    def write(self, text: str) -> int:
        complete, newline, begun = (getattr(self._begun, "text", "") + text).rpartition("\n")
        if newline:
            self._writer.put(_encode(complete + newline))
        self._begun.text = begun
        return len(text)


class _QueueHandler(logging.Handler):
    """Formats a record where it is logged, which keeps no reference to anything, and hands the line on."""

    def __init__(self, writer: LogWriter, *, count_repeats: bool) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s [%(request_id)s] %(message)s"))
        self._writer = writer
        self._repeats = _Repeats() if count_repeats else None

    def emit(self, record: logging.LogRecord) -> None:
        if self._repeats is None or self._repeats.is_first(record):
            self._put(record)

    def tell_repeats(self) -> None:
        if self._repeats is not None:
            for record in self._repeats.take():
                self._put(record)

    def _put(self, record: logging.LogRecord) -> None:
        record.request_id = request_id.current.get()
        try:
            self._writer.put(_encode(self.format(record) + "\n"))
        except Exception:  # noqa: BLE001, as all handlers do it: a wrong format mustn't fail a call
            self.handleError(record)


class _Repeats:
    """Knows the kinds of events that were logged within the last `REPEAT_SECONDS`, and counts the rest of them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._known: dict[Hashable, _Counted] = {}

    def is_first(self, record: logging.LogRecord) -> bool:
        """Whether `record` is to be logged. If not, it is counted."""
        kind = _kind(record)
        if kind is None:
            return True
        with self._lock:
            if (counted := self._known.get(kind)) is not None:
                counted.count += 1
                return False
            self._known[kind] = _Counted(record, time.monotonic())
        return True

    def take(self) -> list[logging.LogRecord]:
        """Returns what there is to say now of the kinds that went on, and forgets those that didn't."""
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
    """One kind of events: how many of them were not logged, and since when."""

    def __init__(self, first: logging.LogRecord, since: float) -> None:
        self._name, self._level = first.name, first.levelno
        self._what = getattr(first, "kind", None) or str(first.msg)
        self.since = since
        self.count = 0

    def record(self) -> logging.LogRecord:
        text = f"{self._what}: {self.count} more like this in the last {REPEAT_SECONDS:.0f} s"
        return logging.LogRecord(self._name, self._level, "", 0, text, None, None)


def _kind(record: logging.LogRecord) -> Hashable:
    """Returns what makes a record one of many; None for what is always logged.

    Callers and stores can make these happen as often as they like: an error of a call (`kind`, see
    rpc/error_table.py), an exception, and whatever a library has to say.
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


def _holds_no_metadata(record: logging.LogRecord) -> bool:
    """Keeps what gRPC says of metadata that isn't UTF-8 out of the log: it quotes it, and it may be a token."""
    return not str(record.msg).startswith("Invalid encoding")


def _encode(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
