"""What a target looks like (https://grpc.github.io/grpc/core/md_doc_naming.html), checked before gRPC sees it.

gRPC tells of a target that can't be only when a call is made, as if no server were there, and takes a port above 65535
for another one.
"""

import ipaddress
import re
from contextlib import suppress
from urllib.parse import unquote_to_bytes

from userprofile.printable import printable, shortened

MAX_UNIX_PATH_BYTES = 107
"""What fits into the address of a Unix socket (unix(7))."""

# What gRPC alone can judge: these need a configuration or a machine of their own.
_NOT_OURS_TO_JUDGE = frozenset({"vsock", "xds", "google-c2p", "google-c2p-experimental"})

_HOST_PORT = re.compile(r"(?:\[(?P<ipv6>[^\]]*)\]|(?P<host>[^:\[\]]*))(?P<colon>:(?P<port>[^:]*))?")
_LABEL = re.compile(r"[0-9A-Za-z_-]{1,63}")
_MAX_HOST_CHARACTERS = 253
_NAMED_PORTS = frozenset({"http", "https"})  # gRPC knows these two


def check_target(target: str, *, tls: bool) -> None:
    """Raises ValueError, with a sentence for a person, for a target that gRPC could never reach a server by.

    Args:
        target: Whatever a client is given.
        tls: Whether TLS is spoken. Without it a target needs a port: gRPC's default, 443, is that of TLS.
    """
    if not target:
        raise ValueError("the target must not be empty")
    try:
        _check(target, tls=tls)
    except ValueError as error:
        raise ValueError(f"the target '{printable(shortened(target, 200))}' can't be: {error}") from None


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
                raise ValueError("after dns:// comes a DNS server or nothing, then /host:port, as in dns:///host:port")
            if server:
                _check_dns_server(server)
        _check_host_port(rest, tls=tls)
    elif scheme not in _NOT_OURS_TO_JUDGE:
        if rest.startswith("//"):
            raise ValueError(
                f"it is host:port, not a URL of {printable(scheme)}://; whether TLS is spoken is said by `tls`"
            )
        _check_host_port(target, tls=tls)


def _check_path(path: str, *, abstract: bool) -> None:
    if path.startswith("//") and not abstract:
        path = path.removeprefix("//")
        if path and not path.startswith("/"):
            raise ValueError("after unix:// the path must begin with a slash, as in unix:///run/socket")
    name = unquote_to_bytes(path)
    size = len(name)
    if b"\0" in name and not abstract:  # where the path would end, at another socket
        raise ValueError("there is a zero byte in the path")
    if not size:
        raise ValueError("a path is missing after unix:" if not abstract else "a name is missing after unix-abstract:")
    if size > MAX_UNIX_PATH_BYTES:
        raise ValueError(f"a Unix socket's path has at most {MAX_UNIX_PATH_BYTES} bytes, not {size}")


def _check_dns_server(server: str) -> None:
    for ipv6 in (True, False):
        with suppress(ValueError):
            return _check_address(unquote_to_bytes(server).decode(errors="replace"), ipv6=ipv6)
    raise ValueError("the DNS server after dns:// is ADDRESS:PORT, as in dns://192.0.2.1:53/host:port")


def _check_address(address: str, *, ipv6: bool) -> None:
    match = _HOST_PORT.fullmatch(address)
    host = match and match["ipv6" if ipv6 else "host"]
    try:
        _ = ipaddress.IPv6Address(host or "") if ipv6 else ipaddress.IPv4Address(host or "")
    except ValueError:
        form = "ipv6:[ADDRESS]:PORT" if ipv6 else "ipv4:ADDRESS:PORT"
        raise ValueError(f"{address!r} is no IP address with a port; it is {form}, or several after commas") from None
    assert match is not None
    _check_port(match["port"], named=False)


def _check_host_port(text: str, *, tls: bool) -> None:
    if "," in text:
        raise ValueError("several servers are ipv4:ADDRESS:PORT,ADDRESS:PORT, or one DNS name with several addresses")
    if re.search(r"\s", text):
        raise ValueError("there is a space or a line end in it")
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        try:
            ipaddress.IPv6Address(text)
        except ValueError:
            raise ValueError("it is host:port, and an IPv6 address stands in brackets: [::1]:50051") from None
        if not tls:
            raise ValueError(f"the port is missing; write [{text}]:50051")
        return
    if match["ipv6"] is not None:
        try:
            ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            raise ValueError("what stands in brackets isn't an IPv6 address") from None
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
        raise ValueError(f"{host!r} is no host: a name has ASCII letters, digits, `-`, `_` and `.` alone")


def _check_port(port: str | None, *, named: bool) -> None:
    if named and port in _NAMED_PORTS:
        return
    if not port:
        raise ValueError("the port is missing after the host")
    if not re.fullmatch("[0-9]+", port):
        raise ValueError(f"the port {port!r} is not a number, and nothing may stand behind it")
    if len(port) > 5 or not 1 <= int(port) <= 65535:
        raise ValueError(f"the port is 1 to 65535, not {port}")
