"""Validates targets (https://grpc.github.io/grpc/core/md_doc_naming.html) before gRPC gets them.

gRPC reports an invalid target only when a call is made, as if no server were reachable, and wraps a port above 65535
around to another one.
"""

import ipaddress
import re
from contextlib import suppress
from urllib.parse import unquote_to_bytes

from userprofile.printable import printable, shortened

MAX_UNIX_PATH_BYTES = 107
"""The maximum size of a Unix socket's path (unix(7))."""

# Not checked here, because these schemes depend on the machine or on a configuration.
_NOT_OURS_TO_JUDGE = frozenset({"vsock", "xds", "google-c2p", "google-c2p-experimental"})

_HOST_PORT = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<host>[^:\[\]]*))(?P<colon>:(?P<port>[^:]*))?")
_LABEL = re.compile(r"[0-9A-Za-z_-]{1,63}")
_MAX_HOST_CHARACTERS = 253
_NAMED_PORTS = frozenset({"http", "https"})  # the names that gRPC knows


def check_target(target: str, *, tls: bool) -> None:
    """Raises ValueError, with a message for people, for a target with which gRPC could never reach a server.

    Args:
        target: The target of a client.
        tls: Whether TLS is used. Without TLS a target needs a port: gRPC's default, 443, is for TLS.
    """
    if not isinstance(target, str):
        raise TypeError(f"a target is a string, not {type(target).__name__}")
    if not target:
        raise ValueError("the target must not be empty")
    try:
        target.encode()
        _check(target, tls=tls)
    except ValueError as error:
        raise ValueError(f"the target '{printable(shortened(target, 200))}' is not valid: {error}") from None


def _check(target: str, *, tls: bool) -> None:
    scheme, colon, rest = target.partition(":")
    scheme = scheme.lower() if colon else ""
    if scheme in ("unix", "unix-abstract"):
        _check_path(rest, abstract=scheme == "unix-abstract")
    elif scheme in ("ipv4", "ipv6"):
        for address in unquote_to_bytes(rest).decode(errors="replace").split(","):
            _check_address(address, ipv6=scheme == "ipv6")
    elif scheme == "dns":
        if rest.startswith("//"):
            server, slash, rest = rest.removeprefix("//").partition("/")
            if not slash or not rest:
                raise ValueError("dns:// is followed by an optional DNS server and /host:port, as in dns:///host:port")
            if server:
                _check_dns_server(server)
        _check_host_port(rest, tls=tls)
    elif scheme not in _NOT_OURS_TO_JUDGE:
        if rest.startswith("//"):
            raise ValueError(f"it must be host:port, not a {printable(scheme)}:// URL; to use TLS, set `tls`")
        _check_host_port(target, tls=tls)


def _check_path(path: str, *, abstract: bool) -> None:
    if path.startswith("//") and not abstract:
        path = path.removeprefix("//")
        if path and not path.startswith("/"):
            raise ValueError("after unix:// the path must begin with a slash, as in unix:///run/socket")
    name = unquote_to_bytes(path)
    size = len(name)
    if b"\0" in name and not abstract:  # the path would end here, and name another socket
        raise ValueError("the path contains a zero byte")
    if not size:
        raise ValueError("a path is missing after unix:" if not abstract else "a name is missing after unix-abstract:")
    if size > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"the path of a Unix socket must have at most {MAX_UNIX_PATH_BYTES} bytes, not {size}")


def _check_dns_server(server: str) -> None:
    for ipv6 in (True, False):
        with suppress(ValueError):
            return _check_address(unquote_to_bytes(server).decode(errors="replace"), ipv6=ipv6)
    raise ValueError("the DNS server after dns:// must be ADDRESS:PORT, as in dns://192.0.2.1:53/host:port")


def _check_address(address: str, *, ipv6: bool) -> None:
    match = _HOST_PORT.fullmatch(address)
    host = match and match["ipv6" if ipv6 else "host"]
    try:
        _ = ipaddress.IPv6Address(host or "") if ipv6 else ipaddress.IPv4Address(host or "")
    except ValueError:
        form = "ipv6:[ADDRESS]:PORT" if ipv6 else "ipv4:ADDRESS:PORT"
        raise ValueError(f"{address!r} is not an IP address with a port; use {form} or a list of them") from None
    assert match is not None
    _check_port(match["port"], named=False)


def _check_host_port(text: str, *, tls: bool) -> None:
    if "," in text:
        raise ValueError("for several servers use ipv4:ADDRESS:PORT,ADDRESS:PORT or a DNS name with several addresses")
    if re.search(r"\s", text):
        raise ValueError("it contains whitespace")
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        try:
            ipaddress.IPv6Address(text)
        except ValueError:
            raise ValueError("it must be host:port; put an IPv6 address in brackets: [::1]:50051") from None
        if not tls:
            raise ValueError(f"the port is missing; write [{text}]:50051")
        return
    if match["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            raise ValueError("the text in brackets is not an IPv6 address") from None
    else:
        _check_host(match["host"])
    if match["colon"]:
        _check_port(match["port"], named=True)
    elif text.isdecimal():
        raise ValueError(f"the host is missing; write localhost:{text}, or another host")
    elif not tls:
        raise ValueError(f"the port is missing; write {text}:50051, or another port")


def is_host(text: str) -> bool:
    """Returns whether `text` is a host name or an IP address, without a port."""
    with suppress(ValueError):
        ipaddress.ip_address(text)
        return True
    return _is_name(text)


def _is_name(text: str) -> bool:
    name = text.removesuffix(".")
    return len(name) <= _MAX_HOST_CHARACTERS and all(_LABEL.fullmatch(label) for label in name.split("."))


def _check_host(host: str) -> None:
    if not host:
        raise ValueError("the host is missing before the port")
    if not _is_name(host):
        raise ValueError(f"{host!r} is not a host: a name may have ASCII letters, digits, `-`, `_` and `.` only")


def _check_port(port: str | None, *, named: bool) -> None:
    if named and port in _NAMED_PORTS:
        return
    if not port:
        raise ValueError("the port is missing after the host")
    if not re.fullmatch("[0-9]+", port):
        raise ValueError(f"the port {port!r} is not a number; nothing may follow the port")
    if len(port) > 5 or not 1 <= int(port) <= 65535:
        raise ValueError(f"the port must be 1 to 65535, not {port}")
