"""What goes with each call: its time, its metadata, the token. The same for both clients."""

import os
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import grpc

from userprofile.errors import REQUEST_ID, UserProfileError, closed_meanwhile, from_rpc_error
from userprofile.options import CallOptions, Metadata, ServingContext

MAX_TIMEOUT = 86_400
"""Seconds. Far beyond it gRPC's clock overflows, and the call fails at once."""

REQUEST_ID_KEY = "x-request-id"
_AUTHORIZATION_KEY = "authorization"

_OPTION_OF = {REQUEST_ID_KEY: "request_id", _AUTHORIZATION_KEY: "token"}
_PASSED_ON = frozenset({REQUEST_ID_KEY, "traceparent", "tracestate"})

_TOKEN = re.compile(r"[!-~]+")
_KEY = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[ -~]*")


class Call(NamedTuple):
    """What one call takes along."""

    arguments: dict[str, Any]
    """Those of the stub's method."""
    request_id: str

    def waited_in_vain(self, code: grpc.StatusCode) -> bool:
        """Returns whether the call may have waited for a server until its time was over, and never have been sent."""
        return code is grpc.StatusCode.DEADLINE_EXCEEDED and bool(self.arguments["wait_for_ready"])

    def __repr__(self) -> str:
        """Leaves the arguments out: a token is among them, and tracebacks may show the variables of their frames."""
        return f"Call({self.request_id})"


class Calls:
    """Makes the arguments of calls out of the client's options and those of each call."""

    def __init__(self, target: str, *, timeout: float, wait_for_ready: bool, metadata: Metadata) -> None:
        """Raises ValueError for what can't be."""
        if not 0 < timeout <= MAX_TIMEOUT:
            raise ValueError(f"the timeout must be above zero and at most a day ({MAX_TIMEOUT} s), not {timeout}")
        self._target = target
        self.timeout = timeout
        self._wait_for_ready = wait_for_ready
        self._metadata = checked(metadata)
        self._pid = os.getpid()
        self.closed = False
        """Set by the client when it is closed."""

    def check_usable(self) -> None:
        """Raises RuntimeError after the end of the client, and in a child process."""
        if self.closed:
            raise RuntimeError("this client is closed")
        if os.getpid() != self._pid:  # gRPC's threads didn't come along: a call would hang
            raise RuntimeError("this client was made in another process; make one after the fork")

    def failure(self, error: Any, call: Call) -> UserProfileError:
        """Returns the error that stands for the grpc.RpcError that `call` has ended with."""
        if self.closed and error.code() is grpc.StatusCode.CANCELLED:
            return closed_meanwhile(call.request_id)
        return from_rpc_error(error, call.request_id, target=self._target, timeout=call.arguments["timeout"])

    def begin(
        self,
        token: str | None,
        *,
        timeout: float | None = None,
        wait_for_ready: bool | None = None,
        request_id: str | None = None,
        metadata: Metadata = (),
        context: ServingContext | None = None,
    ) -> Call:
        """Returns the arguments of a call with these options; see `CallOptions`.

        Raises:
            RuntimeError: the client can't be used any more, or not here.
            ValueError: the token or an option can't be sent.
        """
        self.check_usable()
        if timeout is None:
            timeout = self.timeout
        elif not timeout <= MAX_TIMEOUT:  # infinity and NaN too; what is zero or below is over already
            raise ValueError(f"a timeout is at most a day ({MAX_TIMEOUT} s), not {timeout}")
        sent: list[tuple[str, Any]] = [*self._metadata, *checked(metadata)] if metadata else list(self._metadata)
        if context is not None:
            remaining = context.time_remaining()
            if remaining is not None:
                timeout = min(timeout, remaining)
            received = _passed_on(context.invocation_metadata())
            request_id = request_id or received.pop(REQUEST_ID_KEY, None)
            own = {key for key, _ in sent}
            sent += ((key, value) for key, value in received.items() if key not in own)
        if request_id is None:
            request_id = secrets.token_hex(16)  # not from `random`, whose sequence may be somebody's own
        elif not REQUEST_ID.fullmatch(request_id):
            raise ValueError("a request id has 1 to 128 visible ASCII characters")
        sent.append((REQUEST_ID_KEY, request_id))
        if token is not None:
            check_token(token)
            sent.append((_AUTHORIZATION_KEY, f"Bearer {token}"))
        wait_for_ready = self._wait_for_ready if wait_for_ready is None else wait_for_ready
        return Call({"timeout": timeout, "metadata": sent, "wait_for_ready": wait_for_ready}, request_id)


def without_waiting(options: CallOptions) -> CallOptions:
    """Returns the options of a call that doesn't wait for a server unless it is told to itself."""
    return options if options.get("wait_for_ready") is not None else {**options, "wait_for_ready": False}


def check_token(token: str) -> None:
    """Raises ValueError, without the token in it, if gRPC can't send it. gRPC would print it."""
    if not isinstance(token, str):
        raise TypeError(f"a token is a string, not {type(token).__name__}")
    if not _TOKEN.fullmatch(token):
        raise ValueError("the token is empty, or has characters that metadata can't carry")


def checked(metadata: Metadata) -> Metadata:
    """Returns `metadata` if gRPC can send it. Raises ValueError without a value in it, which may be a secret."""
    if isinstance(metadata, Mapping):
        raise TypeError("metadata are pairs, not a mapping: a key may stand there twice")
    for key, value in metadata:
        if not _KEY.fullmatch(key) or key.startswith("grpc-"):
            raise ValueError(f"{key!r} can't be a metadata key: lower-case letters, digits, `_.-`, and not `grpc-…`")
        if key in _OPTION_OF:
            raise ValueError(f"give {key!r} as the option `{_OPTION_OF[key]}`")
        if key.endswith("-bin"):
            sendable = isinstance(value, bytes)
        else:
            sendable = isinstance(value, str) and _VALUE.fullmatch(value) is not None
        if not sendable:
            raise ValueError(f"the value of {key!r} can't be sent: it takes printable ASCII, or bytes under `…-bin`")
    return metadata


def _passed_on(received: Iterable[Any] | None) -> dict[str, str]:
    passed_on: dict[str, str] = {}
    for key, value in received or ():
        # Whoever called us may have sent nonsense; that is no reason to fail.
        if key in _PASSED_ON and isinstance(value, str) and _VALUE.fullmatch(value):
            # One header in several lines is one with commas (RFC 9110, 5.3).
            passed_on[key] = f"{passed_on[key]},{value}" if key == "tracestate" and key in passed_on else value
    if not REQUEST_ID.fullmatch(passed_on.get(REQUEST_ID_KEY, "")):
        passed_on.pop(REQUEST_ID_KEY, None)
    return passed_on
