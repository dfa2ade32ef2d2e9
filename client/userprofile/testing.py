"""A fake userprofile server for callers' tests: real gRPC on a free loopback port, users in memory.

    with FakeUserProfileServer([User("johndoe", email="j@example.com")]) as server:
        my_service = MyService(UserProfileClient(server.target))
        ...
        server.fail(reasons.STORE_UNAVAILABLE)  # how does my service cope?

The pytest fixture is `fake_userprofile`: `pytest_plugins = ["userprofile.pytest_plugin"]` in conftest.py.
"""

import re
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, Self

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from userprofile import reasons
from userprofile.batches import BATCH_SIZE
from userprofile.calls import REQUEST_ID_KEY
from userprofile.channel import SERVICE_NAME
from userprofile.service_config import NO_RETRY, PREVIOUS_ATTEMPTS, PUSHBACK, time_suffices
from userprofile.user import User
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

_FAILURES: dict[str, grpc.StatusCode] = {
    reasons.CALLER_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
    reasons.CALLER_NOT_VERIFIED: grpc.StatusCode.UNAVAILABLE,
    reasons.CALLER_UNKNOWN: grpc.StatusCode.UNAUTHENTICATED,
    reasons.CORRUPT_DOCUMENT: grpc.StatusCode.DATA_LOSS,
    reasons.INTERNAL: grpc.StatusCode.INTERNAL,
    reasons.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    reasons.PROFILE_TOO_LARGE: grpc.StatusCode.FAILED_PRECONDITION,
    reasons.REQUEST_INCOMPLETE: grpc.StatusCode.UNAVAILABLE,
    reasons.STORE_DAMAGED: grpc.StatusCode.DATA_LOSS,
    reasons.STORE_MISCONFIGURED: grpc.StatusCode.INTERNAL,
    reasons.STORE_TIMEOUT: grpc.StatusCode.UNAVAILABLE,
    reasons.STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    reasons.TOO_MANY_OPEN_CALLS: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_STATUSES = _FAILURES | {
    reasons.INVALID_BATCH_SIZE: grpc.StatusCode.INVALID_ARGUMENT,
    reasons.INVALID_READ_MASK: grpc.StatusCode.INVALID_ARGUMENT,
    reasons.INVALID_USERNAME: grpc.StatusCode.INVALID_ARGUMENT,
    reasons.USER_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
}
_RETRY_DELAYS = {
    reasons.CALLER_NOT_VERIFIED: 1, reasons.OVERLOADED: 1, reasons.REQUEST_INCOMPLETE: 1, reasons.STORE_UNAVAILABLE: 1,
    reasons.TOO_MANY_OPEN_CALLS: 1,
}  # fmt: skip
"""Seconds after which a retry may help, for the reasons where it may."""
_PUSHBACK_MS = 250
"""The retry pushback for refused calls, in milliseconds. The service sends 250 to 1000."""
_STORE_FAILURES = {
    reasons.STORE_DAMAGED, reasons.STORE_MISCONFIGURED, reasons.STORE_TIMEOUT, reasons.STORE_UNAVAILABLE,
}  # fmt: skip
_FIELDS = frozenset(user_pb.User.DESCRIPTOR.fields_by_name)
_INVALID = re.compile("[\x00-\x1f\x7f-\x9f]")
_MAX_USERNAME_BYTES = 233
_FOREVER = 1e9  # seconds; without a deadline grpc's synchronous server reports 292 billion years remaining


@dataclass(frozen=True, slots=True)
class Request:
    """A call that the server received."""

    method: str
    """`GetUser` or `BatchGetUsers`."""
    usernames: tuple[str, ...]
    fields: frozenset[str] | None
    """The fields of the read mask; None for all."""
    metadata: dict[str, str | bytes]
    time_remaining: float | None
    """Seconds until the deadline when the call arrived; None without a deadline."""


class _Failure(NamedTuple):
    reason: str
    after: float


class FakeUserProfileServer:
    """Behaves like the real service. Serves `users`, which a test may change at any time."""

    def __init__(self, users: Iterable[User] = ()) -> None:
        """Takes the initial users. Starts nothing: use it in a `with` block, or call `start` and `stop`."""
        self.target = ""
        """The address for clients, set by `start`."""
        self.users: dict[str, User] = {user.username: user for user in users}
        """The users by username."""
        self.requests: list[Request] = []
        """The calls received so far, retries included."""
        self.delay = 0.0
        """Delay of every call in seconds."""
        self._failures: dict[str | None, _Failure] = {}
        self._stopping = threading.Event()
        self._health = health.HealthServicer()
        self._threads: ThreadPoolExecutor
        self._server: grpc.Server | None = None

    def add(self, *users: User) -> None:
        """Adds users. Replaces those with the same usernames."""
        self.users |= {user.username: user for user in users}

    def fail(self, reason: str, *, username: str | None = None, after: float = 0.0) -> None:
        """Makes calls for `username`, or all calls, fail with one of `userprofile.reasons`, until `recover`.

        Each call fails after `after` seconds.

        Raises:
            ValueError: not one of CALLER_NOT_ALLOWED, CALLER_NOT_VERIFIED, CALLER_UNKNOWN, CORRUPT_DOCUMENT, INTERNAL,
                OVERLOADED, PROFILE_TOO_LARGE, REQUEST_INCOMPLETE, STORE_DAMAGED, STORE_MISCONFIGURED, STORE_TIMEOUT,
                STORE_UNAVAILABLE, TOO_MANY_OPEN_CALLS.
        """
        if reason not in _FAILURES:
            raise ValueError(f"{reason!r} is not one of {', '.join(_FAILURES)}")
        self._failures[username] = _Failure(reason, after)

    def recover(self) -> None:
        """Ends all failures and the delay."""
        self._failures.clear()
        self.delay = 0.0

    def set_serving(self, serving: bool) -> None:
        """Sets the health that the server reports. Clients with `health_checking` avoid one that isn't serving."""
        status = health_pb2.HealthCheckResponse
        for service in ("", SERVICE_NAME):
            self._health.set(service, status.SERVING if serving else status.NOT_SERVING)

    def start(self) -> str:
        """Starts the server on a free loopback port, or on its previous port, and returns the target.

        Raises:
            RuntimeError: it is running, or another process has taken its previous port.
        """
        if self._server is not None:
            raise RuntimeError("this server has been started and not stopped")
        self._stopping = threading.Event()
        self._health = health.HealthServicer()
        self._threads = ThreadPoolExecutor(64, thread_name_prefix="fake userprofile")
        server = grpc.server(
            self._threads,
            options=[
                ("grpc.so_reuseport", 0),  # else two servers could share a port, and the calls
                # Allows clients' keepalive pings, like the real server.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        pb_grpc.add_UserProfileServiceServicer_to_server(_Servicer(self), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self.target = f"127.0.0.1:{server.add_insecure_port(self.target or '127.0.0.1:0')}"
        self.set_serving(True)
        server.start()
        self._server = server
        return self.target

    def stop(self) -> None:
        """Stops the server and cancels all calls."""
        self._stopping.set()
        if self._server is not None:
            self._health.enter_graceful_shutdown()
            self._server.stop(grace=0).wait()
            self._threads.shutdown(wait=False)
            self._server = None

    def __enter__(self) -> Self:
        """Starts the server."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the server."""
        self.stop()

    def _outcome(self, username: str) -> User | str:
        """Returns the user, or the reason of the error."""
        for named in (username, None):
            if named in self._failures:
                return self._failures[named].reason
        size = len(username.encode())
        if not 0 < size <= _MAX_USERNAME_BYTES or _INVALID.search(username):
            return reasons.INVALID_USERNAME
        return self.users.get(username, reasons.USER_NOT_FOUND)

    def _arrived(
        self, method: str, usernames: Iterable[str], paths: Iterable[str], context: grpc.ServicerContext
    ) -> frozenset[str] | None:
        """Records the call and waits for its delay. Returns the requested fields, None for all."""
        metadata: dict[str, Any] = dict(context.invocation_metadata())
        remaining: float | None = context.time_remaining()
        if remaining is not None and remaining > _FOREVER:
            remaining = None
        fields = frozenset(paths)
        masked = fields | {"username"} if fields and "*" not in fields else None
        request = Request(method, tuple(usernames), masked, metadata, remaining)
        self.requests.append(request)
        failures = [self._failures[name] for name in (*request.usernames, None) if name in self._failures]
        # A batch waits for the longest delay of its usernames, not for the sum.
        self._stopping.wait(self.delay + max((failure.after for failure in failures), default=0.0))
        if not fields <= _FIELDS | {"*"}:
            _abort(context, reasons.INVALID_READ_MASK, "read_mask.paths")
        return masked


class _Servicer(pb_grpc.UserProfileServiceServicer):
    def __init__(self, server: FakeUserProfileServer) -> None:
        self._server = server

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        fields = self._server._arrived("GetUser", [request.username], request.read_mask.paths, context)
        outcome = self._server._outcome(request.username)
        if isinstance(outcome, str):
            _abort(context, outcome, "username")
        return pb.GetUserResponse(user=_to_message(outcome, fields))

    def BatchGetUsers(
        self, request: pb.BatchGetUsersRequest, context: grpc.ServicerContext
    ) -> pb.BatchGetUsersResponse:
        fields = self._server._arrived("BatchGetUsers", request.usernames, request.read_mask.paths, context)
        if not 1 <= len(request.usernames) <= BATCH_SIZE:
            _abort(context, reasons.INVALID_BATCH_SIZE, "usernames")
        outcomes = [self._server._outcome(name) for name in request.usernames]
        if all(isinstance(outcome, str) and outcome in _STORE_FAILURES for outcome in outcomes):
            _abort(context, str(outcomes[0]))  # the store responded for none of them
        return pb.BatchGetUsersResponse(
            results=[
                pb.BatchGetUsersResponse.Result(username=name, error=_to_status(outcome, f"usernames[{number}]"))
                if isinstance(outcome, str)
                else pb.BatchGetUsersResponse.Result(username=name, user=_to_message(outcome, fields))
                for number, (name, outcome) in enumerate(zip(request.usernames, outcomes, strict=True))
            ]
        )


def _to_message(user: User, fields: frozenset[str] | None) -> user_pb.User:
    return user_pb.User(**{name: getattr(user, name) for name in fields or _FIELDS})


def _to_status(reason: str, field: str | None = None) -> status_pb2.Status:
    status = status_pb2.Status(code=_STATUSES[reason].value[0], message=f"The fake server returned {reason}.")
    _add_detail(status, error_details_pb2.ErrorInfo(reason=reason, domain="userprofile"))
    if reason in _RETRY_DELAYS:
        _add_detail(status, error_details_pb2.RetryInfo(retry_delay=Duration(seconds=_RETRY_DELAYS[reason])))
    if _STATUSES[reason] is grpc.StatusCode.INVALID_ARGUMENT:
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
    remaining = context.time_remaining()
    if _STATUSES[reason] is grpc.StatusCode.UNAVAILABLE and not (
        reason in _RETRY_DELAYS and time_suffices(metadata.get(PREVIOUS_ATTEMPTS), remaining)
    ):
        trailing.append(NO_RETRY)
    elif _STATUSES[reason] is grpc.StatusCode.RESOURCE_EXHAUSTED:
        in_time = remaining is None or remaining > _PUSHBACK_MS / 1000
        trailing.append((PUSHBACK, str(_PUSHBACK_MS)) if in_time else NO_RETRY)
    context.set_trailing_metadata(tuple(trailing))
    context.abort(_STATUSES[reason], status.message)
