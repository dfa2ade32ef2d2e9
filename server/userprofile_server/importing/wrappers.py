"""What exports put around a user's document: the bucket's name, the document's key, a list with a name.

An object that has a `username` or a `type` is a row itself, and nothing in it is looked for.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from userprofile_server.importing.errors import RowError
from userprofile_server.models import USERPROFILE_DOC_TYPE

LISTS = ("users", "Users", "results", "Resources")
"""Arrays of rows in one object: Firebase, Keycloak, Auth0; Cognito; the query shell of Couchbase; SCIM."""

_KEY_PREFIX = f"{USERPROFILE_DOC_TYPE}::"

# What stands beside a document where its key or META() was exported with it.
_METADATA = frozenset(
    {"id", "_id", "key", "docid", "cas", "rev", "flags", "expiration", "expiry", "meta", "xattrs", "$1"}
)
_SIGNS_OF_A_PROFILE = ("type", "hashed_password", "password")


def is_list_of_rows(value: dict[str, Any]) -> bool:
    """Whether this object isn't a row but has the rows in an array."""
    return "username" not in value and "type" not in value and any(isinstance(value.get(name), list) for name in LISTS)


def problem_of_list(members: dict[str, Any]) -> str | None:
    """Says why an object with rows, of which these are the other members, may not have all of them."""
    status = members.get("status")
    if isinstance(status, str) and "requestID" in members and status not in ("success", "completed"):
        return "the query that gave these rows did not succeed, so there may be more of them"
    return None


def unwrap(value: dict[str, Any], source: str) -> Iterator[tuple[dict[str, Any] | None, str, RowError | None]]:
    """Yields the documents in `value`, each with its own text; `value` itself if it wraps none."""
    names = [name for name, inner in value.items() if isinstance(inner, dict) and _wraps(name, inner, len(value))]
    others = value.keys() - set(names)
    if not names or not all(_is_metadata(name, value[name]) for name in others):
        yield value, source, None
        return
    if len(names) > 1 and not all(name.startswith(_KEY_PREFIX) for name in names):
        yield None, "", RowError("several documents in one object, and not by their keys")
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
    """Yields the names and the texts of the members of an object, which is known to be JSON."""
    gap = re.compile("[ \t\r\n,:]*")
    decode = json.JSONDecoder().raw_decode
    at = 1
    while source[at := gap.match(source, at).end()] != "}":  # type: ignore[union-attr]
        name, at = decode(source, at)
        start = gap.match(source, at).end()  # type: ignore[union-attr]
        _, at = decode(source, start)
        yield name, source[start:at]
