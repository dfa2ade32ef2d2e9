"""Client of the userprofile service: `UserProfileClient("localhost:50051").get_user("johndoe")`.

The generated stubs, for those who want them bare, are in `userprofile.v1`.
"""

from userprofile.client import UserProfileClient
from userprofile.errors import (
    CorruptProfileError,
    DeadlineExceededError,
    InvalidUsernameError,
    ServiceUnavailableError,
    UserNotFoundError,
    UserProfileError,
)
from userprofile.user import User

__all__ = [
    "CorruptProfileError",
    "DeadlineExceededError",
    "InvalidUsernameError",
    "ServiceUnavailableError",
    "User",
    "UserNotFoundError",
    "UserProfileClient",
    "UserProfileError",
]
