"""One run of an import: rows are read, checked, their passwords hashed, and stored in batches."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import argon2

from userprofile.text_input import TextInputError, read_text
from userprofile_server.errors import DocumentsRefusedError
from userprofile_server.importing.errors import RowError, printable
from userprofile_server.importing.json_rows import JSONRows, Row
from userprofile_server.importing.lookalikes import Lookalikes
from userprofile_server.importing.other_systems import FORMATS, check_flags, translate
from userprofile_server.importing.rows import KNOWN_FIELDS, check_type, encode, foreign_secret, to_document
from userprofile_server.stores import Document, UserStore

_BATCH_ROWS = 1000
_BATCH_BYTES = 16 * 1024 * 1024  # so that a batch fits into memory, and through the network within its time
_BATCH_SECONDS = 1.0  # rows with a password take so long to hash that a full batch would be a silent minute
_PUT_TIMEOUT = 30.0

_REPORTED_OF_A_KIND = 5
_FIELDS_IN_SUMMARY = 20


class Importer:
    """One run of an import: `run` it, then ask for its `summary`, whatever became of it."""

    def __init__(
        self,
        *,
        report: Callable[[str], None],
        advance: Callable[[int], None],
        dry_run: bool = False,
        format_: str | None = None,
        username_field: str | None = None,
    ) -> None:
        """`report` takes a line about each bad row; `advance` the bytes of the file that are dealt with for good.

        `format_` is one of `FORMATS` if another system wrote the rows, `username_field` where their usernames are.
        """
        self.imported = 0
        """Rows that are stored durably; with `dry_run`, that could be."""
        self.replaced = 0
        """How many of those took the place of an older document."""
        self.rejected = 0
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

    def run(self, file: BinaryIO, store: UserStore | None) -> None:
        """Imports all rows of `file`. `store` may be None in a dry run.

        Raises:
            StoreError: the store failed; rows counted as imported are stored, the others may be.
            TextInputError: the file isn't text, or no JSON at all; the rows before are stored.
            OSError: the file can't be read; the rows before are stored.
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
        """Says what was imported, replaced, rejected and kept."""
        verb = "could be imported" if self._dry_run else "imported"
        replaced = "" if self._dry_run else f" ({self.replaced} replaced an older one)"
        lines = [f"{_count(self.imported, 'user')} {verb}{replaced}, {_count(self.rejected, 'row')} rejected"]
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
                f"WARNING: what looks like another system's password hash is kept as it stands, and is not this"
                f" user's hashed_password: {_names(self._foreign_secrets)}"
            )
        if self._alike:
            lines.append(
                f"WARNING: {_count(self._alike, 'username')} of this file can't be told from an earlier one by eye"
                " (case, form of letters, spaces, invisible characters); each is a user of its own"
            )
        if self._lookalikes.full:
            lines.append("usernames that look alike were sought among the first 500000 only")
        if self._other_fields:
            lines.append(f"other fields, kept as they stand; check them for typos: {_names(self._other_fields)}")
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
        if (earlier := self._lookalikes.line_of_lookalike(document.username, rows.line)) is not None:
            self._alike += 1
            if self._alike <= _REPORTED_OF_A_KIND:
                self._report(f"warning: {rows.place}: the username looks like that on line {earlier}, but differs")
        return document

    def _reject(self, place: str, error: RowError) -> None:
        self.rejected += 1
        self._problems[error.kind] += 1
        if (count := self._problems[error.kind]) <= _REPORTED_OF_A_KIND:
            self._report(f"{place}: {error}")
        elif count == _REPORTED_OF_A_KIND + 1:
            self._report(f"{place} and later rows of this kind are only counted: {error.kind}")

    def _flush(self, batch: list[tuple[str, Document]], size: int, store: UserStore | None) -> None:
        """Stores the documents, each with the place of its row, and reports those that the store refuses."""
        refused: Mapping[str, str] = {}
        if batch and store is not None:
            try:
                self.replaced += store.put([document for _, document in batch], timeout=_PUT_TIMEOUT)
            except DocumentsRefusedError as error:
                self.replaced += error.replaced
                refused = error.reasons
        for place, document in batch:
            if document.username in refused:
                self._reject(place, RowError(refused[document.username]))
            else:
                self.imported += 1
        self._without_hash += self._without_hash_in_batch
        self._without_hash_in_batch = 0
        self._advance(size)


class _CountingReader:
    """A file that counts what was read of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file: Any = file
        self._size = 0

    def read1(self, size: int) -> bytes:
        data: bytes = self._file.read1(size)
        self._size += len(data)
        return data

    def take(self) -> int:
        """Returns how many bytes were read since it was last asked."""
        size, self._size = self._size, 0
        return size


def _names(fields: Counter[str]) -> str:
    names = ", ".join(f"{name} ({_count(rows, 'row')})" for name, rows in fields.most_common(_FIELDS_IN_SUMMARY))
    return names + (", …" if len(fields) > _FIELDS_IN_SUMMARY else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
