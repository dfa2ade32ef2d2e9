"""Options of a client and of a call."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

Metadata = Sequence[tuple[str, str | bytes]]
"""Metadata in gRPC's form: lower-case keys, bytes as values of those that end in `-bin`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """TLS settings. `TLS()` trusts gRPC's default root certificates."""

    ca: Path | str | None = None
    """A PEM file of the root certificates to trust instead."""
    certificate: Path | str | None = None
    """A PEM file with the client's certificate chain, for mutual TLS; needs `key`."""
    key: Path | str | None = None
    """A PEM file with the certificate's private key."""
    server_name: str | None = None
    """The name to expect in the server's certificate, if it isn't the host of the target."""


class ServingContext(Protocol):
    """The part of `grpc.ServicerContext` and `grpc.aio.ServicerContext` that the client uses."""

    def time_remaining(self) -> float | None:
        """Returns the seconds until the call's deadline, None without one."""
        ...

    def invocation_metadata(self) -> Iterable[Any] | None:
        """Returns the metadata received with the call."""
        ...


class CallOptions(TypedDict, total=False):
    """The keyword arguments of every call."""

    timeout: float | None
    """Timeout in seconds, retries included; None, the default, is the client's timeout."""
    wait_for_ready: bool | None
    """Whether to wait until a server can be reached, at most until the timeout; None, the default, is the client's
    setting, for `check_health` False."""
    request_id: str | None
    """Identifies the call in the server's log: 1 to 128 visible ASCII characters. By default a random one."""
    metadata: Metadata
    """Sent with this call, in addition to the client's metadata."""
    context: ServingContext | None
    """The context of the call that the caller is serving. Its deadline limits this call too, and its request id and
    trace context (`traceparent`, `tracestate`; see https://www.w3.org/TR/trace-context/) are propagated."""
