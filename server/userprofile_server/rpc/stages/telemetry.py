"""The stage that observes every call: when it began, how long it took, how it ended."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import grpc

from userprofile_server.rpc.stages import Handler, Method, Stage, status_of
from userprofile_server.telemetry import call
from userprofile_server.telemetry.call import Call


class CallObserver(Protocol):
    """What is done with the calls of one method: counting them, logging them. On each call's way, so it never waits."""

    def started(self) -> None:
        """A call was started."""

    def ended(self, call: Call, code: grpc.StatusCode, seconds: float, queued: float | None) -> None:
        """A call has ended, `seconds` after it was queued. `queued` of them it waited for a worker; None without."""


def telemetry(
    observers: Sequence[Callable[[Method], CallObserver]], queued_at: Callable[[], float | None]
) -> Stage | None:
    """Returns the stage; None if nobody observes.

    A call has ended when its handler has. A streaming method's handler returns at once, so its calls end when the
    stream does.

    Args:
        observers: Make the observers of a method.
        queued_at: Returns when the calling thread's call was queued, by the monotonic clock.
    """

    def with_telemetry(method: Method, handle: Handler) -> Handler:
        observing = [observer(method) for observer in observers]

        def handle_observed(request: object, context: grpc.ServicerContext) -> object:
            began = time.monotonic()
            for observer in observing:
                observer.started()
            queued_since = queued_at()
            queued = None if queued_since is None else began - queued_since
            try:
                return handle(request, context)
            finally:
                seconds = time.monotonic() - (began if queued_since is None else queued_since)
                current, code = call.current.get(), status_of(context)
                for observer in observing:
                    observer.ended(current, code, seconds, queued)

        def handle_observed_stream(request: object, context: grpc.ServicerContext) -> object:
            began = time.monotonic()
            for observer in observing:
                observer.started()
            current = call.current.get()  # the stream ends on another thread

            def end() -> None:
                code = status_of(context, grpc.StatusCode.CANCELLED)  # if the caller has ended the stream
                for observer in observing:
                    observer.ended(current, code, time.monotonic() - began, None)

            try:
                return handle(request, context)
            finally:
                if not context.add_callback(end):
                    end()

        return handle_observed_stream if method.server_streaming else handle_observed

    return with_telemetry if observers else None
