"""Several connections to each server address: one channel per connection, used round robin.

gRPC keeps one connection per address. Its own way to more, `connectionScaling` in the service config (gRFC A105), opens
another one only when the server's limit of concurrent streams is reached, so below that limit it spreads nothing.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

MAX_CONNECTIONS = 64
"""Enough for an even spread over a few processes; each costs memory on both sides."""

OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
"""Channels with the same arguments would otherwise share their connections."""

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)


def in_turn(channels: Sequence[C]) -> C:
    """Returns a channel for a stub that distributes calls over `channels` round robin."""
    return channels[0] if len(channels) == 1 else cast(C, _ChannelsInTurn(channels))


def failing(states: Sequence[grpc.ChannelConnectivity | None]) -> int | None:
    """Returns the index of a channel that fails to connect; None if none fails, or if any channel is connected."""
    if grpc.ChannelConnectivity.READY in states or grpc.ChannelConnectivity.TRANSIENT_FAILURE not in states:
        return None
    return states.index(grpc.ChannelConnectivity.TRANSIENT_FAILURE)


class _ChannelsInTurn:
    def __init__(self, channels: Sequence[Any]) -> None:
        self._channels = channels

    def unary_unary(self, *arguments: Any, **details: Any) -> Any:
        return _MethodInTurn([channel.unary_unary(*arguments, **details) for channel in self._channels])


class _MethodInTurn:
    """One method of several channels."""

    def __init__(self, methods: Sequence[Any]) -> None:
        self._next = cycle(methods).__next__  # atomic, so threads need no lock

    def __call__(self, request: Any, **arguments: Any) -> Any:
        return self._next()(request, **arguments)

    def future(self, request: Any, **arguments: Any) -> Any:
        return self._next().future(request, **arguments)
