"""The shape of what answers a call, and what may be done to it before grpc gets it."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError, Message

Handler = Callable[[Any, grpc.ServicerContext], Any]
"""Takes a request message and its context, returns the response message or raises."""

Stage = Callable[[Handler], Handler]
"""Wraps a handler in one more duty. Called once for each method when the server is built, never per call."""


MALFORMED_MESSAGE = "The request is not a valid message of this method."

MALFORMED = object()
"""Stands for a request whose bytes are not the message that the method takes."""


def deserializer(kind: type[Message]) -> Callable[[bytes], Any]:
    """Returns what reads a request, or finds it `MALFORMED`.

    Raising would make grpc log a traceback and answer INTERNAL by itself: the caller's mistake, told as ours.
    """

    def deserialize(data: bytes) -> object:
        try:
            return kind.FromString(data)
        except DecodeError:
            return MALFORMED

    return deserialize


def reject_malformed(context: grpc.ServicerContext) -> NoReturn:
    """Answers a malformed request, where no stage does it."""
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, MALFORMED_MESSAGE)
    raise AssertionError("abort returned")


def on_own_threads(
    behavior: Callable[..., Any], executor: ThreadPoolExecutor, *, non_blocking: bool = False
) -> Callable[..., Any]:
    """Has grpc run `behavior` on `executor` instead of the workers, by the attributes that it looks for.

    A streaming behavior that is `non_blocking` gets a third argument, a function that sends a
    response or, given None, ends the stream; it returns at once and holds no thread.
    """
    own = functools.partial(behavior)
    own.__dict__.update(experimental_thread_pool=executor, experimental_non_blocking=non_blocking)
    return own
