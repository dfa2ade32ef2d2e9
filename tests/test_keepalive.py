"""Servers allow the pings that clients send to notice a lost connection. HTTP/2 frames by hand (RFC 9113)."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from userprofile.channel import KEEPALIVE_SECONDS
from userprofile.testing import FakeUserProfileServer
from userprofile_server import server
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import ServeSettings

_PING, _GOAWAY, _SETTINGS = 0x6, 0x7, 0x4
_ACK = 0x1


def frame(kind: int, flags: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + bytes(4) + payload


def pings_answered(address: str, *, pause: float, count: int = 8) -> int:
    """Pings a connection without calls, and returns how often before the server closes it."""
    host, _, port = address.partition(":")
    answered = 0
    with socket.create_connection((host, int(port)), timeout=10) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(_SETTINGS))
        for _ in range(count):
            connection.sendall(frame(_PING, payload=bytes(8)))
            while header := stream.read(9):
                stream.read(int.from_bytes(header[:3]))
                if header[3] == _GOAWAY:
                    return answered
                if (header[3], header[4]) == (_PING, _ACK):
                    answered += 1
                    break
            time.sleep(pause)
    return answered


def test_clients_ping_no_more_often_than_servers_allow() -> None:
    assert KEEPALIVE_SECONDS > server.MIN_PING_SECONDS


@contextmanager
def real(store_url: str) -> Iterator[str]:
    with UserProfileServer(ServeSettings(store=store_url, listen="127.0.0.1:0")) as address:
        yield address


@contextmanager
def fake(_store_url: str) -> Iterator[str]:
    with FakeUserProfileServer() as running:
        yield running.target


@pytest.mark.parametrize("serve", [real, fake])
def test_pings_that_come_too_often_close_the_connection(serve: Callable[..., Iterator[str]], store_url: str) -> None:
    with serve(store_url) as address:
        assert pings_answered(address, pause=0) < 8


def test_pings_that_do_not_are_answered(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MIN_PING_SECONDS", 0.01)  # nobody wants to wait for twenty seconds
    with real(store_url) as address:
        assert pings_answered(address, pause=0.05) == 8
