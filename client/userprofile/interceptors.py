"""The caller's interceptors, in grpcio's own form (https://grpc.io/docs/guides/interceptors/).

They see the call as the client makes it: its whole time, its metadata with the request id, and not its token, which
goes past them as call credentials and becomes metadata only below them.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import grpc
import grpc.aio

Interceptor = (
    grpc.UnaryUnaryClientInterceptor
    | grpc.UnaryStreamClientInterceptor
    | grpc.StreamUnaryClientInterceptor
    | grpc.StreamStreamClientInterceptor
)
"""Those of streams are accepted as well, because libraries return all kinds at once. The service has no streams."""


class BearerToken(grpc.CallCredentials):
    """Takes the token of a call past the interceptors. gRPC's own would need TLS, which loopback targets don't."""

    def __init__(self, token: str) -> None:
        """Takes the token."""
        self.authorization = "authorization", f"Bearer {token}"

    def __repr__(self) -> str:
        """Omits the token."""
        return "BearerToken()"


def intercepted(channel: grpc.Channel, interceptors: Sequence[Interceptor]) -> grpc.Channel:
    """Returns a channel whose calls pass the interceptors, in this order; `channel` itself if there are none."""
    if interceptors:
        channel = grpc.intercept_channel(channel, *interceptors, _AddToken())
    # Others, like OpenTelemetry's instrumentor, make gRPC's functions return channels with interceptors.
    return channel if type(channel).__module__ == "grpc._channel" else cast(grpc.Channel, _Unregistered(channel))


def checked(interceptors: Iterable[Interceptor]) -> Sequence[Interceptor]:
    """Returns the interceptors of unary calls. Raises TypeError if one isn't an interceptor."""
    return _of_kind(interceptors, Interceptor, grpc.UnaryUnaryClientInterceptor, "grpc")


def checked_async(interceptors: Iterable[grpc.aio.ClientInterceptor]) -> Sequence[grpc.aio.ClientInterceptor]:
    """Returns what an asyncio channel needs for these interceptors. Raises TypeError if one isn't an interceptor."""
    kind = grpc.aio.UnaryUnaryClientInterceptor
    given = _of_kind(interceptors, grpc.aio.ClientInterceptor, kind, "grpc.aio")
    return [*map(_Bypassable, given), _AddTokenAsync()] if given else []


def _of_kind(interceptors: Iterable[Any], kinds: Any, kind: type[Any], module: str) -> list[Any]:
    if not isinstance(interceptors, Iterable):
        raise TypeError(f"interceptors must be a sequence, not {type(interceptors).__name__}")
    given = list(interceptors)
    for interceptor in given:
        if not isinstance(interceptor, kinds):
            what = interceptor if isinstance(interceptor, type) else type(interceptor)
            which = "the class " if interceptor is what else "a "
            raise TypeError(
                f"an interceptor must be a {module}.{kind.__name__}, not {which}{what.__module__}.{what.__qualname__}"
            )
    return [interceptor for interceptor in given if isinstance(interceptor, kind)]


_bypassed = ContextVar("_bypassed", default=False)


@contextmanager
def bypassed() -> Iterator[None]:
    """Keeps interceptors from seeing calls of an asyncio channel that begin within the block: the client's own."""
    before = _bypassed.set(True)
    try:
        yield
    finally:
        _bypassed.reset(before)


def raise_own(error: Any) -> None:
    """Raises the exception of an interceptor, as it is, if it isn't the status of a call.

    Args:
        error: The grpc.RpcError that a call has raised.
    """
    if isinstance(error, grpc.Future) and isinstance(error, grpc.Call) and not error.cancelled():
        own = error.exception()  # gRPC wraps what an interceptor within another raises
        if own is not None and own is not error:
            raise own
    status = [getattr(error, name, None) for name in ("code", "details", "trailing_metadata")]
    if not all(callable(each) for each in status) or not isinstance(error.code(), grpc.StatusCode):
        raise error


class _Unregistered:
    """A channel with interceptors that can be closed during calls.

    In each call that passes an interceptor, gRPC looks up the registered method, which generated stubs ask for, and
    crashes if the channel is closed at that moment.
    """

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def unary_unary(self, method: str, *, _registered_method: bool = False, **details: Any) -> Any:
        return self._channel.unary_unary(method, **details)


class _AddToken(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        details = client_call_details
        if isinstance(details.credentials, BearerToken):
            metadata = [*(details.metadata or ()), details.credentials.authorization]
            details = details._replace(metadata=metadata, credentials=None)
        return continuation(details, request)


class _AddTokenAsync(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], client_call_details: Any, request: Any
    ) -> Any:
        details = client_call_details
        if isinstance(details.credentials, BearerToken):
            metadata = grpc.aio.Metadata(*(details.metadata or ()), details.credentials.authorization)
            details = grpc.aio.ClientCallDetails(
                details.method, details.timeout, metadata, None, details.wait_for_ready
            )
        return await continuation(details, request)


class _Bypassable(grpc.aio.UnaryUnaryClientInterceptor):
    """One of the caller's. An asyncio channel has its interceptors from the beginning, for all of its calls."""

    def __init__(self, interceptor: grpc.aio.ClientInterceptor) -> None:
        self._interceptor = cast(grpc.aio.UnaryUnaryClientInterceptor, interceptor)

    async def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Awaitable[Any]], client_call_details: Any, request: Any
    ) -> Any:
        if _bypassed.get():
            return await continuation(client_call_details, request)
        return await self._interceptor.intercept_unary_unary(continuation, client_call_details, request)
