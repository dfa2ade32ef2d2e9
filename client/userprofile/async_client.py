"""The client for asyncio: the twin of `client.py`, with the same names."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeVar, Unpack

import grpc
import grpc.aio

from userprofile.answers import Outcome, lenient, outcome_of, understood
from userprofile.batches import BATCHES_IN_FLIGHT, Batch, check_several, collect, split
from userprofile.calls import Call, Calls, check_token, without_waiting
from userprofile.channel import ChannelOptions, Endpoint
from userprofile.client import DEFAULT_RETRIES, DEFAULT_TARGET, DEFAULT_TIMEOUT, REFUSAL_TIMEOUT
from userprofile.errors import (
    DeadlineExceededError,
    UserNotFoundError,
    UserProfileError,
    closed_meanwhile,
    never_reached,
    unsendable,
)
from userprofile.health import HEALTH_REQUEST, health_check, is_serving
from userprofile.options import TLS, CallOptions, Metadata
from userprofile.user import User
from userprofile.v1 import user_profile_pb2 as pb
from userprofile.v1 import user_profile_pb2_grpc as pb_grpc

T = TypeVar("T")

_Asking = asyncio.Task[Iterable[tuple[str, Outcome]]]


class AsyncUserProfileClient:
    """Asks a userprofile service from asyncio. Close it, or use it in an `async with` block.

    Any number of tasks of one event loop may share it; it belongs to the loop of its first call. In all else it is
    like `UserProfileClient`.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = DEFAULT_RETRIES,
        wait_for_ready: bool = True,
        health_checking: bool = False,
        token: str | Callable[[], str] | Callable[[], Awaitable[str]] | None = None,
        allow_plaintext_token: bool = False,
        tls: TLS | None = None,
        metadata: Metadata = (),
        channel_options: ChannelOptions = (),
    ) -> None:
        """Takes the arguments of `UserProfileClient`, which says what they mean; `token` may be an async function.

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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._checking: set[grpc.aio.Channel] = set()
        self._asking: set[_Asking] = set()
        self._channel: grpc.aio.Channel
        self._stub: pb_grpc.UserProfileServiceAsyncStub

    async def get_user(self, username: str, **options: Unpack[CallOptions]) -> User:
        """See `UserProfileClient.get_user`."""
        call = await self._begin(options)
        if (problem := unsendable(username)) is not None:
            raise problem
        response = await self._answer(self._stub.GetUser(pb.GetUserRequest(username=username), **call.arguments), call)
        outcome = outcome_of(response, username, call.request_id)
        if isinstance(outcome, UserProfileError):
            raise outcome
        return outcome

    async def find_user(self, username: str, **options: Unpack[CallOptions]) -> User | None:
        """See `UserProfileClient.find_user`."""
        try:
            return await self.get_user(username, **options)
        except UserNotFoundError:
            return None

    async def get_users(self, usernames: Iterable[str], **options: Unpack[CallOptions]) -> dict[str, User]:
        """See `UserProfileClient.get_users`."""
        check_several(usernames)
        found: list[tuple[str, Outcome]] = []
        async with aclosing(self._ask_ahead(dict.fromkeys(usernames), options)) as batches:
            async for _, asked in batches:
                found += await self._or_closed(asked, None)
        return collect(found)

    async def iter_users(
        self, usernames: Iterable[str], **options: Unpack[CallOptions]
    ) -> AsyncGenerator[tuple[str, User | UserProfileError], None]:
        """See `UserProfileClient.iter_users`."""
        check_several(usernames)
        async with aclosing(self._ask_ahead(usernames, options)) as batches:
            async for batch, asked in batches:
                try:
                    outcomes = await self._or_closed(asked, None)
                except UserProfileError as error:
                    outcomes = batch.failed(error)
                for outcome in outcomes:
                    yield outcome

    async def check_health(self, **options: Unpack[CallOptions]) -> bool:
        """See `UserProfileClient.check_health`."""
        # About now, so it doesn't wait; and a health-checked channel never gets through to a server that isn't serving.
        call = await self._begin(without_waiting(options))
        async with self._open(self._endpoint.unbalanced) as channel:
            self._checking.add(channel)
            try:
                check = health_check(lenient(channel))
                return is_serving(await self._answer(check(HEALTH_REQUEST, **call.arguments), call))
            finally:
                self._checking.discard(channel)

    async def close(self) -> None:
        """Closes the connections; calls in progress are cancelled, later ones raise RuntimeError."""
        self._calls.closed = True
        await _end(list(self._asking))  # of an iter_users that somebody has left in the middle
        if self._loop is not None:
            await self._channel.close()
        for channel in list(self._checking):
            await channel.close()

    async def __aenter__(self) -> Self:
        """Returns the client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the client."""
        await self.close()

    def _open(self, options: ChannelOptions) -> grpc.aio.Channel:
        if self._endpoint.credentials is None:
            return grpc.aio.insecure_channel(self._endpoint.target, options)
        return grpc.aio.secure_channel(self._endpoint.target, self._endpoint.credentials, options)

    async def _begin(self, options: CallOptions) -> Call:
        self._calls.check_usable()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            # A channel of grpc.aio belongs to the loop that it is made in, so it isn't made before there is one.
            self._channel = self._open(self._endpoint.balanced)
            self._stub = pb_grpc.UserProfileServiceStub(lenient(self._channel))
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop; make one for each")
        if not callable(self._token):
            return self._calls.begin(self._token, **options)
        token = self._token()
        spent = 0.0
        if isinstance(token, Awaitable):
            began = loop.time()
            token = await self._token_in_time(token, options)
            spent = loop.time() - began
        check_token(token)
        call = self._calls.begin(token, **options)
        call.arguments["timeout"] -= spent
        return call

    async def _token_in_time(self, token: Awaitable[str], options: CallOptions) -> str:
        timeout = options.get("timeout")
        try:
            async with asyncio.timeout(self._calls.timeout if timeout is None else timeout):
                return await token
        except TimeoutError:
            raise DeadlineExceededError(
                "The token was not there in time.", code=grpc.StatusCode.DEADLINE_EXCEEDED
            ) from None

    async def _answer(self, asked: Awaitable[T], call: Call) -> T:
        try:
            return understood(await self._or_closed(asked, call.request_id), call.request_id)
        except grpc.RpcError as error:
            raise await self._error(error, call) from None

    async def _error(self, error: Any, call: Call) -> UserProfileError:
        """See `UserProfileClient._error`."""
        failing = grpc.ChannelConnectivity.TRANSIENT_FAILURE
        if call.waited_in_vain(error.code()) and not self._calls.closed and self._channel.get_state() is failing:
            try:
                await health_check(self._channel)(HEALTH_REQUEST, timeout=REFUSAL_TIMEOUT, wait_for_ready=False)
            except grpc.RpcError as refusal:
                if refusal.code() is grpc.StatusCode.UNAVAILABLE:
                    return never_reached(refusal, call.request_id, self.target, call.arguments["timeout"])
        return self._calls.failure(error, call)

    async def _or_closed(self, asked: Awaitable[T], request_id: str | None) -> T:
        """Waits for a call. `close` cancels it, which mustn't look as if the caller's own task had been cancelled."""
        try:
            return await asked
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._calls.closed and task is not None and not task.cancelling():
                raise closed_meanwhile(request_id) from None
            raise

    async def _ask_ahead(
        self, usernames: Iterable[str], options: CallOptions
    ) -> "AsyncGenerator[tuple[Batch, _Asking]]":
        """Yields the batches in order, while the next few of them are asked for already."""
        asked: deque[tuple[Batch, _Asking]] = deque()
        try:
            for batch in split(usernames):
                task = asyncio.create_task(self._ask(batch, options))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
                asked.append((batch, task))
                if len(asked) == BATCHES_IN_FLIGHT:
                    yield asked.popleft()
            while asked:
                yield asked.popleft()
        finally:
            await _end([task for _, task in asked])

    async def _ask(self, batch: Batch, options: CallOptions) -> Iterable[tuple[str, Outcome]]:
        call = await self._begin(options)
        request = batch.request()
        if request is None:
            return batch.outcomes((), None)
        response = await self._answer(self._stub.BatchGetUsers(request, **call.arguments), call)
        return batch.outcomes(response.results, call.request_id)


async def _end(tasks: Sequence[_Asking]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
