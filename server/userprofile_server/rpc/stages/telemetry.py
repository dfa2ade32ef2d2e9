"""The stage that records every call: when it began, how long it took, how it ended."""

import time
from collections.abc import Callable
from typing import Any

import grpc

from userprofile_server.rpc.stages import Handler, Method, Stage
from userprofile_server.telemetry import call, metrics
from userprofile_server.telemetry.recorder import Recorder


def telemetry(recorder: Recorder, queued_at: Callable[[], float | None]) -> Stage:
    """Returns the stage. `queued_at` returns when the calling thread's call was queued, by the monotonic clock.

    A call is recorded when its handler has ended. A streaming method's handler returns at once, so its calls are
    recorded when they end.
    """

    def with_telemetry(method: Method, handle: Handler) -> Handler:
        service = method.containing_service.full_name
        labels = (_type_of(method), service, method.name)
        started = (metrics.STARTED.name, *labels)
        ended = {code: (metrics.HANDLED.name, *labels, code.name) for code in grpc.StatusCode}
        recorder.count(started, 0)

        def handle_recorded(request: object, context: grpc.ServicerContext) -> object:
            recorder.count(started)
            began = time.monotonic()
            if (queued := queued_at()) is not None:
                recorder.observe(_QUEUED, began - queued)
                began = queued
            try:
                return handle(request, context)
            finally:
                recorder.observe(ended[_code(context)], time.monotonic() - began)
                if (reason := call.current.get().reason) is not None:
                    recorder.count((metrics.ERRORS.name, service, method.name, reason))

        def handle_recorded_stream(request: object, context: grpc.ServicerContext) -> object:
            recorder.count(started)
            began = time.monotonic()

            def end() -> None:
                code = _code(context, grpc.StatusCode.CANCELLED)  # if the caller has ended the stream
                recorder.observe(ended[code], time.monotonic() - began)

            try:
                return handle(request, context)
            finally:
                if (reason := call.current.get().reason) is not None:
                    recorder.count((metrics.ERRORS.name, service, method.name, reason))
                if not context.add_callback(end):
                    end()

        return handle_recorded_stream if method.server_streaming else handle_recorded

    return with_telemetry


_QUEUED = (metrics.QUEUED.name,)


def _code(context: Any, otherwise: grpc.StatusCode = grpc.StatusCode.OK) -> grpc.StatusCode:
    """Returns the status that the handler has set, `otherwise` if none."""
    code: grpc.StatusCode | None = context.code()
    return otherwise if code is None else code


def _type_of(method: Method) -> str:
    """Returns the type of a method as go-grpc-middleware calls it."""
    if method.client_streaming:
        return "bidi_stream" if method.server_streaming else "client_stream"
    return "server_stream" if method.server_streaming else "unary"
