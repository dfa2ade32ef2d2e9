"""Documents: the key of a user, and the way from a document's bytes to the public `User`.

The layout is that of the FastAPI + Couchbase tutorial, so that its data works unchanged.
"""

import logging
from typing import Literal

from pydantic import ValidationError

from userprofile_server.errors import CorruptDocumentError, ProfileTooLargeError, UserNotFoundError
from userprofile_server.models import USERPROFILE_DOC_TYPE, User

_log = logging.getLogger(__name__)

_KEY_PREFIX = f"{USERPROFILE_DOC_TYPE}::"

MAX_KEY_BYTES = 246
"""The longest key that Couchbase takes inside a collection, in bytes."""

MAX_USERNAME_BYTES = MAX_KEY_BYTES - len(_KEY_PREFIX)

MAX_DOCUMENT_BYTES = 20 * 1024 * 1024
"""The largest document that Couchbase takes, in bytes."""


MAX_PUBLIC_BYTES = 32 * 1024
"""The largest public part of a document, all texts together in UTF-8. A hundred fit into one response: every gRPC
client takes 4 MiB unless it is told otherwise. What else is in a document may be as large as it likes."""


class _StoredUser(User):
    """What the read path takes out of a document: the public fields, and the type to check it by."""

    type: Literal["userprofile"] | None = None


def document_key(username: str) -> str:
    """Returns the key under which every store keeps the user's document."""
    return _KEY_PREFIX + username


def parse_user(username: str, document: bytes) -> User:
    """Returns the public profile in `document`, which was stored under the key of `username`.

    The hash never becomes a Python object here: the model has no field for it.

    Raises:
        CorruptDocumentError: it isn't JSON, not an object, has a field of a wrong type, another
            `type` than a user profile's, or another username than its key.
        ProfileTooLargeError: its public part is larger than MAX_PUBLIC_BYTES.
    """
    try:
        user = _StoredUser.model_validate_json(document)
    except ValidationError as error:
        problem = describe(error)
    else:
        if user.username == username:
            # JSON takes at least as many bytes as the texts in it, so of most documents this is one comparison.
            if len(document) > MAX_PUBLIC_BYTES and (size := _public_bytes(user)) > MAX_PUBLIC_BYTES:
                raise ProfileTooLargeError(
                    f"username, email and full_name have {size} bytes, {MAX_PUBLIC_BYTES} at most"
                )
            return user
        problem = "username: differs from the document's key"
    # Raised out here because pydantic's error holds the document, hash included, and Python would
    # hang it on ours as __context__ inside the except block.
    _log.debug("the document of %r is corrupt: %s", username, problem)
    raise CorruptDocumentError(problem)


def _public_bytes(user: User) -> int:
    return sum(len(text.encode()) for text in (user.username, user.email, user.full_name) if text is not None)


def user_or_error(
    username: str, document: bytes | None
) -> User | CorruptDocumentError | ProfileTooLargeError | UserNotFoundError:
    """Like `parse_user`, but returns the error, and takes None for a document that isn't there."""
    if document is None:
        return UserNotFoundError()
    try:
        return parse_user(username, document)
    except (CorruptDocumentError, ProfileTooLargeError) as error:
        return error.with_traceback(None)  # its frames would keep this one alive, which holds the document


def describe(error: ValidationError) -> str:
    """Says what is wrong with a document without a word out of it: `email: Input should be a valid string`."""
    problems = error.errors(include_input=False, include_context=False, include_url=False)
    return "; ".join(": ".join([*map(str, problem["loc"]), problem["msg"]]) for problem in problems)
