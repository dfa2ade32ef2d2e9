"""Server reflection, which lets grpcurl list, describe and call without the protos, in its v1 and v1alpha form."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

from userprofile_server.rpc.handler import on_own_threads

_STREAM_SECONDS = 30.0
"""How long a stream may stay open."""

_V1ALPHA = reflection.SERVICE_NAME
_V1 = "grpc.reflection.v1.ServerReflection"


class Reflection:
    """Describes services to debugging tools, on threads of its own: a stream left open holds no worker."""

    def __init__(self, *services: str) -> None:
        """Describes `services` and itself."""
        _describe_v1()
        self._executor = ThreadPoolExecutor(4, thread_name_prefix="reflection")
        self._servicer = reflection.ReflectionServicer((*services, _V1, _V1ALPHA))
        self._streams: set[grpc.ServicerContext] = set()
        self._draining = False

    def add_to(self, server: grpc.Server) -> None:
        """Registers the service under both names; the two differ in nothing else."""
        handler = grpc.stream_stream_rpc_method_handler(
            on_own_threads(self._serve, self._executor),
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        for name in (_V1, _V1ALPHA):
            server.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})

    def drain(self) -> None:
        """Cancels all open streams: left open, one would use up the grace of the drain."""
        self._draining = True
        for context in list(self._streams):
            context.cancel()

    def close(self) -> None:
        """Ends the threads."""
        self._executor.shutdown()

    def _serve(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self._streams.add(context)
        context.add_callback(lambda: self._streams.discard(context))
        if self._draining:
            context.cancel()
        # Each stream holds a thread; a few forgotten ones shall not end reflection for everybody.
        limit = threading.Timer(_STREAM_SECONDS, context.cancel)
        limit.daemon = True
        limit.start()
        try:
            yield from self._servicer.ServerReflectionInfo(requests, context)
        finally:
            limit.cancel()


def _describe_v1() -> None:
    """Describes the v1 protocol. grpcio-reflection ships v1alpha alone, which is the same but for its name."""
    v1alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(v1alpha)
    text = text_format.MessageToString(v1alpha).replace("v1alpha", "v1")
    v1 = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())
