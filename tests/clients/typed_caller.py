"""What a caller writes, for the type checker alone: `make types` holds that it needs no ignore."""

from collections.abc import Callable
from contextlib import aclosing, closing
from typing import Any

import grpc
import grpc.aio

from userprofile import TLS, AsyncUserProfileClient, CallOptions, User, UserProfileClient, UserProfileError


def full_name(client: UserProfileClient, context: grpc.ServicerContext) -> str | None:
    options: CallOptions = {"timeout": 1.5, "request_id": "mine", "metadata": [("x-tenant", "acme")]}
    user: User | None = client.find_user("johndoe", **options)
    if user is None:
        user = client.get_user("alice", fields=["full_name"], context=context)
    return user.full_name


def first_failure(client: UserProfileClient, names: list[str]) -> str | None:
    with closing(client.iter_users(names)) as outcomes:
        for username, outcome in outcomes:
            match outcome:
                case User(email=str(email)):
                    print(email)
                case UserProfileError(retryable=False, reason=reason):
                    return f"{username}: {reason}"
    return None


async def both(client: AsyncUserProfileClient, context: "grpc.aio.ServicerContext[bytes, bytes]") -> dict[str, User]:
    async with aclosing(client.iter_users(["johndoe"], context=context)) as outcomes:
        async for _, outcome in outcomes:
            assert isinstance(outcome, User)
    return await client.get_users(["johndoe", "alice"], fields={"email"}, wait_for_ready=True)


async def token() -> str:
    return "a-token"


class Interceptor(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.ClientCallDetails, request: object
    ) -> Any:
        return continuation(client_call_details, request)


class AsyncInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: object
    ) -> Any:
        return await continuation(client_call_details, request)


def intercepted() -> tuple[UserProfileClient, AsyncUserProfileClient]:
    options = [("grpc.max_receive_message_length", 1_000_000)]
    return UserProfileClient(interceptors=[Interceptor()], channel_options=options), AsyncUserProfileClient(
        interceptors=(AsyncInterceptor(),), channel_options=options
    )


def make() -> tuple[UserProfileClient, AsyncUserProfileClient]:
    tls = TLS(ca="ca.pem")
    return UserProfileClient("users:443", tls=tls, token=lambda: "t"), AsyncUserProfileClient(tls=tls, token=token)
