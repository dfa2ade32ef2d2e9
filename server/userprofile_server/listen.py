"""Addresses to listen on: what they look like, and whether other machines can reach them."""

import dataclasses
import errno
import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from userprofile.targets import MAX_UNIX_PATH_BYTES

_HOST_PORT = re.compile(r"(?:\[(?P<ipv6>[^\]]+)\]|(?P<host>[^:\[\]/\s]+)):(?P<port>[0-9]{1,5})")


class ListenError(Exception):
    """Raised when an address can't be listened on. The text says why, in words for an operator."""


@dataclass(frozen=True)
class ListenAddress:
    """`HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`, in the form that grpc understands."""

    host: str
    """The host or IP address, without brackets; the path for a Unix socket."""
    port: int | None
    """None for a Unix socket; 0 for any free port."""

    @classmethod
    def parse(cls, text: str) -> "ListenAddress":
        """Raises ValueError, with a sentence for a person, if `text` isn't an address."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:").removeprefix("//")
            if not path:
                raise ValueError("a path is missing after unix:")
            size = len(os.fsencode(path))
            if size > MAX_UNIX_PATH_BYTES:
                raise ValueError(f"a Unix socket's path has at most {MAX_UNIX_PATH_BYTES} bytes, not {size}")
            return cls(path, None)
        match = _HOST_PORT.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            raise ValueError("an address is HOST:PORT, [IPV6]:PORT or unix:PATH, with a port of 0 to 65535")
        if match["ipv6"] is not None:
            try:
                ipaddress.IPv6Address(match["ipv6"])
            except ValueError:
                raise ValueError("what stands in brackets isn't an IPv6 address") from None
        return cls(match["ipv6"] or match["host"], int(match["port"]))

    def __str__(self) -> str:
        """Returns the address as it is typed, printed and given to grpc."""
        if self.port is None:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it. Of host names only `localhost` is taken at its word."""
        if self.port is None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def resolve(self) -> "list[ListenAddress]":
        """Returns this address, with the host's name replaced by each of the IP addresses that it stands for.

        grpc would bind a name as well, but is content with any one of its addresses: a second server
        on `localhost` could take ::1 beside a first one on 127.0.0.1.

        Raises:
            ListenError: there is no such host.
        """
        if self.port is None:
            return [self]
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise self._error(error.strerror) from None
        return list(dict.fromkeys(ListenAddress(str(address[0]), self.port) for *_, address in found))

    def exists(self) -> bool:
        """Whether this machine has this IP address, whoever listens on it."""
        try:
            return dataclasses.replace(self, port=0).is_here()
        except ListenError:
            return True

    def is_here(self) -> bool:
        """Whether this machine has this IP address, and nobody listens on it yet.

        Asked before grpc is: it would say neither what is wrong nor, for a Unix socket, that anything is.

        Raises:
            ListenError: a server listens there already, or this user may not listen there.
        """
        if self.port is None:
            return self._is_free_path()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as grpc does
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((self.host, self.port))
        except OSError as error:
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return False
            raise self._error(error.strerror) from None
        return True

    def _is_free_path(self) -> bool:
        # grpc removes an existing socket file before it binds, which would cut a running server off in silence.
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.host)
            except (FileNotFoundError, ConnectionRefusedError):  # nothing there, or what a dead server left
                self._check_path(Path(self.host))
                return True
            except OSError as error:
                raise self._error(error.strerror) from None
        raise self._error("another server is using it")

    def _check_path(self, path: Path) -> None:
        """Raises what grpc wouldn't say of the path of a socket that nobody listens on."""
        if not path.parent.is_dir():
            raise self._error(f"there is no folder {path.parent}")
        if path.exists() and not path.is_socket():
            raise self._error("something that isn't a socket is there")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise self._error(f"this user may not write to the folder {path.parent}")

    def _error(self, reason: str | None) -> ListenError:
        return ListenError(f"can't listen on {self}: {reason or 'unknown reason'}")
