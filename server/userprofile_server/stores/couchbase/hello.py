"""Finds out what responds at a node's port. The SDK reports only a timeout if it isn't a node or refuses service."""

import contextlib
import socket
import ssl
import struct

# A HELLO without a client name that requests one feature (XERROR): CouchbaseMock fails on one that requests none.
_HELLO = struct.pack(">BBHBBHIIQH", 0x80, 0x1F, 0, 0, 0, 0, 2, 0, 0, 0x07)
_HEADER = struct.Struct(">BBHBBHI")  # to the body's length; a flexible response has two lengths for the key's one
_RESPONSE, _FLEXIBLE_RESPONSE = 0x81, 0x18
_TLS_ALERT = 0x15

_NO_MORE = "closes connections at once, like a node at its connection limit"
_STRANGE = "doesn't speak Couchbase's protocol"
_DEMANDS = "demands a client certificate (--couchbase-certificate and --couchbase-key)"


class NotANodeError(Exception):
    """Raised if there is no usable Couchbase node at an address; the text says what responds instead.

    The SDK aborts the process on some responses whose lengths contradict each other (`docs/sdk_abort.py`).
    """


def look_at(address: tuple[str, int], *, timeout: float, tls: ssl.SSLContext | None, certificate: bool) -> str | None:
    """Connects like the SDK, sends a HELLO, and returns the problem of the response; None if there is none.

    `certificate` says whether `tls` has a client certificate. A node that accepts the connection but never responds has
    no problem in this sense.

    Raises:
        NotANodeError: something responds, but not like a node.
        OSError: the connection failed, or the certificate isn't trusted (ssl.SSLCertVerificationError).
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
    response = _greet(connection)
    if response == b"":
        return f"{_NO_MORE}, or whose port is for TLS (couchbases://)"
    _check(response)
    return None


def _secured(connection: ssl.SSLSocket, certificate: bool) -> str | None:
    try:
        response = _greet(connection)
    except ssl.SSLError as error:  # TLS 1.3 refuses a client's certificate only after the handshake
        return _alert(error, certificate) or f"ends the connection: {error.reason or error}"
    if response != b"":
        _check(response)
        return None
    if certificate:
        return f"{_NO_MORE}, or that knows no user of the client certificate's name"
    return f"{_NO_MORE}, or that {_DEMANDS}"


def _check(response: bytes | None) -> None:
    """Raises NotANodeError for the beginning of a response that isn't a node's to `_HELLO`."""
    if response is None:
        return
    if response[0] == _TLS_ALERT:
        raise NotANodeError("speaks TLS: use couchbases://")
    if response.startswith(b"HTTP/"):
        raise NotANodeError("speaks HTTP: perhaps this is the port of the web console, not of the key-value service")
    if response[0] not in (_RESPONSE, _FLEXIBLE_RESPONSE):
        raise NotANodeError(_STRANGE)
    if len(response) < _HEADER.size:
        return
    magic, opcode, key, extras, _, status, body = _HEADER.unpack(response[: _HEADER.size])
    framing, key = divmod(key, 0x100) if magic == _FLEXIBLE_RESPONSE else (0, key)
    features = body - framing - key - extras
    if opcode != _HELLO[1] or features < 0 or (status == 0 and features % 2):
        raise NotANodeError(f"{_STRANGE}: its response is malformed")


def _greet(connection: socket.socket) -> bytes | None:
    """Returns the beginning of the response; b"" if the connection is closed instead, None if nothing arrives."""
    response = b""
    try:
        with contextlib.suppress(BrokenPipeError):  # there may still be an alert to read
            connection.sendall(_HELLO)
        while len(response) < _HEADER.size and (more := connection.recv(_HEADER.size - len(response))):
            response += more
    except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        pass
    except TimeoutError:
        return response or None
    return response


def _alert(error: ssl.SSLError, certificate: bool) -> str | None:
    """Explains the node's TLS alert; returns None if `error` isn't an alert."""
    reason = error.reason or ""
    if "ALERT" not in reason:
        return None
    if "CERTIFICATE_REQUIRED" in reason or ("HANDSHAKE_FAILURE" in reason and not certificate):
        return _DEMANDS
    if certificate:
        return f"refuses the client certificate: {reason}"
    return f"refuses TLS: {reason}"
