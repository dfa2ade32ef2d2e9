"""The arguments of each call: timeout, metadata, token. Shared by both clients."""

import os
import re
import secrets
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import grpc

from userprofile.call_options import CallOptions, Metadata, ServingContext
from userprofile.errors import REQUEST_ID, UserProfileError, closed_meanwhile, from_rpc_error
from userprofile.interceptors import BearerToken
from userprofile.spans import NO_SPAN, CallSpan

MAX_TIMEOUT = 86_400
"""Seconds. Far larger values overflow gRPC's clock, and the call fails at once."""

REQUEST_ID_KEY = "x-request-id"
_AUTHORIZATION_KEY = "authorization"

_OPTION_OF = {REQUEST_ID_KEY: "request_id", _AUTHORIZATION_KEY: "token"}
_PASSED_ON = frozenset({REQUEST_ID_KEY, "traceparent", "tracestate"})

_TOKEN = re.compile(r"[!-~]+")
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")


class Call(NamedTuple):
    """The arguments of one call, and when it began."""

    arguments: dict[str, Any]
    """The keyword arguments for the stub's method."""
    request_id: str
    began: float
    """By `time.monotonic`."""
    span: CallSpan = NO_SPAN

    def left(self) -> float:
        """Returns the seconds until the deadline."""
        timeout: float = self.arguments["timeout"]
        return self.began + timeout - time.monotonic()

    def arguments_of_retry(self) -> dict[str, Any]:
        """Returns the arguments of another attempt, with the same deadline."""
        return {**self.arguments, "timeout": self.left()}

    def __repr__(self) -> str:
        """Omits the arguments: they contain the token, and some tracebacks show the variables of their frames."""
        return f"Call({self.request_id})"


class CallFactory:
    """Builds the arguments of calls from the client's options and each call's options."""

    def __init__(
        self, target: str, *, timeout: float, wait_for_ready: bool, metadata: Metadata, intercepted: bool = False
    ) -> None:
        """Raises ValueError for an invalid option. `intercepted` calls hide their token from interceptors."""
        timeout = _seconds(timeout)
        if not 0 < timeout <= MAX_TIMEOUT:
            raise ValueError(f"the timeout must be above zero and at most a day ({MAX_TIMEOUT} s), not {timeout}")
        self._target = target
        self._timeout = timeout
        self._wait_for_ready = wait_for_ready
        self._metadata = checked(metadata)
        self._intercepted = intercepted
        self._pid = os.getpid()
        self.closed = False
        """Set by the client's `close`."""

    def check_usable(self) -> None:
        """Raises RuntimeError if the client was closed, and in a child process."""
        if self.closed:
            raise RuntimeError("this client is closed")
        if os.getpid() != self._pid:  # gRPC's threads didn't come along: a call would hang
            raise RuntimeError("this client was made in another process; make a new one after the fork")

    def failure(self, error: Any, call: Call) -> UserProfileError:
        """Returns the error for the grpc.RpcError with which `call` has ended."""
        if self.closed and error.code() is grpc.StatusCode.CANCELLED:
            return closed_meanwhile(call.request_id)
        return from_rpc_error(error, call.request_id, target=self._target, timeout=call.arguments["timeout"])

    def begin(
        self,
        token: str | None,
        method: str | None = None,
        *,
        timeout: float | None = None,
        wait_for_ready: bool | None = None,
        request_id: str | None = None,
        metadata: Metadata = (),
        context: ServingContext | None = None,
    ) -> Call:
        """Returns the arguments of a call with these options; see `CallOptions`.

        With the name of a `method` the call has a span if the application traces.

        Raises:
            RuntimeError: the client was closed, or was made in another process.
            ValueError: the token or an option can't be sent.
        """
        self.check_usable()
        timeout = self.timeout_of(timeout, context)
        sent: list[tuple[str, Any]] = [*self._metadata, *checked(metadata)] if metadata else list(self._metadata)
        trace: dict[str, str] = {}
        if context is not None:
            trace = _passed_on(context.invocation_metadata())
            received = trace.pop(REQUEST_ID_KEY, None)
            request_id = request_id or received
        if request_id is None:
            request_id = secrets.token_hex(16)  # not from `random`, which the application may have seeded
        elif not REQUEST_ID.fullmatch(request_id):
            raise ValueError("a request id must have 1 to 128 visible ASCII characters")
        if token is not None:
            check_token(token)
        span = NO_SPAN
        # An application that traces has imported it, to set its tracer provider.
        if method is not None and "opentelemetry.trace" in sys.modules:
            from userprofile import otel_spans

            span = otel_spans.begin_span(method, self._target, trace)
        if trace:
            own = {key for key, _ in sent}
            sent += ((key, value) for key, value in trace.items() if key not in own)
        sent.append((REQUEST_ID_KEY, request_id))
        wait_for_ready = self._wait_for_ready if wait_for_ready is None else wait_for_ready
        arguments: dict[str, Any] = {"timeout": timeout, "metadata": sent, "wait_for_ready": wait_for_ready}
        if token is not None:
            if self._intercepted:
                arguments["credentials"] = BearerToken(token)
            else:
                sent.append((_AUTHORIZATION_KEY, f"Bearer {token}"))
        return Call(arguments, request_id, time.monotonic(), span)

    def timeout_of(self, timeout: float | None, context: ServingContext | None) -> float:
        """Returns the seconds that a call with these options may take from now. Raises ValueError like `begin`."""
        timeout = self._timeout if timeout is None else _seconds(timeout)
        if not timeout <= MAX_TIMEOUT:  # also infinity and NaN; zero or less means that the deadline has passed
            raise ValueError(f"a timeout is at most a day ({MAX_TIMEOUT} s), not {timeout}")
        remaining = None if context is None else context.time_remaining()
        return timeout if remaining is None else min(timeout, remaining)


def _seconds(timeout: float) -> float:
    try:
        return timeout + 0.0
    except TypeError:
        raise TypeError(f"a timeout is a number of seconds, not {type(timeout).__name__}") from None


def without_waiting(options: CallOptions) -> CallOptions:
    """Returns `options` with `wait_for_ready` False unless they set it."""
    return options if options.get("wait_for_ready") is not None else {**options, "wait_for_ready": False}


def for_several_calls(options: CallOptions) -> CallOptions:
    """Returns `options` with metadata that each of several calls can read, even if it is an iterator."""
    return {**options, "metadata": checked(options["metadata"])} if options.get("metadata") else options


def check_token(token: str) -> None:
    """Raises ValueError if gRPC can't send the token. The text doesn't contain the token; gRPC's own would."""
    if not isinstance(token, str):
        raise TypeError(f"a token is a string, not {type(token).__name__}")
    if not _TOKEN.fullmatch(token):
        raise ValueError("the token is empty, or has characters that metadata can't carry")


def pairs(name: str, given: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Returns the pairs in `given`, which may be an iterator. Raises TypeError if it consists of anything else."""
    if not isinstance(given, Mapping):  # in gRPC a key may occur twice
        with suppress(TypeError, ValueError):
            return [(key, value) for key, value in given]
    raise TypeError(f"{name} must be a sequence of (name, value) pairs")


def checked(metadata: Metadata) -> Metadata:
    """Returns `metadata` if gRPC can send it. Raises ValueError otherwise; its text has no value, perhaps a secret."""
    metadata = pairs("metadata", metadata)
    for key, value in metadata:
        if not isinstance(key, str) or not _KEY.fullmatch(key) or key.startswith("grpc-"):
            raise ValueError(f"{key!r} is not a metadata key: lower-case letters, digits, `_.-`, and not `grpc-…`")
        if key in _OPTION_OF:
            raise ValueError(f"pass {key!r} as the option `{_OPTION_OF[key]}`")
        if key.endswith("-bin"):
            sendable = isinstance(value, bytes)
        else:
            sendable = isinstance(value, str) and _VALUE.fullmatch(value) is not None
        if not sendable:
            raise ValueError(f"the value of {key!r} must be printable ASCII, or bytes if the key ends in `-bin`")
    return metadata


def _passed_on(received: Iterable[Any] | None) -> dict[str, str]:
    passed_on: dict[str, str] = {}
    for key, value in received or ():
        # Invalid metadata from the caller is ignored: it is no reason to fail.
        if key in _PASSED_ON and isinstance(value, str) and _VALUE.fullmatch(value):
            # Repeated headers are equivalent to one with commas (RFC 9110, 5.3).
            passed_on[key] = f"{passed_on[key]},{value}" if key == "tracestate" and key in passed_on else value
    if not REQUEST_ID.fullmatch(passed_on.get(REQUEST_ID_KEY, "")):
        passed_on.pop(REQUEST_ID_KEY, None)
    return passed_on
