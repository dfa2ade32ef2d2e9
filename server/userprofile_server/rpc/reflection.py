"""Server reflection, v1 and v1alpha: lets grpcurl list, describe and call methods without the protos."""

import contextvars
import functools
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, cast

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from userprofile_server.errors import DomainError, MalformedRequestError
from userprofile_server.rpc.stages.error_boundary import end_of_call
from userprofile_server.rpc.streams import Stream
from userprofile_server.rpc.waiting_calls import WaitingCalls

_V1ALPHA = reflection.SERVICE_NAME
_V1 = "grpc.reflection.v1.ServerReflection"

PATHS = tuple(f"/{service}/ServerReflectionInfo" for service in (_V1, _V1ALPHA))
"""The paths of its method."""


class Reflection:
    """Describes services to debugging tools, on its own thread. An open stream holds no thread."""

    def __init__(self, *services: str, idle: WaitingCalls) -> None:
        """Describes `services` and itself. `idle` tracks streams that wait for their clients."""
        _describe_v1()
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="reflection")
        """Runs the calls of this service."""
        pool = cast(descriptor_pool.DescriptorPool, _Symbols(descriptor_pool.Default()))
        self._servicer = reflection.ReflectionServicer((*services, _V1, _V1ALPHA), pool)
        self._idle = idle

    @property
    def services(self) -> list[ServiceDescriptor]:
        """The reflection service under both names, the only difference between v1 and v1alpha."""
        return [descriptor_pool.Default().FindServiceByName(name) for name in (_V1, _V1ALPHA)]

    def start(self) -> None:
        """Starts the thread. With the first call it would be too late: gRPC's own thread would end if it can't."""
        self.executor.submit(int)

    def close(self) -> None:
        """Ends the thread."""
        self.executor.shutdown()

    def ServerReflectionInfo(self, _requests: object, context: grpc.ServicerContext) -> None:  # noqa: N802
        """Opens a stream of requests and responses."""
        _Conversation(context, self.executor, self._servicer, self._idle).begin()


class _Conversation:
    """One open stream: a response to each request, in order."""

    def __init__(
        self,
        context: grpc.ServicerContext,
        executor: ThreadPoolExecutor,
        servicer: reflection.ReflectionServicer,
        idle: WaitingCalls,
    ) -> None:
        self._context = context
        self._executor = executor
        self._servicer = servicer
        self._idle = idle
        self._stream = Stream(context)
        self._variables = contextvars.copy_context()  # with the request id, for the log

    def begin(self) -> None:
        self._idle.add(self, self._end)
        self._receive()

    def _receive(self) -> None:
        self._stream.receive(self._submit)

    def _submit(self, data: bytes | None) -> None:
        if self._idle.remove(self):
            with suppress(RuntimeError):  # closed: the server has stopped
                self._executor.submit(self._variables.run, self._respond, data)

    def _respond(self, data: bytes | None) -> None:
        if data is None:
            self._stream.end()
            return
        try:
            response = self._response_to(data)
        except Exception as error:  # noqa: BLE001, outside the error boundary, which has returned already
            self._stream.end(*end_of_call(self._context, error))
        else:
            self._idle.add(self, self._end)  # a client that doesn't read is idle too
            self._stream.send(response, self._receive)

    def _end(self, error: DomainError) -> None:
        if self._context.is_active():
            self._stream.end(*self._variables.copy().run(end_of_call, self._context, error))

    def _response_to(self, data: bytes) -> bytes:
        try:
            request = reflection_pb2.ServerReflectionRequest.FromString(data)
        except DecodeError:
            raise MalformedRequestError from None
        (response,) = self._servicer.ServerReflectionInfo(iter([request]), cast(grpc.ServicerContext, None))
        if response.HasField("file_descriptor_response"):
            files = response.file_descriptor_response.file_descriptor_proto
            files[:] = map(_with_json_names, files)
        serialized: bytes = response.SerializeToString()
        return serialized


@functools.lru_cache(maxsize=64)
def _with_json_names(file: bytes) -> bytes:
    """Returns the serialized FileDescriptorProto with the `json_name` of every field.

    protoc omits them from the descriptors in Python modules, so grpcurl would print `full_name` for `fullName`. They
    can't be filled in ahead of time, because modules loaded later add descriptors.
    """
    descriptor = descriptor_pb2.FileDescriptorProto.FromString(file)
    _set_json_names(descriptor.extension)
    messages = list(descriptor.message_type)
    while messages:
        message = messages.pop()
        _set_json_names(message.field)
        _set_json_names(message.extension)
        messages += message.nested_type
    return descriptor.SerializeToString()


def _set_json_names(fields: Iterable[descriptor_pb2.FieldDescriptorProto]) -> None:
    for field in fields:
        if not field.HasField("json_name"):
            field.json_name = re.sub("_+(.?)", lambda match: match[1].upper(), field.name)


class _Symbols:
    """A descriptor pool that finds every named symbol. Python's pool finds only top-level ones."""

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


@functools.cache
def _describe_v1() -> None:
    """Describes the v1 protocol. grpcio-reflection ships v1alpha alone, which is the same but for its name."""
    v1alpha = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(v1alpha)
    text = text_format.MessageToString(v1alpha).replace("v1alpha", "v1")
    v1 = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(v1.SerializeToString())
