"""What answers at a node's port. The SDK says no more than "timeout" of any that isn't a node's, or refuses to talk."""

import contextlib
import socket
import ssl
import struct

_HELLO = struct.pack(">BBHBBHIIQ", 0x80, 0x1F, 0, 0, 0, 0, 0, 0, 0)  # a greeting without a name, asking for no feature
_RESPONSES = (0x81, 0x18)
_TLS_ALERT = 0x15

_NO_MORE = "closes connections at once, as a node does that has as many as it allows"
_DEMANDS = "demands a client certificate (--couchbase-certificate and --couchbase-key)"


def look_at(address: tuple[str, int], *, timeout: float, tls: ssl.SSLContext | None, certificate: bool) -> str | None:
    """Connects as the SDK does, says hello, and returns in words what is wrong with the answer; None if nothing is.

    `certificate` says whether `tls` has a client certificate. Of a node that accepts and says nothing nothing is wrong.

    Raises:
        OSError: there is no connection at all, or the certificate isn't trusted (ssl.SSLCertVerificationError).
    """
    with socket.create_connection(address, timeout=timeout) as connection:
        if tls is None:
            return _plain(connection)
        try:
            secured = tls.wrap_socket(connection, server_hostname=address[0])
        except ssl.SSLCertVerificationError:
            raise
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            perhaps = "" if certificate else f", or that {_DEMANDS}"
            return f"no TLS there; or it {_NO_MORE}{perhaps}"
        except ssl.SSLError as error:
            return _alert(error, certificate) or f"no TLS there: {error.reason or error}"
        with secured:
            return _secured(secured, certificate)


def _plain(connection: socket.socket) -> str | None:
    try:
        answer = _greet(connection)
    except ConnectionError:
        answer = b""
    if answer is None or answer[:1] in map(_byte, _RESPONSES):
        return None
    if answer[:1] == _byte(_TLS_ALERT):
        return "speaks TLS: use couchbases://"
    if not answer:
        return f"{_NO_MORE}, or whose port is for TLS (couchbases://)"
    if answer.startswith(b"HTTP/"):
        return "speaks HTTP: that is the port of the web console, say, and not the one for data"
    return "doesn't speak Couchbase's protocol"


def _secured(connection: ssl.SSLSocket, certificate: bool) -> str | None:
    try:
        answer = _greet(connection)
    except ssl.SSLError as error:  # TLS 1.3 refuses a client's certificate only after the handshake
        return _alert(error, certificate) or f"ends the connection: {error.reason or error}"
    except ConnectionError:
        answer = b""
    if answer is None or answer[:1] in map(_byte, _RESPONSES):
        return None
    if answer:
        return "doesn't speak Couchbase's protocol"
    if certificate:
        return f"{_NO_MORE}, or that knows no user of the client certificate's name"
    return f"{_NO_MORE}, or that {_DEMANDS}"


def _greet(connection: socket.socket) -> bytes | None:
    """Returns the beginning of the answer, nothing if the connection ends instead, and None if there is no answer."""
    try:
        with contextlib.suppress(BrokenPipeError):  # an alert may be waiting to be read all the same
            connection.sendall(_HELLO)
        return connection.recv(16)
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return b""
    except TimeoutError:
        return None


def _alert(error: ssl.SSLError, certificate: bool) -> str | None:
    """Says what a TLS alert means that the node has sent; None if it hasn't sent one."""
    reason = error.reason or ""
    if "ALERT" not in reason:
        return None
    if "CERTIFICATE_REQUIRED" in reason or ("HANDSHAKE_FAILURE" in reason and not certificate):
        return _DEMANDS
    if certificate:
        return f"refuses the client certificate: {reason}"
    return f"refuses TLS: {reason}"


def _byte(number: int) -> bytes:
    return bytes((number,))
