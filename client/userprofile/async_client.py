"""The client for asyncio: the twin of `client.py`, with the same names."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from userprofile.batches import BATCHES_IN_FLIGHT, Batch, check_several, collect, split
from userprofile.call_options import TLS, CallOptions, Metadata
from userprofile.calls import Call, CallFactory, check_token, for_several_calls, without_waiting
from userprofile.channel import ChannelConfig, ChannelOptions
from userprofile.client import DEFAULT_RETRIES, DEFAULT_TARGET, DEFAULT_TIMEOUT, REFUSAL_TIMEOUT
from userprofile.connections import failing
from userprofile.errors import (
    DeadlineExceededError,
    UserNotFoundError,
    UserProfileError,
    closed_meanwhile,
    never_reached,
    unsendable,
)
from userprofile.health import HEALTH_REQUEST, health_check, is_serving
from userprofile.interceptors import bypassed, checked_async, raise_own
from userprofile.responses import Outcome, lenient, outcome_of, understood
from userprofile.retries import Retries
from userprofile.rotation import Channels
from userprofile.token_file import token_or_file
from userprofile.user import User, read_mask
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

T = TypeVar("T")

_BatchTask = asyncio.Task[Iterable[tuple[str, Outcome]]]


class AsyncUserProfileClient:
    """Client of a userprofile service for asyncio. Close it, or use it in an `async with` block.

    Safe to share between the tasks of one event loop; it belongs to the loop of its first call. Otherwise it works
    like `UserProfileClient`.
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
        token: str | Callable[[], str] | Callable[[], Awaitable[str]] | None = None,
        token_file: Path | str | None = None,
        allow_plaintext_token: bool = False,
        tls: TLS | None = None,
        metadata: Metadata = (),
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        channel_options: ChannelOptions = (),
    ) -> None:
        """Takes the arguments of `UserProfileClient`; `token` may also be an async function.

        `interceptors` are those of `grpc.aio`.

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
        self._interceptors = checked_async(interceptors)
        self._call_factory = CallFactory(
            target,
            timeout=timeout,
            wait_for_ready=wait_for_ready,
            metadata=metadata,
            intercepted=bool(self._interceptors),
        )
        self.target = target
        self._loop: asyncio.AbstractEventLoop | None = None
        self._checking: set[grpc.aio.Channel] = set()
        self._tasks: set[_BatchTask] = set()
        self._retries = Retries(self._channel_config.pauses)
        self._closing = asyncio.Event()
        self._channels: Channels[grpc.aio.Channel]
        self._stub: pb_grpc.UserProfileServiceAsyncStub

    async def get_user(
        self, username: str, *, fields: Iterable[str] | None = None, **options: Unpack[CallOptions]
    ) -> User:
        """See `UserProfileClient.get_user`."""
        mask = read_mask(fields)
        call = await self._begin(options, "GetUser")
        with call.span:
            if (problem := unsendable(username)) is not None:
                raise problem
            request = pb.GetUserRequest(username=username, read_mask=mask)
            response = await self._call("GetUser", self._stub.GetUser, request, call)
            outcome = outcome_of(response, username, call.request_id)
            if isinstance(outcome, UserProfileError):
                raise outcome
            return outcome

    async def find_user(
        self, username: str, *, fields: Iterable[str] | None = None, **options: Unpack[CallOptions]
    ) -> User | None:
        """See `UserProfileClient.find_user`."""
        try:
            return await self.get_user(username, fields=fields, **options)
        except UserNotFoundError:
            return None

    async def get_users(
        self, usernames: Iterable[str], *, fields: Iterable[str] | None = None, **options: Unpack[CallOptions]
    ) -> dict[str, User]:
        """See `UserProfileClient.get_users`."""
        check_several(usernames)
        found: list[tuple[str, Outcome]] = []
        async with aclosing(self._prefetch(dict.fromkeys(usernames), read_mask(fields), options)) as batches:
            async for _, task in batches:
                found += await self._await_unless_closed(task, None)
        return collect(found)

    async def iter_users(
        self, usernames: Iterable[str], *, fields: Iterable[str] | None = None, **options: Unpack[CallOptions]
    ) -> AsyncGenerator[tuple[str, User | UserProfileError], None]:
        """See `UserProfileClient.iter_users`."""
        check_several(usernames)
        async with aclosing(self._prefetch(usernames, read_mask(fields), options)) as batches:
            async for batch, task in batches:
                try:
                    outcomes = await self._await_unless_closed(task, None)
                except UserProfileError as error:
                    outcomes = batch.failed(error)
                for outcome in outcomes:
                    yield outcome

    async def check_health(self, **options: Unpack[CallOptions]) -> bool:
        """See `UserProfileClient.check_health`."""
        # Doesn't wait for a server, because it reports the current state. Uses a channel without health checking, which
        # would never reach a server that isn't serving.
        call = await self._begin(without_waiting(options))
        async with self._open(self._channel_config.single_server_options) as channel:
            self._checking.add(channel)
            try:
                check = health_check(lenient(channel))
                response = await self._await_unless_closed(check(HEALTH_REQUEST, **call.arguments), call.request_id)
                return is_serving(understood(response, call.request_id))
            except grpc.RpcError as error:
                raise_own(error)
                raise self._call_factory.failure(error, call) from None
            finally:
                self._checking.discard(channel)

    async def close(self) -> None:
        """Closes the connections; calls in progress are cancelled, later ones raise RuntimeError.

        Raises:
            RuntimeError: the client is in use by another event loop.
        """
        own = self._loop in (None, asyncio.get_running_loop())
        if not own and self._loop is not None and self._loop.is_running():
            raise RuntimeError("this client belongs to another event loop, which is running; close it there")
        self._call_factory.closed = True
        self._closing.set()
        if own:  # others can't end any more
            await _end(list(self._tasks))  # tasks of abandoned iter_users
        channels = [] if self._loop is None else self._channels.finish()
        for channel in [*channels, *self._checking]:
            with suppress(*([] if own else [RuntimeError])):  # calls of a closed loop can't be cancelled
                await channel.close()

    async def __aenter__(self) -> Self:
        """Returns the client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the client."""
        await self.close()

    def _open(self, options: ChannelOptions) -> grpc.aio.Channel:
        config, interceptors = self._channel_config, self._interceptors
        if config.credentials is None:
            return grpc.aio.insecure_channel(config.target, options, interceptors=interceptors)
        return grpc.aio.secure_channel(config.target, config.credentials, options, interceptors=interceptors)

    async def _begin(self, options: CallOptions, method: str | None = None) -> Call:
        self._call_factory.check_usable()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            # A grpc.aio channel belongs to the event loop in which it is made, so it is made with the first call.
            config = self._channel_config
            self._channels = Channels(
                config,
                lambda: self._open(config.load_balanced_options),
                lambda channel, connect: channel.get_state(try_to_connect=connect),
            )
            self._stub = pb_grpc.UserProfileServiceStub(lenient(self._channels.for_stub()))
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop; make one client for each loop")
        for unused in self._channels.update():
            await unused.close()
        if not callable(self._token):
            return self._call_factory.begin(self._token, method, **options)
        timeout = self._call_factory.timeout_of(options.get("timeout"), options.get("context"))
        token = self._token()
        if isinstance(token, Awaitable):
            began = loop.time()
            token = await _token_in_time(token, timeout)
            options = {**options, "timeout": timeout - (loop.time() - began)}
        check_token(token)
        return self._call_factory.begin(token, method, **options)

    async def _call(self, name: str, method: Callable[..., Awaitable[T]], request: Any, call: Call) -> T:
        try:
            response = await self._await_unless_closed(method(request, **call.arguments), call.request_id)
        except grpc.RpcError as error:
            response = await self._retry(name, method, request, call, error)
        return understood(response, call.request_id)

    async def _retry(self, name: str, method: Callable[..., Awaitable[T]], request: Any, call: Call, error: Any) -> T:
        """See `UserProfileClient._retry`."""
        pauses, began = self._retries.pauses(name), call.began
        while True:
            raise_own(error)
            took = time.monotonic() - began
            pause = self._retries.next_pause(pauses, error, took=took, left=call.left())
            if pause is None:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()
                raise closed_meanwhile(call.request_id) from None
            began = time.monotonic()
            try:
                return await self._await_unless_closed(method(request, **call.arguments_of_retry()), call.request_id)
            except grpc.RpcError as failure:
                if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    break
                error = failure
        raise await self._error(error, call) from None

    async def _error(self, error: Any, call: Call) -> UserProfileError:
        """See `UserProfileClient._error`."""
        if (
            error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # the call, or a retry, may have waited for a server
            and not self._call_factory.closed
            and (number := failing([channel.get_state() for channel in self._channels.current])) is not None
        ):
            check = health_check(self._channels.current[number])
            try:
                with bypassed():
                    await check(HEALTH_REQUEST, timeout=REFUSAL_TIMEOUT, wait_for_ready=False)
            except grpc.RpcError as refusal:
                if refusal.code() is grpc.StatusCode.UNAVAILABLE:
                    return never_reached(refusal, call.request_id, self.target, call.arguments["timeout"])
        return self._call_factory.failure(error, call)

    async def _await_unless_closed(self, call: Awaitable[T], request_id: str | None) -> T:
        """Awaits a call. If `close` cancels it, raises an error instead of CancelledError: the task isn't cancelled."""
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._call_factory.closed and task is not None and not task.cancelling():
                raise closed_meanwhile(request_id) from None
            raise

    async def _prefetch(
        self, usernames: Iterable[str], mask: FieldMask | None, options: CallOptions
    ) -> "AsyncGenerator[tuple[Batch, _BatchTask]]":
        """Yields the batches in order, with the calls of the next few already in flight."""
        options = for_several_calls(options)
        pending: deque[tuple[Batch, _BatchTask]] = deque()
        try:
            for batch in split(usernames):
                task = asyncio.create_task(self._get_batch(batch, mask, options))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                pending.append((batch, task))
                if len(pending) == BATCHES_IN_FLIGHT:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            await _end([task for _, task in pending])

    async def _get_batch(
        self, batch: Batch, mask: FieldMask | None, options: CallOptions
    ) -> Iterable[tuple[str, Outcome]]:
        request = batch.request(mask)
        call = await self._begin(options, None if request is None else "BatchGetUsers")
        if request is None:
            return batch.outcomes((), None)
        with call.span:
            response = await self._call("BatchGetUsers", self._stub.BatchGetUsers, request, call)
        return batch.outcomes(response.results, call.request_id)


async def _token_in_time(token: Awaitable[str], timeout: float) -> str:
    try:
        async with asyncio.timeout(timeout) as limit:
            return await token
    except TimeoutError:
        if not limit.expired():  # it is the token function's own
            raise
        raise DeadlineExceededError(
            "The token function did not return a token before the deadline.", code=grpc.StatusCode.DEADLINE_EXCEEDED
        ) from None


async def _end(tasks: Sequence[_BatchTask]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
