"""Documents: the key of a user, and parsing a document's bytes into the public `User`.

The layout is that of the FastAPI + Couchbase tutorial, so that its data works unchanged.
"""

import logging
from typing import Literal

from pydantic import ValidationError

from userprofile_server.errors import CorruptDocumentError, ProfileTooLargeError
from userprofile_server.stores.base import MAX_KEY_BYTES
from userprofile_server.users.models import USERPROFILE_DOC_TYPE, User

_log = logging.getLogger(__name__)

_KEY_PREFIX = f"{USERPROFILE_DOC_TYPE}::"
_PREFIX_LENGTH = len(_KEY_PREFIX)

MAX_USERNAME_BYTES = MAX_KEY_BYTES - _PREFIX_LENGTH

MAX_PUBLIC_BYTES = 32 * 1024
"""The maximum size of a profile's public strings together, in bytes of UTF-8. A hundred such profiles fit into the
4 MiB that every gRPC client accepts by default. Other fields of a document have no such limit."""


class _PublicFields(User):
    """The part of a document that the read path parses: the public fields, and the type, which it checks."""

    type: Literal["userprofile"] | None = None


def document_key(username: str) -> str:
    """Returns the key under which every store keeps the user's document."""
    return _KEY_PREFIX + username


def username_of(key: str) -> str:
    """Returns the username of a `document_key`."""
    return key[_PREFIX_LENGTH:]


def parse_user(username: str, document: bytes) -> User:
    """Returns the public profile in `document`, which was stored under the key of `username`.

    The hash never becomes a Python object here: the model has no field for it.

    Raises:
        CorruptDocumentError: the document isn't a JSON object, has a field of a wrong type, another `type` than a user
            profile's, or another username than its key.
        ProfileTooLargeError: the public part is larger than MAX_PUBLIC_BYTES.
    """
    try:
        user = _PublicFields.model_validate_json(document)
    except ValidationError as error:
        problem = describe(error)
    else:
        if user.username == username:
            # A document is at least as long as its strings, so for most documents this is one comparison.
            if len(document) > MAX_PUBLIC_BYTES and (size := _public_bytes(user)) > MAX_PUBLIC_BYTES:
                raise ProfileTooLargeError(f"its string fields have {size} bytes, the limit is {MAX_PUBLIC_BYTES}")
            return user
        problem = "username: differs from the document's key"
    # Raised outside the except block, because pydantic's error contains the document with its hash, and Python would
    # attach it to ours as __context__.
    _log.debug("the document of %r is corrupt: %s", username, problem)
    raise CorruptDocumentError(problem)


def _public_bytes(user: User) -> int:
    values = (getattr(user, name) for name in User.model_fields)
    return sum(len(value.encode()) for value in values if isinstance(value, str))


def user_or_error(key: str, document: bytes) -> User | CorruptDocumentError | ProfileTooLargeError:
    """Like `parse_user`, but takes the document's key, and returns the error instead of raising it."""
    try:
        return parse_user(key[_PREFIX_LENGTH:], document)
    except (CorruptDocumentError, ProfileTooLargeError) as error:
        return error.with_traceback(None)  # its frames would keep the document alive


def describe(error: ValidationError) -> str:
    """Describes the error without any content of the document: `email: Input should be a valid string`."""
    problems = error.errors(include_input=False, include_context=False, include_url=False)
    return "; ".join(": ".join([*map(str, problem["loc"]), problem["msg"]]) for problem in problems)
