"""Where the server listens, and where it refuses to."""

import socket
from pathlib import Path

import grpc
import pytest
from pydantic import ValidationError

from tests.canary import raises
from tests.support import GetUser
from userprofile_server.listen import ListenAddress, ListenError
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import ServeSettings


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:50051", "127.8.9.1:0", "localhost:50051", "[::1]:50051", "unix:/run/userprofile.sock", "unix:a.sock"],
)
def test_this_machines_own_addresses_are_local(text: str) -> None:
    address = ListenAddress.parse(text)
    assert address.is_local
    assert str(address) == text
    assert ServeSettings(listen=text).listen == text


@pytest.mark.parametrize("text", ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:1", "myhost:50051", "localhost.evil.com:1"])
def test_plaintext_beyond_this_machine_has_to_be_asked_for_by_name(text: str) -> None:
    with raises(ValidationError, match="--allow-plaintext|this machine has no such address|can't listen on"):
        ServeSettings(listen=text)
    assert ServeSettings(listen=text, allow_plaintext=True).listen == text


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "50051", ":50051", "host:", "host:65536", "host:-1", "::1:50051", "[::1]", "[nope]:1", "unix:",
     "http://host:1", "dns:///host:1", "a/b:1", "127.0.0.1:86736", "127.0.0.1 :1", " host:1", "host:1\n", "host:\u0661",
     "unix:/" + "x" * 107, "unix:///" + "ü" * 54],
)  # fmt: skip
def test_anything_else_is_no_address(text: str) -> None:
    with raises(ValueError):
        ListenAddress.parse(text)


def test_a_unix_path_that_is_too_long_is_told_so_in_words() -> None:
    with raises(ValidationError, match="a Unix socket's path has at most 107 bytes, not 108"):
        ServeSettings(listen="unix:/" + "x" * 107)
    assert ServeSettings(listen="unix:/" + "x" * 106).listen


def server(listen: str, store: str) -> UserProfileServer:
    return UserProfileServer(ServeSettings(store=store, listen=listen))


def test_a_second_server_on_the_same_port_is_an_error_and_the_first_goes_on(address: str, user_store_url: str) -> None:
    with raises(ListenError, match="Address already in use"):
        server(address, user_store_url).start()
    with grpc.insecure_channel(address) as channel:
        assert all(GetUser(channel)("johndoe").username for _ in range(20))


def test_localhost_is_taken_if_any_of_its_addresses_is(address: str, user_store_url: str) -> None:
    with raises(ListenError, match="Address already in use"):
        server(address.replace("127.0.0.1", "localhost"), user_store_url).start()


def test_localhost_serves_on_every_address_that_it_stands_for(user_store_url: str) -> None:
    with server("localhost:0", user_store_url) as listen:
        port = int(listen.removeprefix("localhost:"))
        for target in dict.fromkeys(
            f"[{a[0]}]:{port}" if ":" in a[0] else f"{a[0]}:{port}" for *_, a in socket.getaddrinfo("localhost", port)
        ):
            if target.startswith("[") and not socket.has_dualstack_ipv6():
                continue
            with grpc.insecure_channel(target) as channel:
                assert GetUser(channel)("johndoe").username == "johndoe"


def test_a_second_server_on_the_same_unix_socket_is_one_too(tmp_path: Path, user_store_url: str) -> None:
    listen = f"unix:{tmp_path / 'socket'}"
    with server(listen, user_store_url), grpc.insecure_channel(listen) as channel:
        with raises(ListenError, match="another server"):
            server(listen, user_store_url).start()
        assert GetUser(channel)("johndoe").username == "johndoe"


def test_a_socket_file_that_a_dead_server_left_is_no_obstacle(tmp_path: Path, user_store_url: str) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with server(f"unix:{path}", user_store_url) as listen, grpc.insecure_channel(listen) as channel:
        assert GetUser(channel)("johndoe").username == "johndoe"


@pytest.mark.parametrize("listen", ["192.0.2.1:0", "no-such-host.invalid:0", "unix:/no/such/folder/socket"])
def test_an_address_that_cannot_be_had_is_explained(listen: str, user_store_url: str) -> None:
    settings = ServeSettings(store=user_store_url, listen=listen, allow_plaintext=True)
    with raises(ListenError, match=r"can't listen on .*: ."):
        UserProfileServer(settings).start()
