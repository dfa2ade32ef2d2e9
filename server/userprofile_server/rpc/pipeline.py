"""Registers a servicer's methods with grpc, each wrapped in the stages and run on an executor."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from userprofile_server.rpc.stages import Handler, Method, Stage
from userprofile_server.rpc.stages.decode import decode
from userprofile_server.rpc.stages.error_boundary import with_error_boundary
from userprofile_server.rpc.stages.request_id import with_request_id


def build_stages(
    *, authorize: Stage | None = None, telemetry: Stage | None = None, tracing: Stage | None = None
) -> tuple[Stage, ...]:
    """Returns the stages of every call, outermost first, each with its dependencies.

    Refused calls are not authorized first, so that a flood of tokens, each to be verified, costs no more than another
    flood.
    """
    stages = (with_request_id, tracing, telemetry, with_error_boundary, authorize, decode)
    return tuple(stage for stage in stages if stage is not None)


class Pipeline:
    """Registers services with a grpc server. Each method is wrapped in all stages once, when it is registered.

    Interceptors could do the same, but grpc runs them on each call.
    """

    def __init__(self, server: grpc.Server, stages: Sequence[Stage]) -> None:
        """`stages` are outermost first."""
        self._server = server
        self._stages = stages

    def add(self, service: ServiceDescriptor, servicer: object, *, executor: ThreadPoolExecutor | None = None) -> None:
        """Registers the methods of `service` that `servicer` implements; the others stay UNIMPLEMENTED.

        Calls run on `executor`, by default the server's own. A method with streaming responses holds no thread: it
        returns at once, and sends its responses through `rpc/streams.py`.
        """
        handlers = {
            method.name: self._handler(method, behavior, executor)
            for method in service.methods
            if (behavior := getattr(servicer, method.name, None)) is not None
        }
        self._server.add_registered_method_handlers(service.full_name, handlers)

    def _handler(
        self, method: Method, handle: Handler, executor: ThreadPoolExecutor | None
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        for stage in reversed(self._stages):
            handle = stage(method, handle)
        behavior: Callable[..., Any] = handle
        if method.server_streaming:

            def open_stream(request: object, context: grpc.ServicerContext, _send: object) -> None:
                handle(request, context)

            behavior = open_stream

        if executor is not None or method.server_streaming:
            # grpc looks for these attributes of a behavior.
            behavior = functools.partial(behavior)
            behavior.__dict__.update(
                experimental_thread_pool=executor, experimental_non_blocking=method.server_streaming
            )
        if method.client_streaming:
            assert method.server_streaming, "many requests and one response: nothing here serves that"
            return grpc.stream_stream_rpc_method_handler(behavior)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(behavior)
        serialize = GetMessageClass(method.output_type).SerializeToString
        return grpc.unary_unary_rpc_method_handler(behavior, response_serializer=serialize)
