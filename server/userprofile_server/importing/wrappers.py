"""Removes the wrappers that exports put around a user's document: the bucket's name, the document's key, a named list.

An object with a `username` or a `type` is a row itself, and isn't searched for wrapped documents.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from userprofile_server.importing.errors import RowError
from userprofile_server.users.models import USERPROFILE_DOC_TYPE

LISTS = ("users", "Users", "results", "Resources")
"""The names of arrays of rows in exports of Firebase, Keycloak, Auth0, Cognito, Couchbase's query shell and SCIM."""

_KEY_PREFIX = f"{USERPROFILE_DOC_TYPE}::"

# The fields next to a document that was exported with its key or META().
_METADATA = frozenset(
    {"id", "_id", "key", "docid", "cas", "rev", "flags", "expiration", "expiry", "meta", "xattrs", "$1"}
)
_SIGNS_OF_A_PROFILE = ("type", "hashed_password", "password")


def is_list_of_rows(value: dict[str, Any]) -> bool:
    """Whether this object contains an array of rows instead of being a row."""
    return "username" not in value and "type" not in value and any(isinstance(value.get(name), list) for name in LISTS)


def problem_of_list(members: dict[str, Any]) -> str | None:
    """Returns why an object may not contain all rows, judging by its other members; None if it may."""
    status = members.get("status")
    if isinstance(status, str) and "requestID" in members and status not in ("success", "completed"):
        return "the query that returned these rows did not succeed, so rows may be missing"
    return None


def unwrap(value: dict[str, Any], source: str) -> Iterator[tuple[dict[str, Any] | None, str, RowError | None]]:
    """Yields the documents in `value`, each with its own text, or `value` itself if it wraps none."""
    names = [name for name, inner in value.items() if isinstance(inner, dict) and _wraps(name, inner, len(value))]
    others = value.keys() - set(names)
    if not names or not all(_is_metadata(name, value[name]) for name in others):
        yield value, source, None
        return
    if len(names) > 1 and not all(name.startswith(_KEY_PREFIX) for name in names):
        yield None, "", RowError("several documents in one object, but not by key")
        return
    for name, text in _members(source):
        if name in names:
            yield value[name], text, None


def _wraps(name: str, inner: dict[str, Any], members: int) -> bool:
    if name.startswith(_KEY_PREFIX):
        return True
    if members > 1 and name.lower() in _METADATA:
        return False
    return inner.get("type") not in (None, USERPROFILE_DOC_TYPE) or (
        "username" in inner and any(sign in inner for sign in _SIGNS_OF_A_PROFILE)
    )


def _is_metadata(name: str, value: Any) -> bool:
    return name.lower() in _METADATA or (isinstance(value, str) and value.startswith(_KEY_PREFIX))


def _members(source: str) -> Iterator[tuple[str, str]]:
    """Yields the name and the text of each member of a valid JSON object."""
    gap = re.compile("[ \t\r\n,:]*")
    decode = json.JSONDecoder().raw_decode
    at = 1
    while source[at := gap.match(source, at).end()] != "}":  # type: ignore[union-attr]
        name, at = decode(source, at)
        start = gap.match(source, at).end()  # type: ignore[union-attr]
        _, at = decode(source, start)
        yield name, source[start:at]
