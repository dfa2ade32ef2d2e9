"""Importing users from JSON lines: each row is checked, its password hashed, and stored in batches."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import argon2
from pydantic import ValidationError

from userprofile_server.documents import MAX_DOCUMENT_BYTES, describe, parse_user
from userprofile_server.errors import (
    CorruptDocumentError,
    DocumentsRefusedError,
    InvalidUsernameError,
    ProfileTooLargeError,
)
from userprofile_server.models import USERPROFILE_DOC_TYPE, UserInDB
from userprofile_server.stores import Document, UserStore
from userprofile_server.users import check_username

_BATCH_ROWS = 1000
_BATCH_BYTES = 16 * 1024 * 1024  # so that a batch fits into memory, and through the network within its time
_BATCH_SECONDS = 1.0  # rows with a password take so long to hash that a full batch would be a silent minute
_PUT_TIMEOUT = 30.0
_SECRET_FIELDS = frozenset({"password", "hashed_password"})
_KNOWN_FIELDS = frozenset(UserInDB.model_fields)


class RowError(Exception):
    """Raised when a row can't be imported. The text says why and holds no value of the row."""


class Import:
    """One run of an import: `run` it, then ask for its `summary`, whatever became of it."""

    def __init__(self, *, report: Callable[[str], None], advance: Callable[[int], None], dry_run: bool = False) -> None:
        """`report` takes a line about each bad row; `advance` the bytes of rows that are dealt with for good."""
        self.imported = 0
        """Rows that are stored durably; with `dry_run`, that could be."""
        self.replaced = 0
        """How many of those took the place of an older document."""
        self.rejected = 0
        self.other_fields: Counter[str] = Counter()
        """Rows by the fields in them that no profile has: kept, and likelier a typo than not."""
        self._report = report
        self._advance = advance
        self._dry_run = dry_run
        self._hash_password: Callable[[str], str] = argon2.PasswordHasher().hash
        if dry_run:
            self._hash_password = lambda _password: "checked only"

    def run(self, lines: Iterable[bytes | None], store: UserStore | None) -> None:
        """Imports all `lines`, None among them standing for one that is too long. `store` may be None in a dry run.

        Raises:
            StoreError: the store failed; rows counted as imported are stored, the others may be.
        """
        batch: list[tuple[int, Document]] = []
        size = 0
        since = time.monotonic()
        for number, line in enumerate(lines, start=1):
            size += len(line or b"")
            try:
                document = self._read(line, first=number == 1)
            except RowError as error:
                self._reject(number, str(error))
            else:
                if document is not None:
                    batch.append((number, document))
            if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES or time.monotonic() - since >= _BATCH_SECONDS:
                self._flush(batch, size, store)
                batch, size, since = [], 0, time.monotonic()
        self._flush(batch, size, store)

    def summary(self) -> str:
        """Says what was imported, replaced, rejected and kept."""
        verb = "could be imported" if self._dry_run else "imported"
        replaced = "" if self._dry_run else f" ({self.replaced} replaced an older one)"
        lines = [f"{_count(self.imported, 'user')} {verb}{replaced}, {_count(self.rejected, 'row')} rejected"]
        if self.other_fields:
            kept = ", ".join(f"{name} ({_count(rows, 'row')})" for name, rows in self.other_fields.most_common(20))
            more = ", …" if len(self.other_fields) > 20 else ""
            lines.append(f"other fields, kept as they stand; check them for typos: {kept}{more}")
        return "\n".join(lines)

    def _read(self, line: bytes | None, *, first: bool) -> Document | None:
        if line is None:
            raise RowError(f"longer than {MAX_DOCUMENT_BYTES} bytes")
        content = (line.removeprefix(b"\xef\xbb\xbf") if first else line).strip()
        if not content:
            return None
        row = _parse_row(content)
        document = _to_document(row, content, self._hash_password)
        self.other_fields.update(repr(name)[1:-1] for name in row if name not in _KNOWN_FIELDS and name != "password")
        return document

    def _flush(self, batch: list[tuple[int, Document]], size: int, store: UserStore | None) -> None:
        """Stores the documents, each with the number of its line, and reports those that the store refuses."""
        refused: Mapping[str, str] = {}
        if batch and store is not None:
            try:
                self.replaced += store.put([document for _, document in batch], timeout=_PUT_TIMEOUT)
            except DocumentsRefusedError as error:
                self.replaced += error.replaced
                refused = error.reasons
        for number, document in batch:
            if document.username in refused:
                self._reject(number, refused[document.username])
            else:
                self.imported += 1
        self._advance(size)

    def _reject(self, number: int, why: str) -> None:
        self.rejected += 1
        self._report(f"line {number}: {why}")


def bounded_lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Yields the lines of `file`, and None for one that is larger than any store takes, without holding it."""
    while line := file.readline(MAX_DOCUMENT_BYTES + 1):
        if len(line) <= MAX_DOCUMENT_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_DOCUMENT_BYTES)
        yield None


def _parse_row(content: bytes) -> dict[str, Any]:
    # Raised outside of the except blocks throughout: the json module's errors hold the whole row.
    problem = None
    row: Any = None
    try:
        row = json.loads(content.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at column {error.colno}"
    except UnicodeDecodeError:
        problem = "not UTF-8"
    except RecursionError:
        problem = "not JSON that can be kept: nested too deeply"
    except ValueError as error:  # one of the two hooks below, or a number of thousands of digits
        problem = f"not JSON that can be kept: {error}"
    if problem is not None:
        raise RowError(problem)
    if not isinstance(row, dict):
        raise RowError("not a JSON object")
    return row


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a field stands there twice")
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _to_document(row: dict[str, Any], content: bytes, hash_password: Callable[[str], str]) -> Document:
    for name in row:
        if (meant := name.strip().casefold()) in _SECRET_FIELDS and name != meant:
            raise RowError(f"a field is named almost like {meant}; it would be kept as it stands")
    stored = {name: value for name, value in row.items() if name != "password"}
    stored.setdefault("type", USERPROFILE_DOC_TYPE)
    password = row.get("password")
    if (password is None) == (row.get("hashed_password") is None):
        raise RowError("needs either password or hashed_password" + (", not both" if password is not None else ""))
    if password is not None:
        if not isinstance(password, str) or not password:
            raise RowError("password: must be a text, and not empty")
        stored["hashed_password"] = ""  # hashed last: it takes long, and the row may still be rejected
    problem = None
    try:
        user = UserInDB.model_validate(stored)
    except ValidationError as error:
        problem = describe(error)
    if problem is not None:
        raise RowError(problem)
    if password is None and not user.hashed_password:
        raise RowError("hashed_password: must not be empty")
    try:
        check_username(user.username)
    except InvalidUsernameError as error:
        raise RowError(f"username: {error}") from None
    if password is not None:
        stored["hashed_password"] = _hash(password, hash_password)
    document = Document(user.username, _dump(stored) if "password" in row else _with_type(row, content))
    if len(document.content) > MAX_DOCUMENT_BYTES:
        raise RowError(f"longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        parse_user(*document)  # what the server couldn't read must not get in
    except CorruptDocumentError as error:
        raise RowError(str(error)) from None
    except ProfileTooLargeError as error:
        raise RowError(f"the profile is too large: {error}") from None
    return document


def _hash(password: str, hash_password: Callable[[str], str]) -> str:
    try:
        return hash_password(password)
    except UnicodeEncodeError:
        pass  # raised below, where the password doesn't hang on the error
    raise RowError("password: must be valid Unicode")


def _with_type(row: dict[str, Any], content: bytes) -> bytes:
    """Returns the document to the byte as it is, but for a type that it lacks."""
    if "type" in row:
        return content
    return content[:-1] + b', "type": "%s"}' % USERPROFILE_DOC_TYPE.encode()


def _dump(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:  # UnicodeEncodeError is one
        pass
    raise RowError("has a text that isn't valid Unicode, or a number out of range")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
