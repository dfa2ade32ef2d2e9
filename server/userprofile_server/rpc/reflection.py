"""Server reflection, which lets grpcurl list, describe and call without the protos, in its v1 and v1alpha form."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from userprofile_server.rpc.handler import MALFORMED_MESSAGE, on_own_threads
from userprofile_server.rpc.streams import Stream

_log = logging.getLogger(__name__)

_V1ALPHA = reflection.SERVICE_NAME
_V1 = "grpc.reflection.v1.ServerReflection"


class Reflection:
    """Describes services to debugging tools, on a thread of its own. An open stream holds no thread."""

    def __init__(self, *services: str) -> None:
        """Describes `services` and itself."""
        _describe_v1()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="reflection")
        pool = cast(descriptor_pool.DescriptorPool, _Symbols(descriptor_pool.Default()))
        self._servicer = reflection.ReflectionServicer((*services, _V1, _V1ALPHA), pool)
        self._streams: set[grpc.ServicerContext] = set()
        self._draining = False
        self._lock = threading.Lock()

    def add_to(self, server: grpc.Server) -> None:
        """Registers the service under both names; the two differ in nothing else."""
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            on_own_threads(self._open, self._executor, non_blocking=True),
            request_deserializer=None,
            response_serializer=None,
        )
        for name in (_V1, _V1ALPHA):
            server.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})

    def drain(self) -> None:
        """Cancels all open streams: left open, one would use up the grace of the drain."""
        with self._lock:
            self._draining = True
            streams = list(self._streams)
        for context in streams:
            context.cancel()

    def close(self) -> None:
        """Ends the thread."""
        self._executor.shutdown()

    def _open(self, _requests: Any, context: grpc.ServicerContext, _send: Any) -> None:
        with self._lock:
            self._streams.add(context)
            draining = self._draining
        if not context.add_callback(lambda: self._forget(context)):
            self._forget(context)  # the call has ended already
        if draining:
            context.cancel()
        self._await_request(Stream(context))

    def _forget(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            self._streams.discard(context)

    def _await_request(self, stream: Stream) -> None:
        stream.receive(lambda data: self._submit(stream, data))

    def _submit(self, stream: Stream, data: bytes | None) -> None:
        with suppress(RuntimeError):  # closed: the server has stopped
            self._executor.submit(self._answer, stream, data)

    def _answer(self, stream: Stream, data: bytes | None) -> None:
        if data is None:
            stream.end()
            return
        try:
            request = reflection_pb2.ServerReflectionRequest.FromString(data)
        except DecodeError:
            stream.end(grpc.StatusCode.INVALID_ARGUMENT, MALFORMED_MESSAGE)
            return
        try:
            (response,) = self._servicer.ServerReflectionInfo(iter([request]), cast(grpc.ServicerContext, None))
        except Exception:  # noqa: BLE001, a bug, and the caller would wait for ever
            _log.exception("reflection failed unexpectedly")
            stream.end(grpc.StatusCode.INTERNAL, "The service failed unexpectedly.")
            return
        stream.send(response.SerializeToString(), lambda: self._await_request(stream))


class _Symbols:
    """A descriptor pool that finds everything that has a name, where Python's finds only what stands by itself."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802, the pool's name for it
        with suppress(KeyError):
            return self._pool.FindFileContainingSymbol(symbol)
        parent, _, name = symbol.rpartition(".")
        with suppress(KeyError):
            message = self._pool.FindMessageTypeByName(parent)
            if name in message.fields_by_name or name in message.oneofs_by_name:
                return message.file
            if name in message.enum_values_by_name or name in message.extensions_by_name:
                return message.file
        with suppress(KeyError):
            enum = self._pool.FindEnumTypeByName(parent)
            if name in enum.values_by_name:
                return enum.file
        service = self._pool.FindServiceByName(parent)
        if name not in service.methods_by_name:
            raise KeyError(symbol)
        return service.file


def _describe_v1() -> None:
    """Describes the v1 protocol. grpcio-reflection ships v1alpha alone, which is the same but for its name."""
    v1alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(v1alpha)
    text = text_format.MessageToString(v1alpha).replace("v1alpha", "v1")
    v1 = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())
