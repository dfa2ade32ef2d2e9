"""One import run: reads rows, checks them, hashes passwords, and stores the documents in batches."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any, BinaryIO

import argon2

from userprofile.text_input import TextInputError, read_text
from userprofile_server.errors import DocumentsRefusedError
from userprofile_server.importing.errors import RowError, printable
from userprofile_server.importing.json_rows import JSONRows, Row
from userprofile_server.importing.lookalikes import Lookalikes
from userprofile_server.importing.other_systems import FORMATS, check_flags, translate
from userprofile_server.importing.rows import KNOWN_FIELDS, check_type, encode, foreign_secret, to_document
from userprofile_server.stores.base import Document, DocumentStore
from userprofile_server.users.documents import username_of

_BATCH_ROWS = 1000
_BATCH_BYTES = 16 * 1024 * 1024  # so that a batch fits into memory and can be sent within its timeout
_BATCH_SECONDS = 1.0  # hashing is slow: a full batch of passwords would take a minute without progress
_PUT_TIMEOUT = 30.0
_INTERRUPTED_SECONDS = 1.0
"""Seconds that an interrupted run waits for the batch that is being stored, in order to count it."""

_REPORTED_OF_A_KIND = 5
_FIELDS_IN_SUMMARY = 20


class Importer:
    """One import run. `summary` is valid after `run`, even if `run` has raised."""

    def __init__(
        self,
        *,
        report: Callable[[str], None],
        advance: Callable[[int], None],
        dry_run: bool = False,
        format_: str | None = None,
        username_field: str | None = None,
    ) -> None:
        """Prepares a run.

        Args:
            report: Called with a line about each bad row.
            advance: Called with the number of bytes processed since the last call.
            dry_run: Whether to check all rows and store none.
            format_: One of `FORMATS` if another system wrote the rows.
            username_field: The field with the username, if it has another name.
        """
        self.imported = 0
        """Rows that were stored durably; with `dry_run`, rows that could be stored."""
        self.replaced = 0
        """How many of the imported rows replaced an older document."""
        self.rejected = 0
        self.unsure = 0
        """Rows that may or may not be stored: the run was interrupted while the store was writing."""
        self._report = report
        self._advance = advance
        self._dry_run = dry_run
        self._form = FORMATS[format_] if format_ is not None else None
        self._username_field = username_field
        self._translates = format_ is not None or username_field is not None
        self._hash_password: Callable[[str], str] = argon2.PasswordHasher().hash
        if dry_run:
            self._hash_password = lambda _password: "checked only"
        self._problems: Counter[str] = Counter()
        self._other_fields: Counter[str] = Counter()
        self._flags: Counter[str] = Counter()
        self._foreign_secrets: Counter[str] = Counter()
        self._flagged = 0
        self._without_hash = 0
        self._without_hash_in_batch = 0
        self._lookalikes = Lookalikes()
        self._alike = 0

    def run(self, file: BinaryIO, store: DocumentStore | None) -> None:
        """Imports all rows of `file`. `store` may be None in a dry run.

        Raises:
            KeyboardInterrupt: a signal handler raised it; rows counted as imported are stored. If some are `unsure`, a
                thread is still using `store`.
            StoreError: the store failed; rows counted as imported are stored, others may be.
            TextInputError: the file isn't text, or isn't JSON; earlier rows are stored.
            OSError: the file can't be read; earlier rows are stored.
        """
        counted = _CountingReader(file)
        batch: list[tuple[str, Document]] = []
        size = 0
        since = time.monotonic()
        rows = JSONRows(read_text(counted))  # type: ignore[arg-type]
        failure: Exception | None = None
        each = iter(rows)
        while True:
            try:
                row = next(each, None)
            except (TextInputError, OSError) as error:
                failure = error
                break
            if row is None:
                break
            try:
                document = self._read(row, rows)
            except RowError as error:
                self._reject(rows.place, error)
            else:
                batch.append((rows.place, document))
                size += len(document.content)
            if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES or time.monotonic() - since >= _BATCH_SECONDS:
                self._flush(batch, counted.take(), store)
                batch, size, since = [], 0, time.monotonic()
        self._flush(batch, counted.take(), store)
        if failure is not None:
            raise failure

    def summary(self) -> str:
        """Returns a text with the numbers of rows imported, replaced and rejected, and the names of other fields."""
        verb = "could be imported" if self._dry_run else "imported"
        replaced = "" if self._dry_run else f" ({self.replaced} replaced an older one)"
        lines = [f"{_count(self.imported, 'user')} {verb}{replaced}, {_count(self.rejected, 'row')} rejected"]
        if self.unsure:
            lines.append(f"{_count(self.unsure, 'more user')} may or may not be stored: the store was still writing")
        if any(rows > _REPORTED_OF_A_KIND for rows in self._problems.values()):
            lines += [f"rejected: {_count(rows, 'row')}: {kind}" for kind, rows in self._problems.most_common()]
        if self._without_hash:
            lines.append(f"{self._without_hash} without a password hash")
        if self._flagged:
            lines.append(
                f"WARNING: {_count(self._flagged, 'row')} disabled in another system's form, by"
                f" {_names(self._flags)}: `disabled` was NOT set from that, so these users are not disabled here;"
                " --format reads what other systems write"
            )
        if self._foreign_secrets:
            lines.append(
                f"WARNING: what looks like another system's password hash is kept unchanged, and is not this"
                f" user's hashed_password: {_names(self._foreign_secrets)}"
            )
        if self._alike:
            lines.append(
                f"WARNING: {_count(self._alike, 'username')} of this file can't be distinguished from an earlier one by"
                " eye (case, form of letters, spaces, invisible characters); each is a separate user"
            )
        if self._lookalikes.full:
            lines.append("only the first 500000 usernames were checked for lookalikes")
        if self._other_fields:
            lines.append(f"other fields, kept unchanged; check them for typos: {_names(self._other_fields)}")
        return "\n".join(lines)

    def _read(self, row: Row, rows: JSONRows) -> Document:
        value, source, problem = row
        if value is None:
            assert problem is not None
            raise problem
        check_type(value)
        content = encode(source)
        if self._translates:
            value = translate(value, self._form, self._username_field)
            document = to_document(value, None, self._hash_password, foreign_secrets=True)
        else:
            document = to_document(value, content, self._hash_password)
        other_fields = [name for name in value if name not in KNOWN_FIELDS]
        if other_fields:
            if flags := check_flags(value, other_fields):
                self._flagged += 1
                self._flags.update(printable(name) for name in flags)
            self._other_fields.update(map(printable, other_fields))
            if self._translates and (secret := foreign_secret(value)) is not None:
                self._foreign_secrets[printable(secret)] += 1
        if value.get("hashed_password") is None and value.get("password") is None:
            self._without_hash_in_batch += 1
        if (earlier := self._lookalikes.line_of_lookalike(username_of(document.key), rows.line)) is not None:
            self._alike += 1
            if self._alike <= _REPORTED_OF_A_KIND:
                self._report(f"warning: {rows.place}: the username looks like the one on line {earlier}, but differs")
        return document

    def _reject(self, place: str, error: RowError) -> None:
        if (line := self._count_rejected(place, error)) is not None:
            self._report(line)

    def _count_rejected(self, place: str, error: RowError) -> str | None:
        """Counts a rejected row. Returns the line to report, if any."""
        self.rejected += 1
        self._problems[error.kind] += 1
        if (count := self._problems[error.kind]) <= _REPORTED_OF_A_KIND:
            return f"{place}: {error}"
        if count == _REPORTED_OF_A_KIND + 1:
            return f"{place} and later rows of this kind are only counted: {error.kind}"
        return None

    def _flush(self, batch: list[tuple[str, Document]], size: int, store: DocumentStore | None) -> None:
        """Stores the documents, each with the place of its row, and reports those that the store refuses.

        Another thread stores and counts them, because a signal interrupts this thread's wait at once, but not a call
        into a library. And a signal between storing and counting would make the summary wrong.
        """
        storing: Future[list[str]] = Future()
        interrupt: KeyboardInterrupt | None = None
        try:
            threading.Thread(target=self._store, args=[batch, store, storing], name="store", daemon=True).start()
            wait([storing])
        except KeyboardInterrupt as error:
            interrupt = error
            wait([storing], timeout=_INTERRUPTED_SECONDS)
            if storing.cancel():
                self.unsure = len(batch)
                raise
        for line in storing.result():
            self._report(line)
        self._advance(size)
        if interrupt is not None:
            raise interrupt

    def _store(self, batch: list[tuple[str, Document]], store: DocumentStore | None, done: Future[list[str]]) -> None:
        """Stores and counts the documents, unless `done` was cancelled. The result of `done` is the lines to report."""
        replaced = 0
        refused: Mapping[str, str] = {}
        failure: BaseException | None = None
        try:
            if batch and store is not None:
                replaced = store.put([document for _, document in batch], timeout=_PUT_TIMEOUT)
        except DocumentsRefusedError as error:
            replaced, refused = error.replaced, error.reasons
        except BaseException as error:  # noqa: BLE001, raised again in the waiting thread
            failure = error
        if not done.set_running_or_notify_cancel():
            return
        if failure is not None:
            done.set_exception(failure)
            return
        lines = [
            self._count_rejected(place, RowError(refused[document.key]))
            for place, document in batch
            if document.key in refused
        ]
        self.replaced += replaced
        self.imported += sum(document.key not in refused for _, document in batch)
        self._without_hash += self._without_hash_in_batch
        self._without_hash_in_batch = 0
        done.set_result([line for line in lines if line is not None])


class _CountingReader:
    """Wraps a file, and counts the bytes that are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file: Any = file
        self._size = 0

    def read1(self, size: int) -> bytes:
        data: bytes = self._file.read1(size)
        self._size += len(data)
        return data

    def take(self) -> int:
        """Returns the number of bytes that were read since the last call."""
        size, self._size = self._size, 0
        return size


def _names(fields: Counter[str]) -> str:
    names = ", ".join(f"{name} ({_count(rows, 'row')})" for name, rows in fields.most_common(_FIELDS_IN_SUMMARY))
    return names + (", …" if len(fields) > _FIELDS_IN_SUMMARY else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
