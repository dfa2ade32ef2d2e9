"""Limits on what clients may use of a server, so that no client starves the others."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from userprofile_server.settings_base import Group, Seconds

Patience = Annotated[float, Field(ge=0.1, le=3600)]
"""Seconds for anything that crosses a network. With a lower limit nobody could be served."""

Wait = Annotated[float, Field(ge=0.001, le=3600)]
"""Seconds in a queue."""


class LimitSettings(Group):
    """Limits on clients. docs/limits.md says what each limit protects against, and gives the reason for its default."""

    max_connections: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Open connections of a process to each IP address that it listens on. Further ones are closed.",
    )
    handshake_timeout: Patience = Field(
        default=10.0, description="Seconds that a new connection may take to begin with HTTP/2."
    )
    connection_idle: Patience = Field(
        default=300.0, description="Seconds without a call after which a connection is closed."
    )
    connection_age: float = Field(
        default=600.0,
        ge=0.1,
        le=86_400,
        description="Seconds after which a connection takes no more calls, give or take a tenth. Clients open another.",
    )
    connection_age_grace: Patience = Field(
        default=30.0, description="Seconds that the calls and streams of such a connection get to finish."
    )
    keepalive: Patience = Field(
        default=60.0, description="Seconds after which a quiet client is pinged, to notice that it is gone."
    )
    keepalive_timeout: Patience = Field(
        default=20.0, description="Seconds without a response to a ping after which a connection is closed."
    )
    min_ping_interval: Seconds = Field(
        default=5.0, description="Seconds that clients have to leave between their pings on a quiet connection."
    )
    max_streams: int = Field(
        default=100, ge=1, le=1_000_000, description="Calls in progress on one connection. Clients wait with more."
    )
    max_header_bytes: int = Field(default=16 * 1024, ge=1024, le=1024 * 1024, description="Bytes of a call's metadata.")
    max_request_bytes: int = Field(default=64 * 1024, ge=1024, le=4 * 1024 * 1024, description="Bytes of a request.")
    max_pending: int = Field(
        default=100,
        ge=10,
        le=1_000_000,
        description="Calls that have arrived and wait to be looked at. Further ones are refused by gRPC (CANCELLED).",
    )
    queue_target: Wait = Field(
        default=0.02, description="Seconds that calls may wait for a worker while the queue lasts longer than a burst."
    )
    queue_burst: Wait = Field(
        default=0.1, description="Seconds that calls may wait for a worker in a burst that is as short as that."
    )
    max_queued: int = Field(default=10_000, ge=1, description="Calls that may wait for a worker.")
    max_queued_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1, description="Bytes that their requests may have together."
    )
    request_timeout: Patience = Field(
        default=10.0, description="Seconds that a request may take to arrive after its headers."
    )
    max_half_sent: int = Field(
        default=1000,
        ge=1,
        description="Requests of which only a part has arrived. Beyond it the oldest are ended.",
    )
    max_watches: int = Field(default=10_000, ge=1, description="Open health watches. Further ones are refused.")
    max_reflection_streams: int = Field(
        default=100,
        ge=1,
        description="Open reflection streams. Beyond it those that have been idle for longest are ended.",
    )
    reflection_idle: Patience = Field(
        default=60.0, description="Seconds after which a reflection stream without a request is ended."
    )

    @model_validator(mode="after")
    def _target_is_within_burst(self) -> Self:
        if self.queue_target > self.queue_burst:
            raise ValueError(
                f"--queue-target ({self.queue_target:g}) must not be longer than --queue-burst ({self.queue_burst:g})"
            )
        return self
