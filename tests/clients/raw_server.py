"""A server that responds to every call with the HTTP/2 frames that a test gives it, which no gRPC server would send.

Enough of HTTP/2 (RFC 9113) and HPACK (RFC 7541, literals only) for that, and no more.
"""

import socket
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM = 1
_END_HEADERS = 4
_ACK = 1
_PREFACE_BYTES = 24

CLOSE = b"close"
"""In place of a frame: closes the connection."""

READ = b"read"
"""In place of a frame: what follows is sent once the client has read what came before."""

Header = tuple[str | bytes, str | bytes]


def frame(kind: int, flags: int, payload: bytes, stream: int | None = None) -> bytes:
    """One frame; without `stream` it belongs to the call."""
    number = _CALLS_OWN if stream is None else stream
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", number) + payload


_CALLS_OWN = 0x7FFFFFFF  # what the server replaces by the number of the call's stream


def headers(*pairs: Header, end: bool = False) -> bytes:
    """A HEADERS frame of exactly these, in literals."""
    block = b"".join(b"\x00" + _literal(key) + _literal(value) for key, value in pairs)
    return frame(HEADERS, _END_HEADERS | (END_STREAM if end else 0), block)


def start(*pairs: Header) -> bytes:
    """The headers with which a response begins."""
    return headers((":status", "200"), ("content-type", "application/grpc"), *pairs)


def message(payload: bytes, *, claimed: int | None = None, flag: int = 0) -> bytes:
    """A message in a DATA frame, which may claim to be of another length."""
    return frame(DATA, 0, bytes([flag]) + struct.pack(">I", len(payload) if claimed is None else claimed) + payload)


def html(status: int, *, text: bytes = b"<html><h1>No</h1></html>") -> bytes:
    """The response of a proxy that doesn't know gRPC."""
    return b"".join(html_in_parts(status, text=text))


def html_in_parts(status: int, *, text: bytes = b"<html><h1>No</h1></html>") -> tuple[bytes, bytes]:
    """The same as its headers and its text."""
    return headers((":status", str(status)), ("content-type", "text/html")), frame(DATA, END_STREAM, text)


def trailers(status: int | str, *pairs: Header) -> bytes:
    """The trailers with which a response ends."""
    return headers(("grpc-status", str(status)), *pairs, end=True)


def failure(status: int | str, *pairs: Header) -> bytes:
    """A failure, with headers and trailers in one frame (Trailers-Only)."""
    return headers(
        (":status", "200"), ("content-type", "application/grpc"), ("grpc-status", str(status)), *pairs, end=True
    )


def reset(code: int) -> bytes:
    """Resets the stream with an HTTP/2 error code."""
    return frame(RST_STREAM, 0, struct.pack(">I", code))


def goaway(code: int, last_stream: int = 0, text: bytes = b"") -> bytes:
    """A GOAWAY frame: this connection takes no calls after `last_stream`."""
    return frame(GOAWAY, 0, struct.pack(">II", last_stream, code) + text, stream=0)


def _literal(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    if len(data) < 127:
        return bytes([len(data)]) + data
    length, encoded = len(data) - 127, [127]
    while length >= 128:
        encoded.append(length % 128 + 128)
        length //= 128
    return bytes([*encoded, length]) + data


class RawServer:
    """Listens while its `with` block runs, and sends `frames` to whoever has made a call."""

    def __init__(self, *frames: bytes) -> None:
        """Takes what is sent, in this order."""
        self._frames = frames
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.target = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._listen)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._listener, *self._connections):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join()

    def frames_of_call(self) -> Sequence[bytes]:
        """The frames of the response to the next call."""
        return self._frames

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._serve, args=[connection])
                thread.start()
                self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError):
            _read(connection, _PREFACE_BYTES)
            connection.sendall(frame(SETTINGS, 0, b"", stream=0))
            while True:
                kind, flags, stream = self._next(connection)
                if kind in (DATA, HEADERS) and flags & END_STREAM:
                    self._respond(connection, stream)

    def _next(self, connection: socket.socket) -> tuple[int, int, int]:
        """Reads a frame, and acknowledges it if need be. Returns its kind, flags and stream."""
        head = _read(connection, 9)
        payload = _read(connection, int.from_bytes(head[:3], "big"))
        kind, flags = head[3], head[4]
        if kind in (SETTINGS, PING) and not flags & _ACK:
            connection.sendall(frame(kind, _ACK, payload if kind == PING else b"", stream=0))
        return kind, flags, int.from_bytes(head[5:], "big")

    def _respond(self, connection: socket.socket, stream: int) -> None:
        for sent in self.frames_of_call():
            if sent == CLOSE:
                connection.shutdown(socket.SHUT_RDWR)
                return
            if sent == READ:
                connection.sendall(frame(PING, 0, b"is read?", stream=0))
                while self._next(connection)[:2] != (PING, _ACK):
                    pass
                continue
            connection.sendall(sent.replace(struct.pack(">I", _CALLS_OWN), struct.pack(">I", stream)))


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
