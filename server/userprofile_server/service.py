"""The servicer: message in, store, message out. What else happens to a call is `rpc/`'s work."""

from collections.abc import Callable

import grpc

from userprofile.v1 import user_profile_pb2 as pb
from userprofile.v1 import user_profile_pb2_grpc as pb_grpc
from userprofile_server.errors import DeadlineExceededError, StoreTimeoutError
from userprofile_server.models import User
from userprofile_server.stores import UserReader
from userprofile_server.users import get_user

DEADLINE_MARGIN = 0.005
"""Seconds kept back from the caller's remaining time, for the answer's way to the caller."""


class UserProfileService(pb_grpc.UserProfileServiceServicer):
    """Answers the calls of `userprofile.v1.UserProfileService`. Raises the domain's errors."""

    def __init__(self, current_store: Callable[[], UserReader], *, store_timeout: float) -> None:
        """Takes a function that returns the calling thread's store, and the most seconds a call may wait for it."""
        self._current_store = current_store
        self._store_timeout = store_timeout

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        """Returns one user, within the caller's deadline and the configured timeout, whichever is shorter."""
        timeout = self._store_timeout
        remaining = context.time_remaining()
        if remaining is not None:
            timeout = min(timeout, remaining - DEADLINE_MARGIN)
            if timeout <= 0:
                raise DeadlineExceededError
        try:
            user = get_user(self._current_store(), request.username, timeout=timeout)
        except StoreTimeoutError:
            if timeout < self._store_timeout:  # it was the caller's time that ran out, not the store's
                raise DeadlineExceededError from None
            raise
        return pb.GetUserResponse(user=to_message(user))


def to_message(user: User) -> pb.User:
    """Returns the message of `user`; what is None stays unset."""
    return pb.User(username=user.username, email=user.email, full_name=user.full_name, disabled=user.disabled)
