"""Where the server listens, and where it refuses to."""

import socket
from pathlib import Path

import grpc
import pytest
from pydantic import ValidationError

from tests.canary import raises
from tests.support import GetUser, settings_for
from userprofile_server.listen import ListenAddress, ListenError
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import ServerSettings


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:50051", "127.8.9.1:0", "localhost:50051", "[::1]:50051", "unix:/run/userprofile.sock", "unix:a.sock"],
)
def test_this_machines_own_addresses_are_local(text: str) -> None:
    address = ListenAddress.parse(text)
    assert address.is_local
    assert str(address) == text
    assert ServerSettings(listen=text).listen == text


@pytest.mark.parametrize("text", ["0.0.0.0:50051", "[::]:50051", "10.0.0.1:1", "myhost:50051", "localhost.evil.com:1"])
def test_plaintext_beyond_this_machine_has_to_be_allowed(text: str) -> None:
    with raises(ValidationError, match="--allow-plaintext|this machine has no such address|can't listen on"):
        ServerSettings(listen=text)
    assert ServerSettings(listen=text, allow_plaintext=True).listen == text


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "50051", ":50051", "host:", "host:65536", "host:-1", "::1:50051", "[::1]", "[nope]:1", "unix:",
     "http://host:1", "dns:///host:1", "a/b:1", "127.0.0.1:86736", "127.0.0.1 :1", " host:1", "host:1\n", "host:\u0661",
     "unix:/" + "x" * 107, "unix:///" + "ü" * 54],
)  # fmt: skip
def test_anything_else_is_no_address(text: str) -> None:
    with raises(ValueError):
        ListenAddress.parse(text)


def test_a_unix_path_that_is_too_long_is_an_error_in_words() -> None:
    with raises(ValidationError, match="a Unix socket's path has at most 107 bytes, not 108"):
        ServerSettings(listen="unix:/" + "x" * 107)
    assert ServerSettings(listen="unix:/" + "x" * 106).listen


def server(listen: str, store: str) -> UserProfileServer:
    return UserProfileServer(settings_for(store, listen=listen))


def test_a_second_server_on_the_same_port_is_an_error_and_the_first_goes_on(address: str, user_store_url: str) -> None:
    with raises(ListenError, match="Address already in use"):
        server(address, user_store_url).start()
    with grpc.insecure_channel(address) as channel:
        assert all(GetUser(channel)("johndoe").username for _ in range(20))


def test_a_restart_may_have_the_port_whose_last_connections_the_system_still_remembers(user_store_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as before:
        port = before.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            before.accept()[0].close()  # whoever closes first is left in TIME_WAIT, for a minute
    with socket.socket() as impatient, raises(OSError, match="already in use"):
        impatient.bind(("127.0.0.1", port))
    for reserved in ListenAddress.parse(f"127.0.0.1:{port}").reserve()[1]:
        reserved.close()
    with server(f"127.0.0.1:{port}", user_store_url) as listen, grpc.insecure_channel(listen) as channel:
        assert GetUser(channel)("johndoe").username == "johndoe"


def test_localhost_is_taken_if_any_of_its_addresses_is(address: str, user_store_url: str) -> None:
    with raises(ListenError, match="Address already in use"):
        server(address.replace("127.0.0.1", "localhost"), user_store_url).start()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize("options", [[], [socket.SO_REUSEADDR], [socket.SO_REUSEADDR, socket.SO_REUSEPORT]])
def test_all_addresses_are_taken_if_the_ipv4_ones_are(options: list[int], user_store_url: str) -> None:
    with socket.socket() as other:
        for option in options:
            other.setsockopt(socket.SOL_SOCKET, option, 1)
        other.bind(("0.0.0.0", 0))
        other.listen()
        address = ListenAddress.parse(f"[::]:{other.getsockname()[1]}")
        with raises(ListenError, match="Address already in use"):
            address.reserve()
        with raises(ListenError, match="Address already in use"):
            UserProfileServer(settings_for(user_store_url, listen=str(address), allow_plaintext=True)).start()


def test_localhost_serves_on_every_address_that_it_stands_for(user_store_url: str) -> None:
    with server("localhost:0", user_store_url) as listen:
        port = int(listen.removeprefix("localhost:"))
        for target in dict.fromkeys(
            f"[{a[0]}]:{port}" if ":" in str(a[0]) else f"{a[0]}:{port}"
            for *_, a in socket.getaddrinfo("localhost", port)
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
    settings = settings_for(user_store_url, listen=listen, allow_plaintext=True)
    with raises(ListenError, match=r"can't listen on .*: ."):
        UserProfileServer(settings).start()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", *["[::]"] * socket.has_dualstack_ipv6()])
def test_a_port_that_is_reserved_is_for_those_who_share_it(host: str) -> None:
    address, sockets = ListenAddress.parse(f"{host}:0").reserve()
    assert address.port
    with raises(ListenError, match="Address already in use"):
        address.reserve()
    with raises(ListenError, match="Address already in use"):
        address.can_bind()
    assert address.can_bind(shared=True)
    with raises(ConnectionRefusedError):  # nothing listens
        socket.create_connection(("127.0.0.1", address.port)).close()
    for each in sockets:
        each.close()
    assert address.can_bind()


def test_a_name_is_reserved_on_each_of_its_addresses_with_one_port() -> None:
    address, sockets = ListenAddress.parse("localhost:0").reserve()
    assert {each.getsockname()[1] for each in sockets} == {address.port}
    assert {each.getsockname()[0] for each in sockets} == {found.host for found in address.resolve() if found.exists()}
    for each in sockets:
        each.close()
