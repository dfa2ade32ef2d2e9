"""Listeners: an address with plaintext, TLS or mutual TLS."""

from dataclasses import dataclass, replace
from typing import Literal

from userprofile_server.listen import ListenAddress

SEPARATOR = ","


@dataclass(frozen=True)
class Listener:
    """`ADDRESS` for plaintext, `tls://ADDRESS`, or `mtls://ADDRESS`, which requires client certificates."""

    security: Literal["plaintext", "tls", "mtls"]
    address: ListenAddress

    @classmethod
    def parse(cls, text: str) -> "Listener":
        """Raises ValueError, with a text for operators, if `text` isn't a listener."""
        scheme, found, rest = text.partition("://")
        if scheme == "unix" or not found:
            return cls("plaintext", ListenAddress.parse(text))
        if scheme not in ("tls", "mtls"):
            raise ValueError("an address begins with tls://, with mtls://, or with nothing for plaintext")
        address = ListenAddress.parse(rest)
        if address.port is None:
            raise ValueError("a Unix socket has no TLS: only this machine can reach it")
        return cls("tls" if scheme == "tls" else "mtls", address)

    def __str__(self) -> str:
        """Returns the form that is typed and printed."""
        return str(self.address) if self.security == "plaintext" else f"{self.security}://{self.address}"

    def at(self, address: ListenAddress) -> "Listener":
        """Returns this listener with another address, the one that was bound."""
        return replace(self, address=address)


def parse_listeners(text: str) -> list[Listener]:
    """Parses listeners separated by commas.

    Raises:
        ValueError: one of them isn't a listener, or two are the same. The text is for operators.
    """
    listeners = [Listener.parse(part.strip()) for part in text.split(SEPARATOR)]
    addresses = [str(listener.address) for listener in listeners if listener.address.port != 0]
    if twice := next((address for address in addresses if addresses.count(address) > 1), None):
        raise ValueError(f"{twice} is given twice")
    return listeners


def listed(listeners: list[Listener]) -> str:
    """Returns the text form, which `parse_listeners` parses."""
    return SEPARATOR.join(map(str, listeners))
