"""How a client reaches the servers: addresses, load balancing, retries, keepalive, TLS."""

import copy
import ipaddress
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from userprofile.call_options import TLS
from userprofile.calls import check_token, pairs
from userprofile.certificates import Identity, read_authorities, read_identity
from userprofile.changing_files import ChangingFiles
from userprofile.connections import MAX_CONNECTIONS, OWN_CONNECTION
from userprofile.service_config import MAX_RETRIES, SERVICE_CONFIG, pauses_by_method
from userprofile.targets import check_target, is_host
from userprofile.v1 import user_profile_service_pb2 as pb

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["UserProfileService"].full_name

ChannelOptions = Sequence[tuple[str, Any]]

KEEPALIVE_SECONDS = 30
"""Seconds between keepalive pings on an idle connection. Our servers allow one every 5 seconds."""

RECONNECT_MS = 100, 1000
"""Milliseconds of the reconnect backoff, from first to longest. gRPC's default is one second to two minutes, longer
than any caller's deadline once a server has been down for a while."""

_MAX_RESPONSE_BYTES = 64 * 1024 * 1024  # a hundred profiles of 600 KB; gRPC's own limit is 4 MiB

_DNS_AUTHORITY = re.compile(r"^//[^/]*/")
_ADDRESS = re.compile(r"(\[(?P<bracketed>[0-9a-fA-F:.]+)\]|(?P<name>[0-9a-zA-Z.-]+))(:\d+)?|(?P<ipv6>[0-9a-fA-F:.]+)")


class ChannelConfig:
    """The target, the credentials and the channel arguments."""

    def __init__(
        self,
        target: str,
        *,
        tls: TLS | None,
        retries: int,
        connections: int = 1,
        health_checking: bool = False,
        channel_options: ChannelOptions,
    ) -> None:
        """See `UserProfileClient`. Reads the files of `tls`; connects to nothing.

        Raises:
            ValueError: an argument or a file is invalid.
            OSError: a file can't be read.
        """
        if tls is not None and not isinstance(tls, TLS):
            raise TypeError("tls must be a userprofile.TLS, or None for plaintext")
        check_target(target, tls=tls is not None)
        _check_number("retries", retries, 0, MAX_RETRIES)
        _check_number("connections", connections, 1, MAX_CONNECTIONS)
        channel_options = pairs("channel_options", channel_options)
        self.target = target
        self.connections = connections
        self.is_private = tls is not None or _is_loopback(target)
        """Whether nobody on the network path can read the traffic."""
        self._files = None if tls is None else ChangingFiles(_paths(tls), lambda: _read(tls))
        self.may_change = tls is not None and _paths(tls) != []
        """Whether certificates come from files, which may be replaced."""
        self.credentials = None if self._files is None else _credentials(*self._files.current)
        """Credentials with the certificates that were read last; None for plaintext."""
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
        if _is_loopback(target):
            # By default gRPC would use a proxy from the environment, even for traffic within this machine.
            own.append(("grpc.enable_http_proxy", 0))
        if tls is not None and tls.server_name is not None:
            if not is_host(tls.server_name):
                raise ValueError(f"the TLS server name must be a host name or address, not {tls.server_name!r}")
            own.append(("grpc.ssl_target_name_override", tls.server_name))
        self.pauses = pauses_by_method(retries)
        """Seconds to wait before each retry, by method."""
        balancing = [("grpc.service_config", json.dumps(_service_config(retries, health_checking)))]
        separate = [OWN_CONNECTION] if connections > 1 else []
        self.single_server_options = _without_duplicates([*channel_options, *own])
        """Channel arguments for one server, whatever health it reports."""
        self.load_balanced_options = _without_duplicates([*channel_options, *own, *balancing, *separate])
        """Channel arguments for all servers, round robin."""

    def renew_credentials(self) -> bool:
        """Rebuilds `credentials` if the files of `tls` have changed. Returns whether they have."""
        if self._files is None or not self._files.update():
            return False
        self.credentials = _credentials(*self._files.current)
        return True

    def check_token(self, token: Any, *, allow_plaintext: bool) -> None:
        """Raises ValueError if `token` can't be sent, or would be sent in plaintext and that isn't allowed."""
        if token is not None and not callable(token):
            check_token(token)
        if token is not None and not self.is_private and not allow_plaintext:
            raise ValueError(
                f"the token would be sent to {self.target} in plaintext, readable by anyone on the network path;"
                " pass `tls`, or allow_plaintext_token=True to allow it"
            )


def _check_number(name: str, number: object, least: int, most: int) -> None:
    if not isinstance(number, int):
        raise TypeError(f"{name} must be an int, not {type(number).__name__}")
    if not least <= number <= most:
        raise ValueError(f"{name} must be {least} to {most}, not {number}")


def _without_duplicates(options: ChannelOptions) -> ChannelOptions:
    """Returns the first option of each name. Which one gRPC would use is undocumented."""
    return list(dict(reversed(options)).items())


def _service_config(retries: int, health_checking: bool) -> dict[str, Any]:
    """Returns the contract's service config, with at most `retries` retries."""
    config = copy.deepcopy(SERVICE_CONFIG)
    if health_checking:
        config["healthCheckConfig"] = {"serviceName": SERVICE_NAME}
    for method in config["methodConfig"]:
        if retries == 0:
            del method["retryPolicy"]
        else:
            method["retryPolicy"]["maxAttempts"] = min(method["retryPolicy"]["maxAttempts"], retries + 1)
    return config


def _paths(tls: TLS) -> list[Path | str]:
    return [path for path in (tls.ca, tls.certificate, tls.key) if path is not None]


def _read(tls: TLS) -> tuple[bytes | None, Identity | None]:
    ca = None if tls.ca is None else read_authorities(tls.ca).pem
    if tls.certificate is None and tls.key is None:
        return ca, None
    if tls.certificate is None or tls.key is None:
        raise ValueError("a client certificate needs its key, and a key its certificate")
    return ca, read_identity(tls.certificate, tls.key, role="client")


def _credentials(ca: bytes | None, own: Identity | None) -> grpc.ChannelCredentials:
    if own is None:
        return grpc.ssl_channel_credentials(ca)
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
    match = _ADDRESS.fullmatch(address)  # strict, because gRPC may parse another host from anything else
    host = "" if match is None else match["bracketed"] or match["name"] or match["ipv6"]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
