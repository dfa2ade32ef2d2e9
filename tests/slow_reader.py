"""A client that opens a health watch and grants the server no room to send: HTTP/2 frames by hand (RFC 9113)."""

import socket
import struct
import threading
from typing import Self

MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS, _HEADERS, _DATA, _GOAWAY = 0x4, 0x1, 0x0, 0x7
_PING = 0x6
_ACK = 0x1
_END_STREAM, _END_HEADERS = 0x1, 0x4
_INITIAL_WINDOW_SIZE = 0x4


class SlowReader:
    """One connection with one watch on it, from which nothing can be received."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self.told_that_the_connection_closes = False
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0)
        path = b"/grpc.health.v1.Health/Watch"
        headers = b"".join(
            b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value  # literal, never indexed, not Huffman
            for name, value in [
                (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost"),
                (b"te", b"trailers"), (b"content-type", b"application/grpc"),
            ]
        )  # fmt: skip
        self._socket.sendall(
            MAGIC
            + _frame(_SETTINGS, 0, 0, settings)
            + _frame(_HEADERS, _END_HEADERS, 1, headers)
            + _frame(_DATA, _END_STREAM, 1, b"\x00\x00\x00\x00\x00")
        )
        self._opened = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._opened.wait(10)  # response headers take no room; they tell that the watch is open

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        with self._socket.makefile("rb") as stream:
            try:
                while header := stream.read(9):
                    size, kind, flags = int.from_bytes(header[:3]), header[3], header[4]
                    stream.read(size)
                    if kind == _SETTINGS and not flags & _ACK:
                        self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
                    self.told_that_the_connection_closes |= kind == _GOAWAY
                    if kind == _HEADERS:
                        self._opened.set()
            except OSError:
                pass


class OpenStreams:
    """One connection with many calls on it, of which `sent` is all that is heard after their headers."""

    def __init__(self, address: str, path: bytes, count: int, sent: bytes = b"") -> None:
        host, _, port = address.partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        headers = b"".join(
            b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
            for name, value in [
                (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost"),
                (b"te", b"trailers"), (b"content-type", b"application/grpc"),
            ]
        )  # fmt: skip
        calls = b"".join(
            _frame(_HEADERS, _END_HEADERS, number, headers) + _frame(_DATA, 0, number, sent)
            for number in range(1, 2 * count, 2)
        )
        ping = _frame(_PING, 0, 0, b"all sent")
        self._socket.sendall(MAGIC + _frame(_SETTINGS, 0, 0, b"") + calls + ping)
        with self._socket.makefile("rb") as stream:
            while header := stream.read(9):
                if stream.read(int.from_bytes(header[:3])) == b"all sent":
                    return
        raise AssertionError("the connection was closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload
