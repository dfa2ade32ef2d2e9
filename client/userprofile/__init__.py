"""Clients of the userprofile service: `UserProfileClient("localhost:50051").get_user("johndoe")`.

`AsyncUserProfileClient` is the same for asyncio. `userprofile.testing` has a fake server for tests, and
`userprofile.v1` has the generated stubs.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from userprofile.async_client import AsyncUserProfileClient
    from userprofile.call_options import TLS, CallOptions
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
    from userprofile.user import User

    __version__: str

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

_MODULES = {
    "AsyncUserProfileClient": "async_client",
    "BatchError": "errors",
    "CallOptions": "call_options",
    "CorruptProfileError": "errors",
    "DeadlineExceededError": "errors",
    "InvalidUsernameError": "errors",
    "PermissionDeniedError": "errors",
    "ProfileTooLargeError": "errors",
    "ServiceUnavailableError": "errors",
    "TLS": "call_options",
    "UnauthenticatedError": "errors",
    "User": "user",
    "UserNotFoundError": "errors",
    "UserProfileClient": "client",
    "UserProfileError": "errors",
}
"""The module of each public name, imported on first use, so that code that makes no calls doesn't import gRPC.

The server's supervisor, for example, only imports modules without gRPC, such as `userprofile.environment`.
"""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "__version__":
            value: object = importlib.import_module("importlib.metadata").version(__name__)  # slow and rarely needed
        elif name in _MODULES:
            value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
