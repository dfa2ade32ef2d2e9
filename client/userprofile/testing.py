"""A userprofile server for the tests of those who call one: real gRPC on a free port of this machine, users in memory.

    with FakeUserProfileServer([User("johndoe", email="j@example.com")]) as server:
        my_service = MyService(UserProfileClient(server.target))
        ...
        server.fail("STORE_UNAVAILABLE")  # how does mine take it?

For pytest there is the fixture `fake_userprofile`: `pytest_plugins = ["userprofile.pytest_plugin"]` in conftest.py.
"""

import re
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Self

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from userprofile.batches import BATCH_SIZE
from userprofile.calls import REQUEST_ID_KEY
from userprofile.channel import SERVICE_NAME
from userprofile.user import User
from userprofile.v1 import user_profile_pb2 as pb
from userprofile.v1 import user_profile_pb2_grpc as pb_grpc

_FAILURES: dict[str, grpc.StatusCode] = {
    "CORRUPT_DOCUMENT": grpc.StatusCode.DATA_LOSS,
    "INTERNAL": grpc.StatusCode.INTERNAL,
    "PROFILE_TOO_LARGE": grpc.StatusCode.FAILED_PRECONDITION,
    "STORE_DAMAGED": grpc.StatusCode.DATA_LOSS,
    "STORE_MISCONFIGURED": grpc.StatusCode.INTERNAL,
    "STORE_TIMEOUT": grpc.StatusCode.UNAVAILABLE,
    "STORE_UNAVAILABLE": grpc.StatusCode.UNAVAILABLE,
}
_STATUSES = _FAILURES | {
    "INVALID_BATCH_SIZE": grpc.StatusCode.INVALID_ARGUMENT,
    "INVALID_USERNAME": grpc.StatusCode.INVALID_ARGUMENT,
    "USER_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
}
_INVALID = re.compile("[\x00-\x1f\x7f-\x9f]")
_MAX_USERNAME_BYTES = 233


@dataclass(frozen=True, slots=True)
class Request:
    """A call that the server was asked."""

    method: str
    """`GetUser` or `BatchGetUsers`."""
    usernames: tuple[str, ...]
    metadata: dict[str, str | bytes]
    time_remaining: float | None
    """Seconds that the caller still waited when the call arrived; None without a deadline."""


class _Failure(NamedTuple):
    reason: str
    after: float


class FakeUserProfileServer:
    """Answers like the real service, out of `users`, which a test may change at any time."""

    def __init__(self, users: Iterable[User] = ()) -> None:
        """Takes the users to begin with. Starts nothing; use it in a `with` block, or `start` and `stop` it."""
        self.target = ""
        """What a client connects to, once the server is started."""
        self.users: dict[str, User] = {user.username: user for user in users}
        """The users by username."""
        self.requests: list[Request] = []
        """What was asked so far, attempts that were retried included."""
        self.delay = 0.0
        """Seconds that every call takes."""
        self._failures: dict[str | None, _Failure] = {}
        self._stopping = threading.Event()
        self._health = health.HealthServicer()
        self._server: grpc.Server | None = None

    def add(self, *users: User) -> None:
        """Adds users, in place of those with the same usernames."""
        self.users |= {user.username: user for user in users}

    def fail(self, reason: str, *, username: str | None = None, after: float = 0.0) -> None:
        """Lets the calls for one username, or all calls, fail with a reason of the service, until `recover`.

        They fail after some seconds, by default at once.

        Raises:
            ValueError: not one of CORRUPT_DOCUMENT, INTERNAL, PROFILE_TOO_LARGE, STORE_DAMAGED, STORE_MISCONFIGURED,
                STORE_TIMEOUT, STORE_UNAVAILABLE.
        """
        if reason not in _FAILURES:
            raise ValueError(f"{reason!r} is none of {', '.join(_FAILURES)}")
        self._failures[username] = _Failure(reason, after)

    def recover(self) -> None:
        """Ends all failures, and all delay."""
        self._failures.clear()
        self.delay = 0.0

    def set_serving(self, serving: bool) -> None:
        """Says by the health service whether calls are welcome. Clients with `health_checking` then stay away."""
        status = health_pb2.HealthCheckResponse
        for service in ("", SERVICE_NAME):
            self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    def start(self) -> str:
        """Listens on a free port of the loopback interface, or again on that of before, and returns the target."""
        self._stopping = threading.Event()
        self._health = health.HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(64, thread_name_prefix="fake userprofile"),
            options=[
                # The pings that clients send, as the real server allows them.
                ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        pb_grpc.add_UserProfileServiceServicer_to_server(_Servicer(self), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port(self.target or '127.0.0.1:0')}"
        self.set_serving(True)
        self._server.start()
        return self.target

    def stop(self) -> None:
        """Ends all calls and listens no more."""
        self._stopping.set()
        if self._server is not None:
            self._health.enter_graceful_shutdown()
            self._server.stop(grace=0).wait()

    def __enter__(self) -> Self:
        """Starts it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops it."""
        self.stop()

    def _answer(self, username: str) -> User | str:
        """Returns the user, or the reason why there is none."""
        for named in (username, None):
            if named in self._failures:
                return self._failures[named].reason
        size = len(username.encode())
        if not 0 < size <= _MAX_USERNAME_BYTES or _INVALID.search(username):
            return "INVALID_USERNAME"
        return self.users.get(username, "USER_NOT_FOUND")

    def _arrived(self, method: str, usernames: Iterable[str], context: grpc.ServicerContext) -> None:
        metadata: dict[str, Any] = dict(context.invocation_metadata())
        request = Request(method, tuple(usernames), metadata, context.time_remaining())
        self.requests.append(request)
        failures = [self._failures[name] for name in (*request.usernames, None) if name in self._failures]
        # All names of a batch are waited for at once.
        self._stopping.wait(self.delay + max((failure.after for failure in failures), default=0.0))


class _Servicer(pb_grpc.UserProfileServiceServicer):
    def __init__(self, server: FakeUserProfileServer) -> None:
        self._server = server

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        self._server._arrived("GetUser", [request.username], context)
        answer = self._server._answer(request.username)
        if isinstance(answer, str):
            _abort(context, answer, "username")
        return pb.GetUserResponse(user=_to_message(answer))

    def BatchGetUsers(
        self, request: pb.BatchGetUsersRequest, context: grpc.ServicerContext
    ) -> pb.BatchGetUsersResponse:
        self._server._arrived("BatchGetUsers", request.usernames, context)
        if not 1 <= len(request.usernames) <= BATCH_SIZE:
            _abort(context, "INVALID_BATCH_SIZE", "usernames")
        answers = [self._server._answer(name) for name in request.usernames]
        if all(isinstance(answer, str) and answer.startswith("STORE_") for answer in answers):
            _abort(context, str(answers[0]))  # nothing could be asked
        return pb.BatchGetUsersResponse(
            results=[
                pb.UserResult(error=_to_status(answer, f"usernames[{number}]"))
                if isinstance(answer, str)
                else pb.UserResult(user=_to_message(answer))
                for number, answer in enumerate(answers)
            ]
        )


def _to_message(user: User) -> pb.User:
    return pb.User(username=user.username, email=user.email, full_name=user.full_name, disabled=user.disabled)


def _to_status(reason: str, field: str | None = None) -> status_pb2.Status:
    status = status_pb2.Status(code=_STATUSES[reason].value[0], message=f"The fake server says {reason}.")
    _add_detail(status, error_details_pb2.ErrorInfo(reason=reason, domain="userprofile"))
    if reason.startswith("INVALID_"):
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description="must be valid", reason=reason)
        _add_detail(status, error_details_pb2.BadRequest(field_violations=[violation]))
    return status


def _add_detail(status: status_pb2.Status, detail: Any) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _abort(context: grpc.ServicerContext, reason: str, field: str | None = None) -> NoReturn:
    status = _to_status(reason, field)
    metadata: dict[str, Any] = dict(context.invocation_metadata())
    if REQUEST_ID_KEY in metadata:
        _add_detail(status, error_details_pb2.RequestInfo(request_id=metadata[REQUEST_ID_KEY]))
    trailing: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if reason == "STORE_TIMEOUT":
        trailing.append(("grpc-retry-pushback-ms", "-1"))  # as the service does: no retries
    context.set_trailing_metadata(tuple(trailing))
    context.abort(_STATUSES[reason], status.message)
