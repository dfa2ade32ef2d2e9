"""Converts a row into the document to store: checks everything, and hashes the password."""

import difflib
import functools
import json
import re
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from userprofile_server.errors import CorruptDocumentError, InvalidUsernameError, ProfileTooLargeError
from userprofile_server.importing.errors import RowError, printable
from userprofile_server.importing.other_systems import hint_at_format
from userprofile_server.stores.base import MAX_DOCUMENT_BYTES, Document
from userprofile_server.users.documents import describe, document_key, parse_user
from userprofile_server.users.lookup import check_username
from userprofile_server.users.models import USERPROFILE_DOC_TYPE, UserInDB

SECRET_FIELDS = frozenset({"password", "hashed_password"})
KNOWN_FIELDS = frozenset(UserInDB.model_fields) | SECRET_FIELDS

_WORDS_OF_SECRETS = re.compile("pass|pwd|hash|credential|kennwort|crypt|argon|pbkdf")
_TIME = re.compile(r"\d{4}-\d\d-\d\d|\d+$")


def encode(source: str) -> bytes:
    """Returns the bytes of a row. Raises RowError if the row isn't valid UTF-8 in the file."""
    try:
        return source.encode()
    except UnicodeEncodeError:
        pass
    raise RowError("not UTF-8", "; convert the file first, for example with iconv")


def check_type(row: dict[str, Any]) -> None:
    """Raises RowError for a document of another type, of which an export of a whole bucket has many."""
    if row.get("type", USERPROFILE_DOC_TYPE) != USERPROFILE_DOC_TYPE:
        raise RowError("another type of document (type: Input should be 'userprofile')")


def to_document(
    row: dict[str, Any], content: bytes | None, hash_password: Callable[[str], str], *, foreign_secrets: bool = False
) -> Document:
    """Returns the document for a row: `content` byte for byte, if it is given and the row has no password.

    With `foreign_secrets`, a row may have a password hash in another system's field instead of `hashed_password`.

    Raises:
        RowError: the row can't be imported.
    """
    for name in row:
        if name not in KNOWN_FIELDS and (meant := name.strip().casefold()) in SECRET_FIELDS:
            raise RowError(f"a field name is almost {meant}; it would be stored as another field")
    stored = {name: value for name, value in row.items() if name != "password"}
    stored.setdefault("type", USERPROFILE_DOC_TYPE)
    password = row.get("password")
    has_hash = row.get("hashed_password") is not None
    if password is not None:
        if has_hash:
            raise RowError("needs either password or hashed_password, not both")
        if not isinstance(password, str) or not password:
            raise RowError("password: must be a non-empty string")
        stored["hashed_password"] = ""  # hashed last, because hashing is slow and the row may still be rejected
    elif not has_hash and not foreign_secrets and (secret := foreign_secret(row)) is not None:
        raise RowError(f"no hashed_password, but {printable(secret)}, which looks like one; rename or remove it")
    problem = None
    try:
        user = UserInDB.model_validate(stored)
    except ValidationError as error:
        problem = describe(error)
    if problem is not None:
        raise RowError(problem, hint_at_format(row) if "username" not in row else "")
    if user.hashed_password == "" and password is None:
        raise RowError("hashed_password: must not be empty; leave it out for a user without a password")
    try:
        check_username(user.username)
    except InvalidUsernameError as error:
        raise RowError(f"username: {error}") from None
    if password is not None:
        stored["hashed_password"] = _hash(password, hash_password)
    content = _dump(stored) if content is None or "password" in row else _with_type(row, content)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise RowError(f"longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        parse_user(user.username, content)  # store nothing that the server can't read
    except CorruptDocumentError as error:
        raise RowError(str(error)) from None
    except ProfileTooLargeError as error:
        raise RowError(f"the profile is too large: {error}") from None
    return Document(document_key(user.username), content)


def foreign_secret(row: dict[str, Any]) -> str | None:
    """Returns the name of a field that probably contains a password or its hash, None if there is none."""
    for name, value in row.items():
        if name not in KNOWN_FIELDS and _names_a_secret(name) and value and isinstance(value, str | list | dict):
            if isinstance(value, str) and _TIME.match(value):
                continue  # the time when a password was set
            return name
    return None


@functools.lru_cache(maxsize=1024)
def _names_a_secret(name: str) -> bool:
    letters = re.sub("[^a-z]", "", name.casefold())
    close = difflib.get_close_matches(letters, ["hashedpassword", "password"], cutoff=0.75)
    return bool(_WORDS_OF_SECRETS.search(letters) or close or letters in ("pw", "psw", "salt", "secret"))


def _hash(password: str, hash_password: Callable[[str], str]) -> str:
    try:
        return hash_password(password)
    except UnicodeEncodeError:
        pass  # raised below, so that the error doesn't refer to the password
    raise RowError("password: must be valid Unicode")


def _with_type(row: dict[str, Any], content: bytes) -> bytes:
    """Returns the document, unchanged except that a missing type is added."""
    if "type" in row:
        return content
    return content[:-1] + b', "type": "%s"}' % USERPROFILE_DOC_TYPE.encode()


def _dump(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:  # UnicodeEncodeError is one
        pass
    raise RowError("has a text that isn't valid Unicode, or a number out of range")
