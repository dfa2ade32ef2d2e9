"""Clients of the userprofile service: `UserProfileClient("localhost:50051").get_user("johndoe")`.

`AsyncUserProfileClient` is its twin for asyncio, `userprofile.testing` has a server to test with, and the generated
stubs, for those who want them bare, are in `userprofile.v1`.
"""

import importlib.metadata

from userprofile.async_client import AsyncUserProfileClient
from userprofile.client import UserProfileClient
from userprofile.errors import (
    BatchError,
    CorruptProfileError,
    DeadlineExceededError,
    InvalidUsernameError,
    PermissionDeniedError,
    ProfileTooLargeError,
    ServiceUnavailableError,
    UnauthenticatedError,
    UserNotFoundError,
    UserProfileError,
)
from userprofile.options import TLS, CallOptions
from userprofile.user import User

__version__ = importlib.metadata.version(__name__)

__all__ = [
    "TLS",
    "AsyncUserProfileClient",
    "BatchError",
    "CallOptions",
    "CorruptProfileError",
    "DeadlineExceededError",
    "InvalidUsernameError",
    "PermissionDeniedError",
    "ProfileTooLargeError",
    "ServiceUnavailableError",
    "UnauthenticatedError",
    "User",
    "UserNotFoundError",
    "UserProfileClient",
    "UserProfileError",
    "__version__",
]
