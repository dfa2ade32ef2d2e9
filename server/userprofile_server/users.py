"""Asking for a user, independent of gRPC: `get_user(store, "johndoe", timeout=1.0)`."""

import re

from userprofile_server.documents import MAX_USERNAME_BYTES
from userprofile_server.errors import InvalidUsernameError
from userprofile_server.models import User
from userprofile_server.stores import UserReader

_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")


def get_user(store: UserReader, username: str, *, timeout: float) -> User:
    """Returns the public profile of `username`, waiting at most `timeout` seconds for the store.

    Raises:
        InvalidUsernameError: no user can have this name.
        UserNotFoundError: nobody has it.
        CorruptDocumentError: the user's document isn't a user profile.
        StoreError: the store didn't answer.
    """
    check_username(username)
    return store.get(username, timeout=timeout)


def check_username(username: str) -> None:
    """Raises InvalidUsernameError unless `username` fits a document's key and has no control characters."""
    if not username:
        raise InvalidUsernameError("must not be empty")
    try:
        size = len(username.encode())
    except UnicodeEncodeError:
        size = None  # raised below, where the name doesn't hang on the error
    if size is None:
        raise InvalidUsernameError("must be valid Unicode")
    if size > MAX_USERNAME_BYTES:
        raise InvalidUsernameError(f"must not be longer than {MAX_USERNAME_BYTES} bytes in UTF-8")
    if _CONTROL_CHARACTER.search(username):
        raise InvalidUsernameError("must not contain control characters")
