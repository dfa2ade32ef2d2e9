"""The shape of what answers a call, and what may be done to it before grpc gets it."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

Handler = Callable[[Any, grpc.ServicerContext], Any]
"""Takes a request message and its context, returns the response message or raises."""

Stage = Callable[[Handler], Handler]
"""Wraps a handler in one more duty. Called once for each method when the server is built, never per call."""


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
