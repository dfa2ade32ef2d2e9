"""Certificate rotation: new channels for new calls, while the old channels finish their calls.

gRPC reads certificates only when a channel is made.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import grpc
import grpc.aio

from userprofile.changing_files import NowAndThen
from userprofile.channel import ChannelConfig
from userprofile.connections import in_turn

C = TypeVar("C", bound=grpc.Channel | grpc.aio.Channel)

_READY = grpc.ChannelConnectivity.READY


class _Generation(Generic[C]):
    """The channels that use one set of certificates."""

    def __init__(
        self, channels: list[C], intercept: Callable[[C], C] | None, methods: Sequence[Callable[[C], Any]]
    ) -> None:
        self.channels = channels
        self.for_calls = in_turn(channels if intercept is None else [intercept(channel) for channel in channels])
        self.methods = [method(self.for_calls) for method in methods]
        self.calls: list[None] = []
        """One item per call in progress. Appending and popping are atomic, so threads need no lock."""


class Channels(Generic[C]):
    """The channels of a client. The client's stub uses `for_stub`, which delegates to them."""

    def __init__(
        self,
        config: ChannelConfig,
        open_channel: Callable[[], C],
        state_of: Callable[[C, bool], grpc.ChannelConnectivity | None],
        intercept: Callable[[C], C] | None = None,
    ) -> None:
        """Opens the channels.

        Args:
            config: The number of channels, and their certificates.
            open_channel: Opens a channel with the latest certificates.
            state_of: Returns a channel's state. If the second argument is true, the channel begins to connect. That is
                requested only once: gRPC's connecting thread fails, and logs it, if the channel is closed meanwhile.
            intercept: Returns a channel that passes calls on to another, through the caller's interceptors.
        """
        self._config = config
        self._open_channel = open_channel
        self._state_of = state_of
        self._intercept = intercept
        self._methods: list[Callable[[C], Any]] = []
        self._look = NowAndThen()
        # A check may take longer than the interval until the next one, and a signal handler may close the client in it.
        self._lock = threading.RLock()
        self._finished = False
        self._current = self._open()
        self._next: _Generation[C] | None = None
        self._former: list[_Generation[C]] = []

    @property
    def current(self) -> list[C]:
        """The channels for new calls."""
        return self._current.channels

    def for_stub(self) -> C:
        """Returns a channel that distributes calls over `current`, round robin."""
        return cast(C, self) if self._config.may_change else self._current.for_calls

    def update(self) -> list[C]:
        """Opens new channels if the certificates have changed. Returns unused channels, for the caller to close.

        New channels get calls only once they are connected, because a server may not accept the new certificates yet.
        If the current channels aren't connected either, the new ones get calls at once.
        """
        if not self._config.may_change or not self._look.is_due():
            return []
        with self._lock:
            if self._finished:
                return []
            if self._config.renew_credentials() and not self._finished:
                if self._next is not None:
                    self._former.append(self._next)
                self._next = self._open()
                self._state_of(self._next.channels[0], True)
            if self._next is not None and self._is_time_for(self._next):
                self._former.append(self._current)
                self._current, self._next = self._next, None
            if self._finished:  # meanwhile, by a signal handler of this thread
                return self._all()
            unused = [former for former in self._former if not former.calls]
            self._former = [former for former in self._former if former not in unused]
        return [channel for former in unused for channel in former.channels]

    def finish(self) -> list[C]:
        """Returns all channels, for the caller to close. Opens no new ones after that."""
        with self._lock:
            self._finished = True
            return self._all()

    def _all(self) -> list[C]:
        generations = [self._current, *self._former, *([] if self._next is None else [self._next])]
        return [channel for generation in generations for channel in generation.channels]

    def unary_unary(self, *arguments: Any, **details: Any) -> Any:
        """Returns the callable for a method of the stub."""
        self._methods.append(lambda channel: channel.unary_unary(*arguments, **details))
        self._current.methods.append(self._methods[-1](self._current.for_calls))
        kind = _AsyncMethod if isinstance(self.current[0], grpc.aio.Channel) else _Method
        return kind(self._enter, len(self._methods) - 1)

    def _open(self) -> _Generation[C]:
        channels = [self._open_channel() for _ in range(self._config.connections)]
        return _Generation(channels, self._intercept, self._methods)

    def _is_time_for(self, new: _Generation[C]) -> bool:
        connected = self._state_of(new.channels[0], False) is _READY
        return connected or self._state_of(self.current[0], False) is not _READY

    def _enter(self) -> _Generation[C]:
        """Returns the current channels and adds an item to their `calls`. They stay open until it is removed."""
        while True:
            current = self._current
            current.calls.append(None)
            if current is self._current:  # otherwise they may just have been found unused
                return current
            current.calls.pop()


class _Method:
    def __init__(self, enter: Callable[[], _Generation[Any]], number: int) -> None:
        self._enter = enter
        self._number = number

    def __call__(self, request: Any, **arguments: Any) -> Any:
        generation = self._enter()
        try:
            return generation.methods[self._number](request, **arguments)
        finally:
            generation.calls.pop()

    def future(self, request: Any, **arguments: Any) -> Any:
        generation = self._enter()
        try:
            call = generation.methods[self._number].future(request, **arguments)
            call.add_done_callback(lambda _: generation.calls.pop())
        except BaseException:
            generation.calls.pop()
            raise
        return call


class _AsyncMethod(_Method):
    async def __call__(self, request: Any, **arguments: Any) -> Any:
        generation = self._enter()
        try:
            return await generation.methods[self._number](request, **arguments)
        finally:
            generation.calls.pop()
