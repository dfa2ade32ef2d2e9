"""The stages that a call passes before the servicer, one per file. `rpc/pipeline.py` has their order."""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor

Method = MethodDescriptor
"""What a stage knows of a method when the server is built: its names, its messages, whether it streams."""

Handler = Callable[[Any, grpc.ServicerContext], Any]
"""Takes a request and the call's context; returns the response message, or raises.

The request is bytes before the stage `decode` and a message after it; for streaming requests it is an iterator.
The handler of a method with streaming responses returns None, and sends its responses through `rpc/streams.py`.
"""

Stage = Callable[[Method, Handler], Handler]
"""Wraps a method's handler, once, when the server is built."""


def status_of(context: Any, otherwise: grpc.StatusCode = grpc.StatusCode.OK) -> grpc.StatusCode:
    """Returns the status that the handler has set, `otherwise` if none. For stages outside the error boundary."""
    code: grpc.StatusCode | None = context.code()
    return otherwise if code is None else code


def add_trailing_metadata(context: grpc.ServicerContext, *metadata: tuple[str, str | bytes]) -> None:
    """Adds trailing metadata to the call.

    Stages and servicers use only this, because `set_trailing_metadata` would drop what others have added.
    """
    context.set_trailing_metadata((*(context.trailing_metadata() or ()), *metadata))
