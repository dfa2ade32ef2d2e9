"""The servicer: message in, store, message out. What else happens to a call is `rpc/`'s work."""

from collections.abc import Callable

import grpc

from userprofile.v1 import user_profile_pb2 as pb
from userprofile.v1 import user_profile_pb2_grpc as pb_grpc
from userprofile_server.errors import DeadlineExceededError, DomainError, StoreTimeoutError
from userprofile_server.models import User
from userprofile_server.rpc.error_table import answer_to
from userprofile_server.rpc.status import to_status
from userprofile_server.stores import Outcome, UserReader
from userprofile_server.users import get_user, get_users

DEADLINE_MARGIN = 0.005
"""Seconds kept back from the caller's remaining time, for the answer's way to the caller."""

BATCH_DEADLINE_MARGIN = 0.1
"""The same for a batch, or a tenth of the remaining time if that is less.

Where one node doesn't answer, the store waits as long as it may. What the others have answered, up to a hundred users
and errors, is then still to be read and sent, and would all be lost with the deadline.
"""


class UserProfileService(pb_grpc.UserProfileServiceServicer):
    """Answers the calls of `userprofile.v1.UserProfileService`. Raises the domain's errors."""

    def __init__(self, current_store: Callable[[], UserReader], *, store_timeout: float) -> None:
        """Takes a function that returns the calling thread's store, and the most seconds a call may wait for it."""
        self._current_store = current_store
        self._store_timeout = store_timeout

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        """Returns one user, within the caller's deadline and the configured timeout, whichever is shorter."""
        timeout = self._timeout(context.time_remaining(), DEADLINE_MARGIN)
        try:
            user = get_user(self._current_store(), request.username, timeout=timeout)
        except StoreTimeoutError as error:
            raise self._whose_time_ran_out(error, timeout) from None
        return pb.GetUserResponse(user=to_message(user))

    def BatchGetUsers(
        self, request: pb.BatchGetUsersRequest, context: grpc.ServicerContext
    ) -> pb.BatchGetUsersResponse:
        """Returns what became of each name, within the same time, less what a hundred answers take."""
        remaining = context.time_remaining()
        margin = BATCH_DEADLINE_MARGIN if remaining is None else min(BATCH_DEADLINE_MARGIN, remaining / 10)
        timeout = self._timeout(remaining, max(margin, DEADLINE_MARGIN))
        try:
            outcomes = get_users(self._current_store(), request.usernames, timeout=timeout)
        except StoreTimeoutError as error:
            raise self._whose_time_ran_out(error, timeout) from None
        return pb.BatchGetUsersResponse(
            results=[self._to_result(outcome, number, timeout) for number, outcome in enumerate(outcomes)]
        )

    def _timeout(self, remaining: float | None, margin: float) -> float:
        if remaining is None:
            return self._store_timeout
        timeout = min(self._store_timeout, remaining - margin)
        if timeout <= 0:
            raise DeadlineExceededError
        return timeout

    def _whose_time_ran_out(self, error: StoreTimeoutError, timeout: float) -> DomainError:
        return DeadlineExceededError() if timeout < self._store_timeout else error

    def _to_result(self, outcome: Outcome, number: int, timeout: float) -> pb.UserResult:
        if isinstance(outcome, User):
            return pb.UserResult(user=to_message(outcome))
        if isinstance(outcome, StoreTimeoutError):
            outcome = self._whose_time_ran_out(outcome, timeout)
        return pb.UserResult(error=to_status(answer_to(outcome), outcome, field=f"usernames[{number}]"))


def to_message(user: User) -> pb.User:
    """Returns the message of `user`; what is None stays unset."""
    return pb.User(username=user.username, email=user.email, full_name=user.full_name, disabled=user.disabled)
