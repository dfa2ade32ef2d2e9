"""The client for threads. `async_client.py` has its twin for asyncio."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self, Unpack

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from userprofile.batches import BATCHES_IN_FLIGHT, Batch, check_several, collect, split
from userprofile.call_options import TLS, CallOptions, Metadata
from userprofile.calls import Call, CallFactory, check_token, for_several_calls, without_waiting
from userprofile.channel import ChannelConfig, ChannelOptions
from userprofile.connections import failing
from userprofile.errors import UserNotFoundError, UserProfileError, closed_meanwhile, never_reached, unsendable
from userprofile.health import HEALTH_REQUEST, health_check, is_serving
from userprofile.interceptors import Interceptor, checked, intercepted, raise_own
from userprofile.responses import Outcome, lenient, outcome_of, understood
from userprofile.retries import Retries
from userprofile.rotation import Channels
from userprofile.token_file import token_or_file
from userprofile.user import User, read_mask
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT = 5.0
DEFAULT_RETRIES = 4

REFUSAL_TIMEOUT = 1.0  # seconds; gRPC refuses within milliseconds


class UserProfileClient:
    """Client of a userprofile service. Safe to share between threads; close it, or use it in a `with` block.

    The first call connects it to all addresses of the target; lost connections are re-established in the background.
    Calls are balanced round robin.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        wait_for_ready: bool = True,
        connections: int = 1,
        health_checking: bool = False,
        token: str | Callable[[], str] | None = None,
        token_file: Path | str | None = None,
        allow_plaintext_token: bool = False,
        tls: TLS | None = None,
        metadata: Metadata = (),
        interceptors: Sequence[Interceptor] = (),
        channel_options: ChannelOptions = (),
    ) -> None:
        """Makes a client. Nothing is sent before the first call.

        Args:
            target: `host:port` (all addresses of the name are used), `ipv4:1.2.3.4:50051,5.6.7.8:50051`, `unix:path`
                or another name that gRPC resolves (https://grpc.github.io/grpc/core/md_doc_naming.html). The port
                is required, except with TLS, where it defaults to 443.
            timeout: Default timeout of a call in seconds, retries included.
            retries: Maximum number of retries of a call, 0 to 4, while the service is unavailable. All calls are
                reads, so retrying is safe. gRPC stops retrying while most calls fail.
            wait_for_ready: Whether calls wait until a server can be reached, at most until their timeout, so that
                they survive a restart. With False they fail after their retries.
            connections: Connections to each server address, 1 to 64. With more than one, calls take turns, so that
                they reach several processes of one server (`serve --processes`). Retries of a call stay on its
                connection, unless that is lost.
            health_checking: Whether to watch each server's health by the standard protocol, and to send no calls to
                servers that report NOT_SERVING. The watch carries no token; a server or gateway that refuses it gets
                no calls at all. Without health checking, a retry goes to the next server.
            token: Sent with every call as `authorization: Bearer …`. A function is called for each call, so it should
                cache the token until it expires.
            token_file: A file with the token, instead of `token`. It is read again when it has changed; while it is
                missing or invalid, the last valid token stays in use.
            allow_plaintext_token: Allows sending the token without TLS to other machines. Anyone on the network path
                can then read it.
            tls: TLS settings; None for plaintext. Files that have changed are read again.
            metadata: Sent with every call.
            interceptors: gRPC's own interceptors, in the order in which a call passes them. They see each call once,
                whatever gRPC's retries, with its metadata and request id, and without its token.
            channel_options: Further channel arguments, which override the client's
                (https://grpc.github.io/grpc/core/group__grpc__arg__keys.html).

        Raises:
            ValueError: an argument or a file of `tls` is invalid, there is no token in `token_file`, or the token
                would be sent to another machine in plaintext.
            OSError: a file of `tls` can't be read.
        """
        self._channel_config = ChannelConfig(
            target,
            tls=tls,
            retries=retries,
            connections=connections,
            health_checking=health_checking,
            channel_options=channel_options,
        )
        self._token = token_or_file(token, token_file)
        self._channel_config.check_token(self._token, allow_plaintext=allow_plaintext_token)
        self._interceptors = checked(interceptors)
        self._call_factory = CallFactory(
            target,
            timeout=timeout,
            wait_for_ready=wait_for_ready,
            metadata=metadata,
            intercepted=bool(self._interceptors),
        )
        self.target = target
        self._channels: Channels[grpc.Channel] = Channels(
            self._channel_config,
            lambda: self._open(self._channel_config.load_balanced_options),
            _state_of,
            lambda channel: intercepted(channel, self._interceptors),
        )
        self._checking: set[grpc.Channel] = set()
        self._retries = Retries(self._channel_config.pauses)
        self._closing = threading.Event()
        self._stub = pb_grpc.UserProfileServiceStub(lenient(self._channels.for_stub()))

    def get_user(self, username: str, *, fields: Iterable[str] | None = None, **options: Unpack[CallOptions]) -> User:
        """Returns the user.

        Args:
            username: The user's name, compared byte by byte.
            fields: The names of the fields of `User` to return; the others are None. The username is always
                returned. None, the default, returns all that the caller may see.
            options: See `CallOptions`.

        Raises:
            UserNotFoundError: no user has this username.
            InvalidUsernameError: the username is not valid.
            UserProfileError: any other failure; see its subclasses.
        """
        mask = read_mask(fields)
        call = self._begin(options, "GetUser")
        with call.span:
            if (problem := unsendable(username)) is not None:
                raise problem
            request = pb.GetUserRequest(username=username, read_mask=mask)
            try:
                response = self._stub.GetUser(request, **call.arguments)
            except grpc.RpcError as error:
                response = self._retry("GetUser", request, call, error)
            except ValueError:  # gRPC's error if the channel was just closed
                self._call_factory.check_usable()
                raise
            outcome = outcome_of(understood(response, call.request_id), username, call.request_id)
            if isinstance(outcome, UserProfileError):
                raise outcome
            return outcome

    def find_user(
        self, username: str, *, fields: Iterable[str] | None = None, **options: Unpack[CallOptions]
    ) -> User | None:
        """Like `get_user`, but returns None if no user has this username."""
        try:
            return self.get_user(username, fields=fields, **options)
        except UserNotFoundError:
            return None

    def get_users(
        self, usernames: Iterable[str], *, fields: Iterable[str] | None = None, **options: Unpack[CallOptions]
    ) -> dict[str, User]:
        """Returns the users who exist, by username. Takes any number of usernames.

        Usernames that no user has are absent, so `.get(name)` is None for them. Each call requests 100 users, and up
        to four calls are in flight; the timeout applies to each call. `fields` is that of `get_user`.

        Raises:
            BatchError: some users could not be read. It has the users found, and an error for each user not read.
            UserProfileError: a call failed as a whole. No further calls are made.
        """
        check_several(usernames)
        found: list[tuple[str, Outcome]] = []
        with closing(self._prefetch(dict.fromkeys(usernames), read_mask(fields), options)) as batches:
            for batch in batches:
                found += batch.outcomes()
        return collect(found)

    def iter_users(
        self, usernames: Iterable[str], *, fields: Iterable[str] | None = None, **options: Unpack[CallOptions]
    ) -> Generator[tuple[str, User | UserProfileError], None, None]:
        """Yields each username, in order, with its user or with the error that `get_user` would have raised.

        For more usernames than fit into memory: at most 400 are prefetched. An outage of the service skips no
        username. `fields` is that of `get_user`. Never raises a UserProfileError itself.
        """
        check_several(usernames)
        with closing(self._prefetch(usernames, read_mask(fields), options)) as batches:
            for batch in batches:
                yield from batch.outcomes_or_failure()

    def check_health(self, **options: Unpack[CallOptions]) -> bool:
        """Returns whether one of the target's servers reports SERVING (gRPC health checking protocol).

        Raises:
            UserProfileError: the health check failed.
        """
        # Doesn't wait for a server, because it reports the current state. Uses a channel without health checking, which
        # would never reach a server that isn't serving.
        call = self._begin(without_waiting(options))
        with self._open(self._channel_config.single_server_options) as channel:
            self._checking.add(channel)
            try:
                check = health_check(lenient(intercepted(channel, self._interceptors)))
                response = check(HEALTH_REQUEST, **call.arguments)
                return is_serving(understood(response, call.request_id))
            except grpc.RpcError as error:
                raise_own(error)
                raise self._call_factory.failure(error, call) from None
            except ValueError:
                self._call_factory.check_usable()
                raise
            finally:
                self._checking.discard(channel)

    def close(self) -> None:
        """Closes the connections; calls in progress are cancelled, later ones raise RuntimeError."""
        self._call_factory.closed = True
        self._closing.set()
        for channel in [*self._channels.finish(), *self._checking]:
            channel.close()

    def __enter__(self) -> Self:
        """Returns the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the client."""
        self.close()

    def _open(self, options: ChannelOptions) -> grpc.Channel:
        if self._channel_config.credentials is None:
            return grpc.insecure_channel(self._channel_config.target, options)
        return grpc.secure_channel(self._channel_config.target, self._channel_config.credentials, options)

    def _begin(self, options: CallOptions, method: str | None = None) -> Call:
        self._call_factory.check_usable()
        for unused in self._channels.update():
            unused.close()
        if not callable(self._token):
            return self._call_factory.begin(self._token, method, **options)
        token = self._token()
        check_token(token)
        return self._call_factory.begin(token, method, **options)

    def _retry(self, name: str, request: Any, call: Call, error: Any) -> Any:
        """Retries a failed call of the method `name`, if that may help.

        Raises:
            UserProfileError: the call can't be retried, or the retries have failed.
        """
        pauses, began = self._retries.pauses(name), call.began
        while True:
            raise_own(error)
            took = time.monotonic() - began
            pause = self._retries.next_pause(pauses, error, took=took, left=call.left())
            if pause is None:
                break
            if self._closing.wait(pause):
                raise closed_meanwhile(call.request_id) from None
            began = time.monotonic()
            try:
                return getattr(self._stub, name)(request, **call.arguments_of_retry())
            except grpc.RpcError as failure:
                if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    break  # the previous error says why
                error = failure
            except ValueError:
                self._call_factory.check_usable()
                raise
        raise self._error(error, call) from None

    def _error(self, error: Any, call: Call) -> UserProfileError:
        """Returns the error of a call, with the cause if the deadline passed before a server was reached."""
        if (
            error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # the call, or a retry, may have waited for a server
            and (number := failing([_state_of(channel) for channel in self._channels.current])) is not None
        ):
            try:  # in TRANSIENT_FAILURE, gRPC fails this at once with the cause, and sends nothing
                health_check(self._channels.current[number])(
                    HEALTH_REQUEST, timeout=REFUSAL_TIMEOUT, wait_for_ready=False
                )
            except grpc.RpcError as refusal:
                if refusal.code() is grpc.StatusCode.UNAVAILABLE:
                    return never_reached(refusal, call.request_id, self.target, call.arguments["timeout"])
            except ValueError:  # closed meanwhile
                pass
        return self._call_factory.failure(error, call)

    def _prefetch(
        self, usernames: Iterable[str], mask: FieldMask | None, options: CallOptions
    ) -> "Generator[_PendingBatch]":
        """Yields the batches in order, with the calls of the next few already in flight."""
        options = for_several_calls(options)
        pending: deque[_PendingBatch] = deque()
        try:
            for batch in split(usernames):
                pending.append(self._start_batch(batch, mask, options))
                if len(pending) == BATCHES_IN_FLIGHT:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            for abandoned in pending:
                abandoned.cancel()

    def _start_batch(self, batch: Batch, mask: FieldMask | None, options: CallOptions) -> "_PendingBatch":
        request = batch.request(mask)
        call = self._begin(options, None if request is None else "BatchGetUsers")
        try:
            with call.span.current():
                future = None if request is None else self._stub.BatchGetUsers.future(request, **call.arguments)
        except ValueError:
            self._call_factory.check_usable()
            raise

        call.span.follow(future)

        def retry(error: grpc.RpcError) -> Any:
            # The batch may have failed long before it is consumed, so its timeout starts again.
            return self._retry("BatchGetUsers", request, call._replace(began=time.monotonic()), error)

        return _PendingBatch(batch, call, future, retry, self._call_factory)


class _PendingBatch:
    """A batch in flight."""

    def __init__(
        self, batch: Batch, call: Call, future: Any, retry: Callable[[Any], Any], call_factory: CallFactory
    ) -> None:
        self._call_factory = call_factory
        self._retry = retry
        self._batch = batch
        self._call = call
        self._future = future

    def outcomes(self) -> Iterable[tuple[str, Outcome]]:
        if self._future is None:
            return self._batch.outcomes((), None)
        with self._call.span:
            try:
                response = self._future.result()
            except grpc.RpcError as error:
                response = self._retry(error)
            except ValueError:  # interceptors are told only here that the channel was just closed
                self._call_factory.check_usable()
                raise
            results = understood(response, self._call.request_id).results
        return self._batch.outcomes(results, self._call.request_id)

    def outcomes_or_failure(self) -> Iterable[tuple[str, Outcome]]:
        try:
            return self.outcomes()
        except UserProfileError as error:
            return self._batch.failed(error)

    def cancel(self) -> None:
        if self._future is not None:
            self._future.cancel()


def _state_of(channel: grpc.Channel, connect: bool = False) -> grpc.ChannelConnectivity | None:
    """Returns the channel's state, which gRPC reports only to subscribers."""
    states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
    try:
        channel.subscribe(states.put, try_to_connect=connect)
        return states.get(timeout=REFUSAL_TIMEOUT)
    except (Empty, ValueError):  # ValueError: closed meanwhile
        return None
    finally:
        channel.unsubscribe(states.put)
