"""Looks up users, independent of gRPC: `get_user(store, "johndoe", timeout=1.0)`."""

import re
from collections.abc import Sequence

from userprofile_server.errors import DomainError, InvalidBatchSizeError, InvalidUsernameError, UserNotFoundError
from userprofile_server.stores.base import DocumentReader
from userprofile_server.users.documents import MAX_USERNAME_BYTES, document_key, parse_user, user_or_error
from userprofile_server.users.models import User

Outcome = User | DomainError
"""The outcome for one username of a batch: the user, or the error that `get_user` would have raised."""

MAX_BATCH_SIZE = 100
"""The maximum number of usernames in a batch."""

_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")


def get_user(store: DocumentReader, username: str, *, timeout: float) -> User:
    """Returns the public profile of `username`, waiting at most `timeout` seconds for the store.

    Raises:
        InvalidUsernameError: the username isn't valid.
        UserNotFoundError: no user has this username.
        CorruptDocumentError: the user's document isn't a user profile.
        ProfileTooLargeError: the public part of the document is too large.
        StoreError: the store didn't respond.
    """
    if (problem := _problem_of(username)) is not None:
        raise InvalidUsernameError(problem)
    document = store.get(document_key(username), timeout=timeout)
    if document is None:
        raise UserNotFoundError
    return parse_user(username, document)


def get_users(store: DocumentReader, usernames: Sequence[str], *, timeout: float) -> list[Outcome]:
    """Returns a user for each username, in order, or the error that `get_user` would have raised.

    Raises:
        InvalidBatchSizeError: there are not 1 to MAX_BATCH_SIZE usernames.
        StoreError: the store responded for none of the usernames.
    """
    if not 1 <= len(usernames) <= MAX_BATCH_SIZE:
        raise InvalidBatchSizeError(f"must hold 1 to {MAX_BATCH_SIZE} names, not {len(usernames)}")
    outcomes: dict[str, Outcome] = {}
    wanted: dict[str, str] = {}
    for username in dict.fromkeys(usernames):
        if (problem := _problem_of(username)) is None:
            wanted[document_key(username)] = username
        else:
            outcomes[username] = InvalidUsernameError(problem)
    if wanted:
        found = store.get_many(list(wanted), user_or_error, timeout=timeout)
        for key, username in wanted.items():
            outcome = found[key]
            outcomes[username] = UserNotFoundError() if outcome is None else outcome
    return [outcomes[username] for username in usernames]


def check_username(username: str) -> None:
    """Raises InvalidUsernameError unless `username` fits a document's key and has no control characters."""
    if (problem := _problem_of(username)) is not None:
        raise InvalidUsernameError(problem)


def _problem_of(username: str) -> str | None:
    if not username:
        return "must not be empty"
    try:
        size = len(username.encode())
    except UnicodeEncodeError:
        return "must be valid Unicode"
    if size > MAX_USERNAME_BYTES:
        return f"must not be longer than {MAX_USERNAME_BYTES} bytes in UTF-8"
    if _CONTROL_CHARACTER.search(username):
        return "must not contain control characters"
    return None
