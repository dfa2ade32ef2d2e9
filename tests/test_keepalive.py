"""Servers allow the pings that clients send to notice a lost connection. HTTP/2 frames by hand (RFC 9113)."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.support import WAIT, settings_for
from userprofile.channel import KEEPALIVE_SECONDS
from userprofile.testing import FakeUserProfileServer
from userprofile_server.limits import LimitSettings
from userprofile_server.server import UserProfileServer

_PING, _GOAWAY, _SETTINGS = 0x6, 0x7, 0x4
_ACK = 0x1


def frame(kind: int, flags: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + bytes(4) + payload


def pings_acknowledged(address: str, *, pause: float, count: int = 8) -> int:
    """Pings a connection without calls, and returns how often before the server closes it."""
    host, _, port = address.partition(":")
    acknowledged = 0
    with socket.create_connection((host, int(port)), timeout=WAIT) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(_SETTINGS))
        for _ in range(count):
            connection.sendall(frame(_PING, payload=bytes(8)))
            while header := stream.read(9):
                stream.read(int.from_bytes(header[:3]))
                if header[3] == _GOAWAY:
                    return acknowledged
                if (header[3], header[4]) == (_PING, _ACK):
                    acknowledged += 1
                    break
            time.sleep(pause)
    return acknowledged


LINKERD_SECONDS = 10
"""How often Linkerd pings, which can't be changed."""


def test_clients_and_meshes_ping_no_more_often_than_servers_allow() -> None:
    assert min(KEEPALIVE_SECONDS, LINKERD_SECONDS) > LimitSettings().min_ping_interval


@contextmanager
def real(store_url: str) -> Iterator[str]:
    with UserProfileServer(settings_for(store_url)) as address:
        yield address


@contextmanager
def fake(_store_url: str) -> Iterator[str]:
    with FakeUserProfileServer() as running:
        yield running.target


@pytest.mark.parametrize("serve", [real, fake])
def test_pings_that_come_too_often_close_the_connection(
    serve: Callable[[str], AbstractContextManager[str]], store_url: str
) -> None:
    with serve(store_url) as address:
        assert pings_acknowledged(address, pause=0) < 8


def test_pings_that_do_not_are_acknowledged(store_url: str) -> None:
    with UserProfileServer(settings_for(store_url, min_ping_interval=0.01)) as address:
        assert pings_acknowledged(address, pause=0.05) == 8
