"""Asking for users, independent of gRPC: `get_user(store, "johndoe", timeout=1.0)`."""

import re
from collections.abc import Sequence

from userprofile_server.documents import MAX_USERNAME_BYTES
from userprofile_server.errors import InvalidBatchSizeError, InvalidUsernameError
from userprofile_server.models import User
from userprofile_server.stores import Outcome, UserReader

MAX_BATCH_SIZE = 100
"""How many names one batch may have."""

_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")


def get_user(store: UserReader, username: str, *, timeout: float) -> User:
    """Returns the public profile of `username`, waiting at most `timeout` seconds for the store.

    Raises:
        InvalidUsernameError: no user can have this name.
        UserNotFoundError: nobody has it.
        CorruptDocumentError: the user's document isn't a user profile.
        ProfileTooLargeError: its public part is larger than a profile may be.
        StoreError: the store didn't answer.
    """
    check_username(username)
    return store.get(username, timeout=timeout)


def get_users(store: UserReader, usernames: Sequence[str], *, timeout: float) -> list[Outcome]:
    """Returns for each name, in order, its user or the error that `get_user` would have raised.

    Raises:
        InvalidBatchSizeError: not 1 to MAX_BATCH_SIZE names.
        StoreError: the store answered for none of the names that it was asked for.
    """
    if not 1 <= len(usernames) <= MAX_BATCH_SIZE:
        raise InvalidBatchSizeError(f"must hold 1 to {MAX_BATCH_SIZE} names, not {len(usernames)}")
    outcomes: dict[str, Outcome] = {}
    wanted = []
    for username in dict.fromkeys(usernames):
        if (problem := _problem_of(username)) is None:
            wanted.append(username)
        else:
            outcomes[username] = InvalidUsernameError(problem)
    if wanted:
        outcomes |= store.get_many(wanted, timeout=timeout)
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
