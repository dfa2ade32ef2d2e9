"""Addresses to listen on: what they look like, and whether other machines can reach them."""

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path

_HOST_PORT = re.compile(r"(?:\[(?P<ipv6>[^\]]+)\]|(?P<host>[^:\[\]/]+)):(?P<port>\d{1,5})")


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

    def check_nobody_listens(self) -> None:
        """Raises ListenError if a server is already alive on this Unix socket.

        grpc removes an existing socket file before it binds, which would cut a running server off in
        silence. For TCP the operating system refuses by itself.
        """
        if self.port is not None or not Path(self.host).exists():
            return
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.host)
            except OSError:
                return  # a file that a dead server left behind
        raise ListenError(f"can't listen on {self}: another server is using it")

    def explain_failure(self) -> ListenError:
        """Asks the operating system for the reason that grpc keeps to itself when it couldn't bind."""
        try:
            if self.port is None:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.bind(self.host)
                Path(self.host).unlink()
            else:
                for family, kind, proto, _, address in socket.getaddrinfo(
                    self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
                ):
                    with socket.socket(family, kind, proto) as probe:
                        probe.bind(address)
        except OSError as error:
            return ListenError(f"can't listen on {self}: {error.strerror or error}")
        return ListenError(f"can't listen on {self}")
