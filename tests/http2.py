"""A client of HTTP/2 frames (RFC 9113) that a test chooses: what no gRPC client would send."""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

from tests.support import WAIT, eventually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4  # a setting
CANCEL = 8  # a reason to reset a stream

Header = tuple[bytes, bytes]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def setting(number: int, value: int) -> bytes:
    """A SETTINGS frame with one setting."""
    return frame(SETTINGS, payload=struct.pack(">HI", number, value))


def block(pairs: Iterable[Header]) -> bytes:
    """Headers as literals, never indexed, without Huffman's code (RFC 7541)."""
    return b"".join(b"\x00" + _literal(name) + _literal(value) for name, value in pairs)


def request_headers(path: bytes, *more: Header) -> list[Header]:
    """The headers of a call."""
    return [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"), *more,
    ]  # fmt: skip


def call(stream: int, path: bytes, *more: Header) -> bytes:
    """A HEADERS frame, which begins a call."""
    return frame(HEADERS, END_HEADERS, stream, block(request_headers(path, *more)))


def message(stream: int, content: bytes) -> bytes:
    """A DATA frame with a whole message, which is the last."""
    return frame(DATA, END_STREAM, stream, b"\x00" + len(content).to_bytes(4) + content)


def reset(stream: int) -> bytes:
    """An RST_STREAM frame, which cancels a call."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))


def _literal(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    length, encoded = len(text) - 127, [127]
    while length >= 128:
        encoded.append(length % 128 + 128)
        length //= 128
    return bytes([*encoded, length]) + text


class Connection:
    """A connection that sends what it is told to."""

    def __init__(
        self,
        address: str,
        *,
        opening: bytes = PREFACE + frame(SETTINGS),
        reads: bool = True,
        acknowledges: bool = False,
    ) -> None:
        """Sends `opening`; says whether it reads what comes, and acknowledges settings and pings."""
        host, _, port = address.rpartition(":")
        self.received: Counter[int] = Counter()
        """How many frames have come, by their kinds."""
        self.acknowledged = 0
        """How many of our pings the server has acknowledged."""
        self.ended: list[int] = []
        """The streams that the server has ended."""
        self.goodbye = b""
        """The payload of its GOAWAY."""
        self.closed = threading.Event()
        """The server has closed the connection."""
        self._socket = socket.create_connection((host, int(port)), timeout=WAIT)
        self._acknowledges = acknowledges
        self._reader = threading.Thread(target=self._read, daemon=True)
        if opening:
            self._socket.sendall(opening)
        if reads:
            self._reader.start()

    def send(self, data: bytes) -> bool:
        """Sends. Returns False if the server has closed the connection."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def ping(self) -> None:
        """Waits until the server has read all that was sent."""
        before = self.acknowledged
        self.send(frame(PING, payload=b"all read"))
        eventually(lambda: self.acknowledged > before or self.closed.is_set(), "the ping is acknowledged")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._reader.is_alive():
            self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        with self._socket.makefile("rb") as stream, suppress(OSError):
            while len(header := stream.read(9)) == 9:
                payload = stream.read(int.from_bytes(header[:3]))
                kind, flags = header[3], header[4]
                if kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
                    self.ended.append(int.from_bytes(header[5:]))
                if self._acknowledges and kind in (SETTINGS, PING) and not flags & ACK:
                    self.send(frame(kind, ACK, 0, payload if kind == PING else b""))
                if kind == GOAWAY:
                    self.goodbye = payload
                if kind == PING and flags & ACK:
                    self.acknowledged += 1
                else:
                    self.received[kind] += 1
        self.closed.set()
