"""The client for threads. `async_client.py` has its twin for asyncio."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from queue import Empty, SimpleQueue
from typing import Any, Self, Unpack

import grpc

from userprofile.answers import Outcome, lenient, outcome_of, understood
from userprofile.batches import BATCHES_IN_FLIGHT, Batch, check_several, collect, split
from userprofile.calls import Call, Calls, check_token, without_waiting
from userprofile.channel import ChannelOptions, Endpoint
from userprofile.errors import UserNotFoundError, UserProfileError, never_reached, unsendable
from userprofile.health import HEALTH_REQUEST, health_check, is_serving
from userprofile.options import TLS, CallOptions, Metadata
from userprofile.user import User
from userprofile.v1 import user_profile_pb2 as pb
from userprofile.v1 import user_profile_pb2_grpc as pb_grpc

DEFAULT_TARGET = "localhost:50051"
DEFAULT_TIMEOUT = 5.0
DEFAULT_RETRIES = 4

REFUSAL_TIMEOUT = 1.0  # seconds; gRPC refuses within milliseconds


class UserProfileClient:
    """Asks a userprofile service. Safe to share between threads; close it, or use it in a `with` block.

    Connects with the first call to all addresses of the target, and again by itself whenever a connection is
    lost. Calls go to them round robin.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        wait_for_ready: bool = True,
        health_checking: bool = False,
        token: str | Callable[[], str] | None = None,
        allow_plaintext_token: bool = False,
        tls: TLS | None = None,
        metadata: Metadata = (),
        channel_options: ChannelOptions = (),
    ) -> None:
        """Takes the servers' address, and how to talk to them.

        Args:
            target: `host:port` (all addresses of the name are used), `ipv4:1.2.3.4:50051,5.6.7.8:50051`, `unix:path`
                or another name that gRPC resolves (https://grpc.github.io/grpc/core/md_doc_naming.html). With TLS the
                port may be left out, and is 443; without, it has to be said.
            timeout: Seconds that a call may take, retries included, unless it says otherwise.
            retries: How often a call is tried again, 0 to 4 times, where the service can't be reached. No call
                changes anything, so that is safe; where most calls fail, gRPC stops retrying.
            wait_for_ready: Whether calls wait for a server that can be reached, until their time is up, so that a
                restart isn't felt; False lets them fail after the retries.
            health_checking: Whether to watch each server's health by the standard protocol, and to leave those alone
                that say NOT_SERVING. The watch carries no token, and a server or gateway that refuses it is not
                called at all; without it, a retry goes to the next server.
            token: Sent with every call as `authorization: Bearer …`. A function is asked for it at each call, so it
                should keep the token at hand until it expires.
            allow_plaintext_token: Allows sending the token without TLS to other machines, where anyone on the way
                can read it.
            tls: Speaks TLS; without it, plaintext.
            metadata: Sent with every call.
            channel_options: Further arguments of the channel, which win over the client's own
                (https://grpc.github.io/grpc/core/group__grpc__arg__keys.html).

        Raises:
            ValueError: an argument or a file of `tls` can't be used, or the token would go to another machine in
                plaintext.
            OSError: a file of `tls` can't be read.
        """
        self._endpoint = Endpoint(
            target, tls=tls, retries=retries, health_checking=health_checking, channel_options=channel_options
        )
        self._endpoint.check_token(token, allow_plaintext=allow_plaintext_token)
        self._calls = Calls(target, timeout=timeout, wait_for_ready=wait_for_ready, metadata=metadata)
        self.target = target
        self._token = token
        self._channel = self._open(self._endpoint.balanced)
        self._checking: set[grpc.Channel] = set()
        self._stub = pb_grpc.UserProfileServiceStub(lenient(self._channel))

    def get_user(self, username: str, **options: Unpack[CallOptions]) -> User:
        """Returns the user; `CallOptions` says what `options` there are.

        Raises:
            UserNotFoundError: nobody has this username.
            InvalidUsernameError: nobody can have it.
            UserProfileError: any other failure; see its subclasses.
        """
        call = self._begin(options)
        if (problem := unsendable(username)) is not None:
            raise problem
        try:
            response = self._stub.GetUser(pb.GetUserRequest(username=username), **call.arguments)
        except grpc.RpcError as error:
            raise self._error(error, call) from None
        except ValueError:  # how gRPC says that the channel was closed a moment ago
            self._calls.check_usable()
            raise
        outcome = outcome_of(understood(response, call.request_id), username, call.request_id)
        if isinstance(outcome, UserProfileError):
            raise outcome
        return outcome

    def find_user(self, username: str, **options: Unpack[CallOptions]) -> User | None:
        """Like `get_user`, but returns None where nobody has this username."""
        try:
            return self.get_user(username, **options)
        except UserNotFoundError:
            return None

    def get_users(self, usernames: Iterable[str], **options: Unpack[CallOptions]) -> dict[str, User]:
        """Returns those of any number of users who exist, by username.

        A name that nobody has is absent, so that the mapping is what was found, and `.get(name)` is None for the
        others. Names are asked for by the hundred, a few hundreds at once; the timeout is that of each hundred.

        Raises:
            BatchError: some names failed for another reason. It has what was found, and what failed.
            UserProfileError: a hundred names failed as a whole. Nothing more is asked for.
        """
        check_several(usernames)
        found: list[tuple[str, Outcome]] = []
        with closing(self._ask_ahead(dict.fromkeys(usernames), options)) as batches:
            for batch in batches:
                found += batch.outcomes()
        return collect(found)

    def iter_users(
        self, usernames: Iterable[str], **options: Unpack[CallOptions]
    ) -> Generator[tuple[str, User | UserProfileError], None, None]:
        """Yields each name, in order, with its user or with the error that `get_user` would have raised.

        For more names than fit into memory: a few hundreds are asked for ahead of what is taken, and none is lost
        where the service can't be reached for a while. Raises no UserProfileError itself.
        """
        check_several(usernames)
        with closing(self._ask_ahead(usernames, options)) as batches:
            for batch in batches:
                yield from batch.outcomes_or_failure()

    def check_health(self, **options: Unpack[CallOptions]) -> bool:
        """Returns whether a server says of itself that it is serving; one of the target's is asked.

        Raises:
            UserProfileError: it gave no answer.
        """
        # About now, so it doesn't wait; and a health-checked channel never gets through to a server that isn't serving.
        call = self._begin(without_waiting(options))
        with self._open(self._endpoint.unbalanced) as channel:
            self._checking.add(channel)
            try:
                response = health_check(lenient(channel))(HEALTH_REQUEST, **call.arguments)
                return is_serving(understood(response, call.request_id))
            except grpc.RpcError as error:
                raise self._calls.failure(error, call) from None
            except ValueError:
                self._calls.check_usable()
                raise
            finally:
                self._checking.discard(channel)

    def close(self) -> None:
        """Closes the connections; calls in progress are cancelled, later ones raise RuntimeError."""
        self._calls.closed = True
        self._channel.close()
        for channel in list(self._checking):
            channel.close()

    def __enter__(self) -> Self:
        """Returns the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the client."""
        self.close()

    def _open(self, options: ChannelOptions) -> grpc.Channel:
        if self._endpoint.credentials is None:
            return grpc.insecure_channel(self._endpoint.target, options)
        return grpc.secure_channel(self._endpoint.target, self._endpoint.credentials, options)

    def _begin(self, options: CallOptions) -> Call:
        self._calls.check_usable()
        if not callable(self._token):
            return self._calls.begin(self._token, **options)
        token = self._token()
        check_token(token)
        return self._calls.begin(token, **options)

    def _error(self, error: Any, call: Call) -> UserProfileError:
        """Returns the error of a call. One whose time was over before a server could be reached says so."""
        failing = grpc.ChannelConnectivity.TRANSIENT_FAILURE
        if call.waited_in_vain(error.code()) and _state_of(self._channel) is failing:
            try:  # while the channel fails, gRPC refuses this at once and sends nothing
                health_check(self._channel)(HEALTH_REQUEST, timeout=REFUSAL_TIMEOUT, wait_for_ready=False)
            except grpc.RpcError as refusal:
                if refusal.code() is grpc.StatusCode.UNAVAILABLE:
                    return never_reached(refusal, call.request_id, self.target, call.arguments["timeout"])
            except ValueError:  # closed meanwhile
                pass
        return self._calls.failure(error, call)

    def _ask_ahead(self, usernames: Iterable[str], options: CallOptions) -> "Generator[_AskedBatch]":
        """Yields the batches in order, while the next few of them are asked for already."""
        asked: deque[_AskedBatch] = deque()
        try:
            for batch in split(usernames):
                asked.append(self._ask(batch, options))
                if len(asked) == BATCHES_IN_FLIGHT:
                    yield asked.popleft()
            while asked:
                yield asked.popleft()
        finally:
            for abandoned in asked:
                abandoned.cancel()

    def _ask(self, batch: Batch, options: CallOptions) -> "_AskedBatch":
        call = self._begin(options)
        request = batch.request()
        try:
            future = None if request is None else self._stub.BatchGetUsers.future(request, **call.arguments)
        except ValueError:
            self._calls.check_usable()
            raise
        return _AskedBatch(batch, call, future, self._error)


class _AskedBatch:
    """A batch on its way."""

    def __init__(
        self, batch: Batch, call: Call, future: Any, error_of: Callable[[Any, Call], UserProfileError]
    ) -> None:
        self._error_of = error_of
        self._batch = batch
        self._call = call
        self._future = future

    def outcomes(self) -> Iterable[tuple[str, Outcome]]:
        if self._future is None:
            return self._batch.outcomes((), None)
        try:
            response = self._future.result()
        except grpc.RpcError as error:
            raise self._error_of(error, self._call) from None
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


def _state_of(channel: grpc.Channel) -> grpc.ChannelConnectivity | None:
    """Returns the channel's state, which gRPC tells to those alone who subscribe to it."""
    states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
    try:
        channel.subscribe(states.put)
        return states.get(timeout=REFUSAL_TIMEOUT)
    except (Empty, ValueError):  # ValueError: closed meanwhile
        return None
    finally:
        channel.unsubscribe(states.put)
