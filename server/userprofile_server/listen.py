"""Addresses to listen on: parsing, resolving, and checking whether they are free."""

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
    """Raised when the server can't listen on an address. The text explains it to an operator."""


@dataclass(frozen=True)
class ListenAddress:
    """`HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`, in the form that grpc understands."""

    host: str
    """The host or IP address, without brackets; the path for a Unix socket."""
    port: int | None
    """None for a Unix socket; 0 for any free port."""

    @classmethod
    def parse(cls, text: str) -> "ListenAddress":
        """Raises ValueError, with a text for operators, if `text` isn't an address."""
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
                raise ValueError("the address in brackets isn't an IPv6 address") from None
        return cls(match["ipv6"] or match["host"], int(match["port"]))

    def __str__(self) -> str:
        """Returns the address in the form that is typed, printed and passed to grpc."""
        if self.port is None:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address. Among host names, only `localhost` counts as local."""
        if self.port is None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def resolve(self) -> "list[ListenAddress]":
        """Resolves the host name: returns an address for each of its IP addresses.

        grpc could bind a name itself, but succeeds if it can bind any one of its IP addresses: a second server on
        `localhost` could take ::1 while the first one has 127.0.0.1.

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
        """Whether this machine has this IP address, free or not."""
        try:
            return dataclasses.replace(self, port=0).can_bind()
        except ListenError:
            return True

    def can_bind(self, *, shared: bool = False) -> bool:
        """Whether this machine has this IP address, and nobody listens on it yet.

        Called before grpc binds the address: grpc wouldn't report the cause or, for a Unix socket, any error at all.
        With `shared`, servers that share the port by SO_REUSEPORT may listen there already.

        Raises:
            ListenError: a server listens there already, or this user may not listen there.
        """
        if self.port is None:
            return self._can_bind_path()
        probe = self._bound(socket.SO_REUSEADDR, *([socket.SO_REUSEPORT] if shared else []))  # as grpc does
        if probe is not None:
            probe.close()
        return probe is not None

    def reserve(self) -> "tuple[ListenAddress, list[socket.socket]]":
        """Reserves the port on each of the host's IP addresses, without listening.

        Returns this address with the reserved port, and sockets that keep the reservation while they are open. Only
        this user's processes may listen on the port then, with SO_REUSEPORT. They get all connections, because the
        reserving sockets don't listen.

        Raises:
            ListenError: a server has this port, or this machine doesn't have the address.
        """
        sockets: list[socket.socket] = []
        port = self.port
        try:
            for address in self.resolve():
                taken = dataclasses.replace(address, port=port)._take()
                if taken is not None:
                    sockets.append(taken)
                    port = taken.getsockname()[1]
        except ListenError:
            for each in sockets:
                each.close()
            raise
        if not sockets:
            raise ListenError(f"can't listen on {self}: this machine has no such address")
        return dataclasses.replace(self, port=port), sockets

    def _take(self) -> socket.socket | None:
        # Bound without SO_REUSEPORT, so that a second supervisor that does the same fails; shared only afterwards. Also
        # without SO_REUSEADDR if possible: older kernels go by how the first socket of a port was bound.
        try:
            taken = self._bound()
        except ListenError:
            # Perhaps only connections in TIME_WAIT block the port; this still fails if there is a listener.
            taken = self._bound(socket.SO_REUSEADDR)
        if taken is not None:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return taken

    def _bound(self, *options: int) -> socket.socket | None:
        """Returns a socket bound to this address; None if this machine doesn't have the address.

        Raises:
            ListenError: the address is taken, or this user may not bind it.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            bound = socket.socket(family, socket.SOCK_STREAM)
        except OSError:  # a system without IPv6
            return None
        try:
            for option in options:
                bound.setsockopt(socket.SOL_SOCKET, option, 1)
            if family == socket.AF_INET6:
                # Like grpc, which also listens on all IPv4 addresses if the address is [::].
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, self.host != "::")
            bound.bind((self.host, self.port))
        except OSError as error:
            bound.close()
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                return None
            raise self._error(error.strerror) from None
        return bound

    def _can_bind_path(self) -> bool:
        # grpc removes an existing socket file before it binds, which would silently cut off a running server.
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.host)
            except (FileNotFoundError, ConnectionRefusedError):  # nothing there, or the socket file of a dead server
                self._check_path(Path(self.host))
                return True
            except OSError as error:
                raise self._error(error.strerror) from None
        raise self._error("another server is using it")

    def _check_path(self, path: Path) -> None:
        """Checks the path of an unused socket. Raises ListenError where grpc would report no cause."""
        if not path.parent.is_dir():
            raise self._error(f"there is no folder {path.parent}")
        if path.exists() and not path.is_socket():
            raise self._error("the path exists and isn't a socket")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise self._error(f"this user may not write to the folder {path.parent}")

    def _error(self, reason: str | None) -> ListenError:
        return ListenError(f"can't listen on {self}: {reason or 'unknown reason'}")
