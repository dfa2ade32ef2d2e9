"""What a client and a call can be told beyond the question itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

Metadata = Sequence[tuple[str, str | bytes]]
"""Metadata in gRPC's form: lower-case keys, bytes as values of those that end in `-bin`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How to speak TLS. `TLS()` trusts the authorities that gRPC comes with."""

    ca: Path | str | None = None
    """A PEM file of the authorities to trust instead."""
    certificate: Path | str | None = None
    """A PEM file with the client's own certificate chain, for servers that ask who calls; needs `key`."""
    key: Path | str | None = None
    """The PEM file of its private key."""
    server_name: str | None = None
    """The name that the server's certificate has to bear, where it isn't the one in the target."""


class ServingContext(Protocol):
    """What is taken of the context of a call that is being served; those of `grpc` and of `grpc.aio` have it."""

    def time_remaining(self) -> float | None:
        """Returns the seconds that the call's own caller still waits."""
        ...

    def invocation_metadata(self) -> Iterable[Any] | None:
        """Returns the metadata that came with the call."""
        ...


class CallOptions(TypedDict, total=False):
    """The keyword arguments of every call."""

    timeout: float | None
    """Seconds that the call may take, retries included; None, the default, is the client's own timeout."""
    wait_for_ready: bool | None
    """Whether to wait until a server can be reached, or the time is up; None, the default, is the client's own,
    and for `check_health` False."""
    request_id: str | None
    """Finds the call in the server's log: up to 128 visible ASCII characters. By default a new one."""
    metadata: Metadata
    """Sent with this call, beside the client's own."""
    context: ServingContext | None
    """The context of the call that the caller is itself serving. Its deadline limits this call too, and its request
    id and trace (`traceparent`, `tracestate`; see https://www.w3.org/TR/trace-context/) are passed on."""
