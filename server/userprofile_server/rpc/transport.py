"""Channel arguments of the server: limits of connections, and replacements of unsuitable defaults."""

from userprofile_server.limits import LimitSettings

_A_DAY = 86_400


def channel_arguments(limits: LimitSettings, *, share_port: bool) -> list[tuple[str, int]]:
    """Returns the options of `grpc.server`. With `share_port` other servers may listen on the same port."""
    return [
        # By default a second server on the same port would start without an error and take half of the calls.
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.server_handshake_timeout_ms", _milliseconds(limits.handshake_timeout)),
        ("grpc.max_connection_idle_ms", _milliseconds(limits.connection_idle)),
        ("grpc.max_connection_age_ms", _milliseconds(limits.connection_age)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(limits.connection_age_grace)),
        ("grpc.max_concurrent_streams", limits.max_streams),
        # The protection counts ended calls until gRPC has released them, so some calls of a client that keeps to the
        # limit would be refused. It is meant against rapid resets, which max_pending_requests bounds.
        ("grpc.http.overload_protection", 0),
        ("grpc.max_receive_message_length", limits.max_request_bytes),
        # Both limits are the same, because between them gRPC rejects at random, more often the larger the metadata.
        ("grpc.max_metadata_size", limits.max_header_bytes),
        ("grpc.absolute_max_metadata_size", limits.max_header_bytes),
        # Clients send keepalive pings to notice a lost connection; by default they would count as an attack.
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(limits.min_ping_interval)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", _milliseconds(limits.keepalive)),
        ("grpc.keepalive_timeout_ms", _milliseconds(limits.keepalive_timeout)),
        ("grpc.http2.ping_timeout_ms", _milliseconds(limits.keepalive_timeout)),  # the default is a minute
        ("grpc.http2.max_pings_without_data", 0),  # by default no third ping is sent without calls
        # For calls that arrive faster than gRPC's one thread hands them over. A refusal by our own rules costs a third
        # of serving the call or more, one by this limit about a fifth (docs/limits.md). Both limits are the same,
        # because between them gRPC refuses at random.
        ("grpc.server.max_pending_requests", limits.max_pending),
        ("grpc.server.max_pending_requests_hard_limit", limits.max_pending),
        ("grpc.server_max_unrequested_time_in_server", _A_DAY),
    ]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
