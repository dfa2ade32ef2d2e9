"""The servicer: request message in, store lookup, response message out. The rest of `rpc/` does everything else."""

from collections.abc import Callable, Collection

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc
from userprofile_server.errors import DeadlineExceededError, DomainError, StoreTimeoutError
from userprofile_server.rpc.read_mask import fields_of, visible_fields
from userprofile_server.rpc.stages import error_boundary
from userprofile_server.rpc.status import to_status
from userprofile_server.stores.base import DocumentReader
from userprofile_server.users.lookup import Outcome, get_user, get_users
from userprofile_server.users.models import User

DEADLINE_MARGIN = 0.005
"""Seconds of the caller's remaining time that are reserved for sending the response."""

BATCH_DEADLINE_MARGIN = 0.1
"""The same for a batch, or a tenth of the remaining time if that is less.

If one node doesn't respond, the store waits for its whole timeout. The outcomes from the other nodes, up to a hundred,
must then still be encoded and sent before the deadline, or all of them are lost.
"""


SERVICE: ServiceDescriptor = pb.DESCRIPTOR.services_by_name["UserProfileService"]


class UserProfileService(pb_grpc.UserProfileServiceServicer):
    """Implements `userprofile.v1.UserProfileService`. Methods raise the domain's errors."""

    def __init__(self, current_store: Callable[[], DocumentReader], *, store_timeout: float) -> None:
        """`current_store` returns the calling thread's store; `store_timeout` bounds a call's wait, in seconds."""
        self._current_store = current_store
        self._store_timeout = store_timeout

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        """Returns one user, within the caller's deadline and the configured timeout, whichever is shorter."""
        visible = visible_fields.get()
        fields = fields_of(request.read_mask, visible) if request.HasField("read_mask") else visible
        timeout = self._timeout(context.time_remaining(), DEADLINE_MARGIN)
        try:
            user = get_user(self._current_store(), request.username, timeout=timeout)
        except StoreTimeoutError as error:
            raise self._timeout_error(error, timeout) from None
        return pb.GetUserResponse(user=to_message(user, fields))

    def BatchGetUsers(
        self, request: pb.BatchGetUsersRequest, context: grpc.ServicerContext
    ) -> pb.BatchGetUsersResponse:
        """Returns a user or an error for each username, within the same time less the batch's larger margin."""
        visible = visible_fields.get()
        fields = fields_of(request.read_mask, visible) if request.HasField("read_mask") else visible
        remaining = context.time_remaining()
        margin = BATCH_DEADLINE_MARGIN if remaining is None else min(BATCH_DEADLINE_MARGIN, remaining / 10)
        timeout = self._timeout(remaining, max(margin, DEADLINE_MARGIN))
        usernames = list(request.usernames)
        try:
            outcomes = get_users(self._current_store(), usernames, timeout=timeout)
        except StoreTimeoutError as error:
            raise self._timeout_error(error, timeout) from None
        return pb.BatchGetUsersResponse(
            results=[
                self._to_result(username, outcome, fields, number, timeout)
                for number, (username, outcome) in enumerate(zip(usernames, outcomes, strict=True))
            ]
        )

    def _timeout(self, remaining: float | None, margin: float) -> float:
        if remaining is None:
            return self._store_timeout
        timeout = min(self._store_timeout, remaining - margin)
        if timeout <= 0:
            raise DeadlineExceededError
        return timeout

    def _timeout_error(self, error: StoreTimeoutError, timeout: float) -> DomainError:
        return DeadlineExceededError() if timeout < self._store_timeout else error

    def _to_result(
        self, username: str, outcome: Outcome, fields: Collection[str] | None, number: int, timeout: float
    ) -> pb.BatchGetUsersResponse.Result:
        if isinstance(outcome, User):
            return pb.BatchGetUsersResponse.Result(username=username, user=to_message(outcome, fields))
        if isinstance(outcome, StoreTimeoutError):
            outcome = self._timeout_error(outcome, timeout)
        error = to_status(error_boundary.log(outcome), outcome, field=f"usernames[{number}]")
        return pb.BatchGetUsersResponse.Result(username=username, error=error)


def to_message(user: User, fields: Collection[str] | None = None) -> user_pb.User:
    """Returns the message for `user` with these fields, by default all. Fields that are None stay unset."""
    if fields is not None:
        return user_pb.User(**{name: getattr(user, name) for name in fields})
    return user_pb.User(username=user.username, email=user.email, full_name=user.full_name, disabled=user.disabled)
