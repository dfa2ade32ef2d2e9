"""Finds out, address by address, why no server could be reached.

gRPC reports the problem of only one of a name's addresses. For `localhost` that may be the address where nothing
listens, while at the other address a server expects TLS.
"""

import socket
from collections.abc import Iterator

import grpc

from userprofile.channel import ChannelConfig
from userprofile.errors import from_rpc_error
from userprofile.health import HEALTH_REQUEST, health_check

_MAX_ADDRESSES = 4
_TIMEOUT = 1.0  # seconds, for each address


def problems_by_address(channel_config: ChannelConfig) -> Iterator[str]:
    """Yields the problem of each address of the target's name; nothing if the target has only one address."""
    host, _, port = channel_config.target.removeprefix("dns:///").rpartition(":")
    addresses = _addresses(host, int(port)) if port.isdecimal() else []
    if len(addresses) < 2:
        return
    # Certificates and gateways expect the target's name, not the address.
    options = [("grpc.default_authority", f"{host}:{port}"), *channel_config.single_server_options]
    for address in addresses[:_MAX_ADDRESSES]:
        with _open(address, channel_config.credentials, options) as channel:
            try:
                health_check(channel)(HEALTH_REQUEST, timeout=_TIMEOUT)
            except grpc.RpcError as error:
                yield from_rpc_error(error, None, target=address, timeout=_TIMEOUT).message


def _addresses(host: str, port: int) -> list[str]:
    if host.lower().removesuffix(".") == "localhost":  # gRPC uses both addresses, whatever /etc/hosts says
        return [f"ipv4:127.0.0.1:{port}", f"ipv6:[::1]:{port}"]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    forms = {socket.AF_INET: "ipv4:{}:{}", socket.AF_INET6: "ipv6:[{}]:{}"}
    return list(dict.fromkeys(forms[family].format(*at[:2]) for family, _, _, _, at in found if family in forms))


def _open(target: str, credentials: grpc.ChannelCredentials | None, options: list[tuple[str, object]]) -> grpc.Channel:
    if credentials is None:
        return grpc.insecure_channel(target, options)
    return grpc.secure_channel(target, credentials, options)
