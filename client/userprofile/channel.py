"""How a client reaches the servers: addresses, load balancing, retries, keepalive, TLS."""

import ipaddress
import json
import re
from collections.abc import Sequence
from typing import Any

import grpc

from userprofile.calls import check_token
from userprofile.certificates import read_authorities, read_identity
from userprofile.options import TLS
from userprofile.targets import check_target, is_host
from userprofile.v1 import user_profile_pb2 as pb

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["UserProfileService"].full_name

ChannelOptions = Sequence[tuple[str, Any]]

MAX_RETRIES = 4
"""gRPC makes five attempts at most, whatever it is told."""

KEEPALIVE_SECONDS = 30
"""Between two pings on a quiet connection. Servers of ours allow one every 20 seconds."""

RECONNECT_MS = 100, 1000
"""Milliseconds between attempts to connect again, from the first to the longest. gRPC's own are a second to two
minutes, which outlast every caller's deadline once a server has been away for a while."""

_MAX_RESPONSE_BYTES = 64 * 1024 * 1024  # a hundred profiles of 600 KB; gRPC's own limit is 4 MiB

_DNS_AUTHORITY = re.compile(r"^//[^/]*/")
_ADDRESS = re.compile(r"(\[(?P<bracketed>[0-9a-fA-F:.]+)\]|(?P<name>[0-9a-zA-Z.-]+))(:\d+)?|(?P<ipv6>[0-9a-fA-F:.]+)")


class Endpoint:
    """Where the servers are, and the arguments of a channel to them."""

    def __init__(
        self,
        target: str,
        *,
        tls: TLS | None,
        retries: int,
        health_checking: bool = False,
        channel_options: ChannelOptions,
    ) -> None:
        """See `UserProfileClient`. Reads the files of `tls`; connects to nothing.

        Raises:
            ValueError: something of it can't be.
            OSError: a file can't be read.
        """
        if tls is not None and not isinstance(tls, TLS):
            raise TypeError("tls is a userprofile.TLS, or None for plaintext")
        check_target(target, tls=tls is not None)
        if not 0 <= retries <= MAX_RETRIES:
            raise ValueError(f"retries must be 0 to {MAX_RETRIES}, not {retries}")
        self.target = target
        self.is_private = tls is not None or _is_loopback(target)
        """Whether nobody on the way can read along."""
        self.credentials = None if tls is None else _credentials(tls)
        own: list[tuple[str, Any]] = [
            ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES),
            ("grpc.enable_retries", int(retries > 0)),
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS[0]),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MS[1]),
        ]
        if tls is None and self.is_private:
            # Else a proxy named by the environment would be asked for what never has to leave this machine.
            own.append(("grpc.enable_http_proxy", 0))
        if tls is not None and tls.server_name is not None:
            if not is_host(tls.server_name):
                raise ValueError(f"the server name of TLS is a host name or an IP address, not {tls.server_name!r}")
            own.append(("grpc.ssl_target_name_override", tls.server_name))
        balancing = [("grpc.service_config", json.dumps(_service_config(retries, health_checking)))]
        self.unbalanced = _without_duplicates([*channel_options, *own])
        """The arguments of a channel to any one of the servers, whatever it says of itself."""
        self.balanced = _without_duplicates([*channel_options, *own, *balancing])
        """The arguments of a channel to all servers in turn."""

    def check_token(self, token: Any, *, allow_plaintext: bool) -> None:
        """Raises ValueError if `token` can't be sent, or not without others reading it, unless that is allowed."""
        if token is not None and not callable(token):
            check_token(token)
        if token is not None and not self.is_private and not allow_plaintext:
            raise ValueError(
                f"the token would go to {self.target} in plaintext, where anyone on the way can read it; give `tls`,"
                " or allow_plaintext_token=True if that is what you want"
            )


def _without_duplicates(options: ChannelOptions) -> ChannelOptions:
    """Returns the first of each. gRPC takes one of several, and doesn't say which."""
    return list(dict(reversed(options)).items())


def _service_config(retries: int, health_checking: bool) -> dict[str, Any]:
    """See https://github.com/grpc/grpc/blob/master/doc/service_config.md."""
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if health_checking:
        config["healthCheckConfig"] = {"serviceName": SERVICE_NAME}
    if retries:
        policy = {
            "maxAttempts": retries + 1,
            "initialBackoff": "0.05s",
            # 50 ms for a lost connection, and three seconds in all for a service that starts again behind a gateway.
            "maxBackoff": "2s",
            "backoffMultiplier": 4,
            # AIP-194: the one status that says that nothing has happened and that later may be better; and what gRPC's
            # servers end calls with that they haven't begun when they stop. No retry follows a caller's own cancelling.
            "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
        }
        config["methodConfig"] = [{"name": [{"service": SERVICE_NAME}], "retryPolicy": policy}]
        # Each failure costs a token, each success returns one, and there are no retries below half of maxTokens:
        # hundreds of calls that are lost with a server are made up for, and so is for any time a server beside others
        # that has lost its store; a service that is down isn't hit with five times the load. gRPC's core
        # would take 1 for 0.
        config["retryThrottling"] = {"maxTokens": 1000, "tokenRatio": 0.999}
    return config


def _credentials(tls: TLS) -> grpc.ChannelCredentials:
    ca = None if tls.ca is None else read_authorities(tls.ca).pem
    if tls.certificate is None and tls.key is None:
        return grpc.ssl_channel_credentials(root_certificates=ca)
    if tls.certificate is None or tls.key is None:
        raise ValueError("a client certificate and its key go together")
    own = read_identity(tls.certificate, tls.key)
    return grpc.ssl_channel_credentials(ca, private_key=own.key, certificate_chain=own.certificate)


def _is_loopback(target: str) -> bool:
    """Whether every address of `target` is this machine (https://grpc.github.io/grpc/core/md_doc_naming.html)."""
    scheme, _, rest = target.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme in ("ipv4", "ipv6"):
        return all(_is_loopback_host(address) for address in rest.split(","))
    return _is_loopback_host(_DNS_AUTHORITY.sub("", rest) if scheme == "dns" else target)


def _is_loopback_host(address: str) -> bool:
    match = _ADDRESS.fullmatch(address)  # with anything else in it, gRPC may see another host than we would
    host = "" if match is None else match["bracketed"] or match["name"] or match["ipv6"]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
