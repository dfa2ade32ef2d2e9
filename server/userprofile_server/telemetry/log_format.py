"""The two forms of log lines: text for people, JSON for programs."""

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from userprofile.printable import printable
from userprofile_server.telemetry import call

_TEXT = "%(asctime)s %(levelname)-7s {process}%(name)s [%(request_id)s] %(message)s"

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def add_call(record: logging.LogRecord) -> None:
    """Adds what both forms say of the call: the record's own (`extra={"call": …}`), or that of the context."""
    current = getattr(record, "call", None) or call.current.get()
    record.request_id, record.trace_id = current.request_id, current.trace_id


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Returns the fields that the event itself has (`extra={"fields": …}`)."""
    return getattr(record, "fields", {})


class TextFormatter(logging.Formatter):
    """One line, with the fields after the message as `key=value`, and a traceback below it."""

    def __init__(self, process: str | None = None) -> None:
        """`process` is this process's name, for each line, if several share one log."""
        super().__init__(_TEXT.format(process=f"[{process}] " if process else ""))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, logging's own name
        """Appends the fields."""
        record.message = printable(record.message)  # a library's may have several lines
        line = super().formatMessage(record)
        fields = dict(fields_of(record))
        if (trace_id := getattr(record, "trace_id", None)) is not None:
            fields["trace_id"] = trace_id
        return line + "".join(f" {key}={_value(value)}" for key, value in fields.items())

    def printed(self, text: str) -> str:
        """Returns the lines for complete lines that were printed to `sys.stderr`."""
        return text


class JsonFormatter(logging.Formatter):
    """One object on one line (docs/debugging.md)."""

    def __init__(self, process: str | None = None) -> None:
        """`process` is this process's name, by default its process id."""
        super().__init__()
        self._process = process or f"pid {os.getpid()}"

    def format(self, record: logging.LogRecord) -> str:
        """Returns the object."""
        event = {
            "time": _rfc3339(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": self._process,
        }
        if (request_id := getattr(record, "request_id", "-")) != "-":
            event["request_id"] = request_id
        if (trace_id := getattr(record, "trace_id", None)) is not None:
            event["trace_id"] = trace_id
        event.update(fields_of(record))
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return _to_json(event)

    def printed(self, text: str) -> str:
        """Returns an object for each of the lines that were printed to `sys.stderr`, such as a traceback's."""
        records = (logging.LogRecord("stderr", logging.ERROR, "", 0, "%s", (line,), None) for line in text.splitlines())
        return "".join(self.format(record) + "\n" for record in records)


Formatter = TextFormatter | JsonFormatter


def formatter(form: str, process: str | None, *, on_terminal: bool) -> Formatter:
    """Returns the formatter for the setting `log.format`; see the classes."""
    as_text = form == "text" or (form == "auto" and on_terminal)
    return TextFormatter(process) if as_text else JsonFormatter(process)


def _rfc3339(seconds: float) -> str:
    """Returns Unix time in UTC, to the millisecond: 2026-11-25T06:10:00.123Z."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03}Z"


def _value(value: object) -> str:
    """Returns `value` as text; in quotes if it could be taken for something else, such as another field."""
    text = str(value)
    return text if text.isprintable() and text and not set(text) & set(' "=') else _to_json(text)
