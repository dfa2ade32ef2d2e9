"""Why no server could be reached, address by address.

gRPC tells of one of a name's addresses alone. That of `localhost` where nobody listens says nothing of the other one,
where a server listens that speaks TLS.
"""

import socket
from collections.abc import Iterator

import grpc

from userprofile.channel import Endpoint
from userprofile.errors import from_rpc_error
from userprofile.health import HEALTH_REQUEST, health_check

_MAX_ADDRESSES = 4
_TIMEOUT = 1.0  # seconds, for each address


def problems_by_address(endpoint: Endpoint) -> Iterator[str]:
    """Yields what each address of the target's name fails with, nothing where the target has one address alone."""
    host, _, port = endpoint.target.removeprefix("dns:///").rpartition(":")
    addresses = _addresses(host, int(port)) if port.isdecimal() else []
    if len(addresses) < 2:
        return
    # The names that a certificate and a gateway know are still those of the target.
    options = [("grpc.default_authority", f"{host}:{port}"), *endpoint.unbalanced]
    if "grpc.ssl_target_name_override" not in dict(options):
        options.append(("grpc.ssl_target_name_override", host))
    for address in addresses[:_MAX_ADDRESSES]:
        with _open(address, endpoint.credentials, options) as channel:
            try:
                health_check(channel)(HEALTH_REQUEST, timeout=_TIMEOUT)
            except grpc.RpcError as error:
                yield from_rpc_error(error, None, target=address, timeout=_TIMEOUT).message


def _addresses(host: str, port: int) -> list[str]:
    if host.lower().removesuffix(".") == "localhost":  # gRPC takes both, whatever the machine's own list says
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
