"""The limits of connections, each on the wire: what goes beyond it ends, and others are served."""

import struct

import grpc
import pytest
from pydantic import ValidationError

from tests.canary import raises
from tests.http2 import (
    CONTINUATION,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Connection,
    block,
    call,
    frame,
    message,
    request_headers,
)  # fmt: skip
from tests.support import CallError, GetUser, eventually
from tests.test_get_user import ScriptedServer, Serve, serve  # noqa: F401, a fixture
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile_server import descriptors
from userprofile_server.limits import LimitSettings

GET_USER = b"/userprofile.v1.UserProfileService/GetUser"
JOHNDOE = pb.GetUserRequest(username="johndoe").SerializeToString()


@pytest.mark.parametrize(
    "name",
    [
        "connection_age",
        "connection_age_grace",
        "connection_idle",
        "handshake_timeout",
        "keepalive",
        "keepalive_timeout",
        "request_timeout",
    ],
)
def test_a_time_with_which_nobody_could_be_served_is_refused(name: str) -> None:
    with raises(ValidationError, match=rf"{name}\n  Input should be greater than or equal to 0\.1"):
        LimitSettings.model_validate({name: 0.01})


def test_as_many_calls_may_arrive_at_a_time_as_a_few_callers_make() -> None:
    with raises(ValidationError, match=r"max_pending\n  Input should be greater than or equal to 10"):
        LimitSettings(max_pending=1)


def other(server: ScriptedServer) -> bool:
    """Whether somebody else, who connects now, is served."""
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        return GetUser(channel)("johndoe").username == "johndoe"


def test_one_connection_too_many_is_closed_and_the_others_go_on(serve: Serve) -> None:  # noqa: F811
    server = serve(max_connections=3)
    assert server.get_user("johndoe")
    with Connection(server.address) as first, Connection(server.address):
        first.ping()
        eventually(lambda: refused(server), "a fourth one is closed")
        assert not first.closed.is_set()
        assert server.get_user("johndoe")
    eventually(lambda: not refused(server), "there is room again")


def refused(server: ScriptedServer) -> bool:
    with Connection(server.address) as connection:
        connection.ping()
        return connection.closed.is_set()


@pytest.mark.parametrize("opening", [b"", PREFACE[:10], PREFACE, b"\x16\x03\x01\x02\x00"], ids=repr)
def test_a_connection_that_does_not_begin_is_closed(serve: Serve, opening: bytes) -> None:  # noqa: F811
    server = serve(handshake_timeout=0.2)
    with Connection(server.address, opening=opening) as connection:
        eventually(connection.closed.is_set, "closed")
    assert other(server)


def test_a_connection_that_is_idle_is_closed(serve: Serve) -> None:  # noqa: F811
    server = serve(connection_idle=0.2)
    with Connection(server.address) as connection:
        connection.send(call(1, GET_USER) + message(1, JOHNDOE))
        eventually(connection.closed.is_set, "closed")
        assert 1 in connection.ended  # after its call
        assert connection.received[GOAWAY]
    assert other(server)


def test_an_old_connection_takes_no_more_calls_and_is_closed(serve: Serve) -> None:  # noqa: F811
    server = serve(connection_age=0.2, connection_age_grace=0.2)
    with Connection(server.address) as connection:
        connection.send(call(1, GET_USER))  # and no more: without the grace it would keep the connection open
        eventually(connection.closed.is_set, "closed")
        assert connection.goodbye.endswith(b"max connection age")
    for _ in range(50):
        assert server.get_user("johndoe")  # over one connection after the other


def test_a_client_that_is_gone_is_noticed(serve: Serve) -> None:  # noqa: F811
    server = serve(keepalive=0.2, keepalive_timeout=0.2)
    with Connection(server.address) as gone, Connection(server.address, acknowledges=True) as there:
        eventually(gone.closed.is_set, "closed")
        assert gone.received[PING]
        eventually(lambda: there.received[PING] > 5, "the other one is pinged on and on")
        assert not there.closed.is_set()


def test_a_call_too_many_is_refused_by_its_connection_alone(serve: Serve) -> None:  # noqa: F811
    server = serve(max_streams=3)
    with Connection(server.address, acknowledges=True) as connection:
        connection.ping()
        connection.send(b"".join(call(number, GET_USER) for number in (1, 3, 5, 7, 9)))
        eventually(lambda: connection.received[RST_STREAM] == 2, "two are refused")
        assert sorted(connection.ended) == [7, 9]
        assert other(server)
        connection.send(message(1, JOHNDOE))
        eventually(lambda: 1 in connection.ended, "a call ends")
        connection.send(call(11, GET_USER) + message(11, JOHNDOE))
        eventually(lambda: 11 in connection.ended, "another one takes its place")


def test_headers_that_are_too_large_end_the_call(serve: Serve) -> None:  # noqa: F811
    server = serve(max_header_bytes=4096)
    assert server.get_user("johndoe", metadata=(("x-large", "x" * 3000),))
    error = server.get_user.error("johndoe", metadata=(("x-large", "x" * 5000),))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.get_user("johndoe")


def test_headers_in_many_frames_are_no_larger(serve: Serve) -> None:  # noqa: F811
    server = serve(max_header_bytes=4096)
    with Connection(server.address, acknowledges=True) as connection:
        connection.ping()
        connection.send(frame(HEADERS, 0, 1, block(request_headers(GET_USER))))
        for number in range(100):
            connection.send(frame(CONTINUATION, 0, 1, block([(b"x-%d" % number, b"x" * 1000)])))
        connection.send(frame(CONTINUATION, END_HEADERS, 1))
        eventually(lambda: 1 in connection.ended or connection.closed.is_set(), "it has ended")
        assert other(server)


def test_a_request_that_is_too_large_ends_the_call(serve: Serve) -> None:  # noqa: F811
    server = serve(max_request_bytes=2048)
    error = CallError.of(lambda: server.get_user.raw(bytes(2049)))
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.get_user("johndoe")


def test_what_is_no_http2_is_closed_at_once(serve: Serve) -> None:  # noqa: F811
    server = serve(handshake_timeout=3600)
    broken = struct.pack(">I", 0xFFFFFF00) + bytes(20)  # a frame of 16 MiB
    for opening in (b"GET / HTTP/1.1\r\n\r\n", PREFACE + broken, PREFACE + frame(SETTINGS) + broken):
        with Connection(server.address, opening=opening) as connection:
            eventually(connection.closed.is_set, "closed")
    assert other(server)


def test_a_server_asks_the_system_for_as_many_files_as_it_needs(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    serve: Serve,  # noqa: F811
) -> None:
    asked: list[int] = []

    def allow(count: int) -> int:
        asked.append(count)
        return count - 1

    monkeypatch.setattr(descriptors, "allow", allow)
    serve(max_connections=123)
    serve(max_connections=123, listen="127.0.0.1:0,127.0.0.1:0", health_listen="127.0.0.1:0")
    assert asked == [1123, 1369]
    assert "the system allows 1122 open files" in caplog.text
