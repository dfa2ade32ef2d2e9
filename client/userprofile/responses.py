"""Converts the server's responses to users or errors; nothing else reaches the caller."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from userprofile.errors import UserProfileError, from_status
from userprofile.user import User, from_message
from userprofile.v1 import user_profile_service_pb2 as pb

Outcome = User | UserProfileError
"""The outcome for one username: the user, or the error that `get_user` would have raised."""

T = TypeVar("T")
C = TypeVar("C", grpc.Channel, grpc.aio.Channel)

_UNREADABLE = object()


def outcome_of(
    response: pb.GetUserResponse | pb.BatchGetUsersResponse.Result, username: str, request_id: str | None
) -> Outcome:
    """Returns the outcome for `username` from its response or result."""
    if response.HasField("user") and response.user.username == username:
        return from_message(response.user)
    if isinstance(response, pb.BatchGetUsersResponse.Result) and response.HasField("error"):
        return from_status(response.error, request_id)
    # From a later version, or another service. Another user's profile must never be returned for this username.
    return _not_understood(request_id)


def understood(response: T | None, request_id: str) -> T:
    """Returns the response of a successful call.

    Raises:
        UserProfileError: there is no response, or it can't be decoded as the method's message.
    """
    if response is None or response is _UNREADABLE:
        raise _not_understood(request_id)
    return response


def lenient(channel: C) -> C:
    """Wraps `channel` so that a response that can't be decoded becomes a marker; see `understood`.

    gRPC itself would log a traceback, and then return None (asyncio) or raise an error (threads).
    """
    return cast(C, _LenientChannel(channel))


class _LenientChannel:
    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def unary_unary(self, method: str, *, response_deserializer: Callable[[bytes], Any], **details: Any) -> Any:
        def deserialize(data: bytes | None) -> Any:
            if data is None:  # asyncio channels call this even if there is no message
                return _UNREADABLE
            try:
                return response_deserializer(data)
            except DecodeError:
                return _UNREADABLE

        return self._channel.unary_unary(method, response_deserializer=deserialize, **details)


def _not_understood(request_id: str | None) -> UserProfileError:
    return UserProfileError(
        "The client can't read the server's response.",
        code=grpc.StatusCode.UNKNOWN,
        request_id=request_id,
    )
