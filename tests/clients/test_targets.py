"""Which targets a client takes, and what it says of those that can't be."""

import socket
from pathlib import Path
from typing import Any

import pytest

import userprofile
from tests.canary import raises
from tests.clients.twins import MakeClient
from tests.support import run
from userprofile import TLS
from userprofile.targets import check_target

CAN_BE = [
    "localhost:50051", "LOCALHOST:1", "users.example:65535", "users.example.:443", "my_service:1", "1host-2:1",
    "127.0.0.1:1", "[::1]:1", "[fe80::1%eth0]:1", "localhost:http",
    "dns:localhost:1", "dns:///localhost:1", "dns://8.8.8.8:53/localhost:1", "dns://[::1]:53/localhost:1",
    "DNS:///localhost:1", "dns:///[::1]:1",
    "ipv4:127.0.0.1:1", "ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1", "ipv6:[::1]:1,[::2]:2", "ipv6:%5B::1%5D:1",
    "unix:socket", "unix:/run/socket", "unix:///run/socket", "unix:/" + "x" * 106, "unix-abstract:name",
    "xds:///users", "google-c2p:///users",
]  # fmt: skip

HAS_NO_PORT = ["localhost", "127.0.0.1", "[::1]", "::1", "dns:///localhost", "dns:localhost", "users.example."]

CANNOT_BE = {
    **dict.fromkeys(
        ["127.0.0.1:86736", "localhost:65536", "dns:///localhost:86736", "ipv4:127.0.0.1:86736"], "1 to 65535"
    ),
    **dict.fromkeys(["localhost:0", "[::1]:0", "ipv6:[::1]:0", f"localhost:{10**30}"], "1 to 65535"),
    **dict.fromkeys(
        ["localhost:", "[::1]:", "ipv4:127.0.0.1", "ipv6:[::1]", "dns:///localhost:"], "the port is missing"
    ),
    **dict.fromkeys(
        ["localhost:x", "localhost:+1", "localhost:-1", "localhost:1e3", "localhost:\u0661"], "not a number"
    ),
    **dict.fromkeys(["localhost:1/path", "localhost:1/", "localhost:1?x", "dns:///localhost:1#x"], "not a number"),
    **dict.fromkeys(["http://localhost:1", "https://localhost", "grpc://localhost:1", "tcp://[::1]:1"], ":// URL; to"),
    **dict.fromkeys([" localhost:1", "localhost:1 ", "localhost:1\n", "local host:1", "\tlocalhost:1"], "whitespace"),
    **dict.fromkeys(["[::1", "[::1]x:1", "::1:50051:", "a:1:2", "]:1"], "in brackets"),
    **dict.fromkeys(["[zz]:1", "[]:1", "[127.0.0.1]:1"], "is not an IPv6 address"),
    **dict.fromkeys([":50051", "dns:///:1", "dns:", "50051"], "the host is missing"),
    **dict.fromkeys(["dns:///", "dns://localhost:1"], "dns:///host:port"),
    **dict.fromkeys(["ü.example:1", "user@host:1", "a..b:1", "x" * 64 + ":1", "a/b:1", "\x1b[1mhost:1"], "not valid"),
    **dict.fromkeys(["localhost:1,localhost:2", "localhost:1,"], "for several servers use ipv4:"),
    **dict.fromkeys(
        ["ipv4:", "ipv4:localhost:1", "ipv4:127.0.0.1:1, 127.0.0.1:2", "ipv6:::1", "ipv4:[::1]:1"], "not an IP address"
    ),
    **dict.fromkeys(["unix:", "unix://", "unix-abstract:"], "is missing after unix"),
    "unix://run/socket": "must begin with a slash",
    **dict.fromkeys(
        ["unix:/" + "x" * 107, "unix:" + "ü" * 54, "unix-abstract:" + "x" * 108], "at most 107 bytes, not 108"
    ),
    **dict.fromkeys(["dns://8.8.8.8/users:1", "dns://[::1]/users:1", "dns://ns:53/users:1"], "dns://192.0.2.1:53/"),
    "unix:/run/a%00b": "a zero byte",
    "": "must not be empty",
}


@pytest.mark.parametrize("target", CAN_BE)
def test_what_grpc_resolves_is_taken(make_client: MakeClient, target: str) -> None:
    make_client(target).close()


@pytest.mark.parametrize("target", [*CANNOT_BE, *HAS_NO_PORT])
def test_what_cannot_be_is_refused_in_words(make_client: MakeClient, target: str) -> None:
    with raises(ValueError, match=CANNOT_BE.get(target, "the port is missing; write .*:50051")) as caught:
        make_client(target)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("target", HAS_NO_PORT)
def test_without_a_port_it_is_that_of_tls_where_tls_is_spoken(target: str) -> None:
    check_target(target, tls=True)


def test_tls_and_a_name_alone_make_a_client(make_client: MakeClient) -> None:
    make_client("users.example", tls=TLS()).close()


@pytest.mark.parametrize("target", ["localhost", "127.0.0.1:86736", "http://localhost:1"])
def test_the_command_line_says_it_too(target: str) -> None:
    done = run("userprofile", "get", "johndoe", "--target", target)
    assert done.returncode == 2
    assert f"the target '{target}' is not valid: " in done.stderr


def test_a_path_where_nobody_listens_is_an_error_of_the_call(make_client: MakeClient, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    for name in ("missing", "dead"):
        client: Any = make_client(f"unix:{tmp_path / name}", channel_options=[("grpc.service_config", "{}")])
        with raises(userprofile.ServiceUnavailableError, match=name):
            client.get_user("johndoe", wait_for_ready=False)
