"""Reading the server's answers: what it says is a user, or an error; nothing else gets through to the caller."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from userprofile.errors import UserProfileError, from_status
from userprofile.user import User, from_message
from userprofile.v1 import user_profile_pb2 as pb

Outcome = User | UserProfileError
"""What became of one name: the user, or the error that `get_user` would have raised."""

T = TypeVar("T")
C = TypeVar("C", grpc.Channel, grpc.aio.Channel)

_UNREADABLE = object()


def outcome_of(answer: pb.GetUserResponse | pb.UserResult, username: str, request_id: str | None) -> Outcome:
    """Returns what `answer` says of the user who was asked for by this name."""
    if answer.HasField("user") and answer.user.username == username:
        return from_message(answer.user)
    if isinstance(answer, pb.UserResult) and answer.HasField("error"):
        return from_status(answer.error, request_id)
    # A later version's, or a server that isn't ours. Another user's profile must never pass for this one's.
    return _not_understood(request_id)


def understood(response: T | None, request_id: str) -> T:
    """Returns the response of a call that has succeeded.

    Raises:
        UserProfileError: there is none, or it isn't a message of the method.
    """
    if response is None or response is _UNREADABLE:
        raise _not_understood(request_id)
    return response


def lenient(channel: C) -> C:
    """Returns `channel` for a stub whose methods return what can't be read, for `understood` to judge.

    gRPC itself would log a traceback of it, and return None from asyncio's channels, but raise an error from others.
    """
    return cast(C, _LenientChannel(channel))


class _LenientChannel:
    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def unary_unary(self, method: str, *, response_deserializer: Callable[[bytes], Any], **details: Any) -> Any:
        def deserialize(data: bytes | None) -> Any:
            if data is None:  # asyncio's channels ask for that too, where no message came
                return _UNREADABLE
            try:
                return response_deserializer(data)
            except DecodeError:
                return _UNREADABLE

        return self._channel.unary_unary(method, response_deserializer=deserialize, **details)


def _not_understood(request_id: str | None) -> UserProfileError:
    return UserProfileError(
        "The server's answer is one that this client doesn't understand.",
        code=grpc.StatusCode.UNKNOWN,
        request_id=request_id,
    )
