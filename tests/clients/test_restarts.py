"""A server that restarts, one that is absent, and a gateway that doesn't let every call through."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc

import userprofile
from tests.canary import raises
from tests.clients.twins import MakeClient
from tests.support import WAIT, eventually, run
from userprofile import User
from userprofile.errors import from_rpc_error
from userprofile.testing import FakeUserProfileServer
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

TOKEN = "a-token-for-the-tests"


@pytest.mark.slow
def test_a_restart_is_not_felt(make_client: MakeClient, fake_userprofile: FakeUserProfileServer) -> None:
    fake_userprofile.add(User("johndoe"))
    client = make_client(fake_userprofile.target, timeout=WAIT)
    outcomes: list[Any] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            try:
                outcomes.append(client.get_user("johndoe"))
                outcomes.append(client.get_users(["johndoe"])["johndoe"])
            except userprofile.UserProfileError as error:
                outcomes.append(error)

    def more() -> None:
        before = len(outcomes)
        eventually(lambda: len(outcomes) > before + 20, "calls succeed")

    with ThreadPoolExecutor(8) as callers:
        futures = [callers.submit(call) for _ in range(8)]
        try:
            for _ in range(2):
                more()
                fake_userprofile.stop()
                time.sleep(1.2)  # how long a restart takes
                fake_userprofile.start()
            more()
        finally:
            done.set()
        for future in futures:
            future.result()
    assert [outcome for outcome in outcomes if outcome != User("johndoe")] == []


@pytest.mark.timing(only=True)
def test_a_service_that_is_not_there_is_not_hammered(make_client: MakeClient) -> None:
    attempts: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(21) as threads:
        port = listener.getsockname()[1]
        clients = [make_client(f"127.0.0.1:{port}", timeout=0.05, wait_for_ready=waits) for waits in (True, False)]
        done = threading.Event()

        def hang_up() -> None:
            while len(attempts) < 18:
                listener.accept()[0].close()
                attempts.append(time.monotonic())
            done.set()

        def call(client: Any) -> None:
            while not done.is_set():
                with raises(userprofile.UserProfileError):
                    client.get_user("johndoe")

        hanging_up = threads.submit(hang_up)
        for future in [threads.submit(call, client) for client in clients * 10]:
            future.result(timeout=60)
        hanging_up.result()
    # Nine attempts of each: 100 ms that grow by 1.6 to a second, each a fifth shorter at the least.
    assert attempts[-1] - attempts[0] > 3


class Gate(grpc.ServerInterceptor):
    """Fails a call in place of the service, with the code that `refuses` returns."""

    def __init__(self, refuses: Callable[[str, dict[str, Any]], grpc.StatusCode | None]) -> None:
        self._refuses = refuses

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        code = self._refuses(details.method, dict(details.invocation_metadata))
        if code is None:
            return continuation(details)

        def refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort(code, "The gate says no.")

        def refuse_stream(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            context.abort(code, "The gate says no.")

        if details.method.endswith("/Watch"):
            return grpc.unary_stream_rpc_method_handler(refuse_stream)
        return grpc.unary_unary_rpc_method_handler(refuse)


class Found:
    """Everybody exists. No other method is called."""

    def __getattr__(self, _other_method: str) -> None:
        return None

    def GetUser(self, request: pb.GetUserRequest, _context: grpc.ServicerContext) -> pb.GetUserResponse:
        return pb.GetUserResponse(user=user_pb.User(username=request.username))


@contextmanager
def guarded(refuses: Callable[[str, dict[str, Any]], grpc.StatusCode | None]) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[Gate(refuses)])
    pb_grpc.add_UserProfileServiceServicer_to_server(Found(), server)  # type: ignore[arg-type]
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=0).wait()


class TestGates:
    def test_that_want_a_token_on_every_path(self, make_client: MakeClient) -> None:
        def refuses(_method: str, metadata: dict[str, Any]) -> grpc.StatusCode | None:
            right = metadata.get("authorization") == f"Bearer {TOKEN}"
            return None if right else grpc.StatusCode.UNAUTHENTICATED

        with guarded(refuses) as target:
            assert make_client(target, token=TOKEN).get_user("johndoe") == User("johndoe")
            for token in (None, "wrong"):
                with raises(userprofile.UnauthenticatedError):
                    make_client(target, token=token).get_user("johndoe")
            done = run("userprofile", "get", "johndoe", USERPROFILE_TARGET=target, USERPROFILE_TOKEN="wrong")
            assert done.returncode == 1
            assert "UNAUTHENTICATED" in done.stderr
            assert "running" not in done.stderr

    @pytest.mark.parametrize("code", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE])
    def test_that_let_one_service_through(self, make_client: MakeClient, code: grpc.StatusCode) -> None:
        with guarded(lambda method, _: None if method.startswith("/userprofile.v1.") else code) as target:
            assert make_client(target).get_user("johndoe") == User("johndoe")


def test_the_command_line_says_soon_that_nobody_is_there(unused_target: str) -> None:
    done = run("userprofile", "get", "johndoe", "--timeout", "3600", USERPROFILE_TARGET=unused_target)
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: no userprofile server reachable at {unused_target}; is it running? (")


class HttpError:
    """What gRPC makes of an HTTP status that isn't 200."""

    def __init__(self, http: int, code: grpc.StatusCode) -> None:
        self._http = http
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return f"Received http2 header with status: {self._http}"

    def trailing_metadata(self) -> tuple[()]:
        return ()


@pytest.mark.parametrize(
    ("http", "code", "kind", "says"),
    [
        (302, grpc.StatusCode.UNKNOWN, userprofile.UserProfileError, "HTTP 302 (Found)"),
        (401, grpc.StatusCode.UNAUTHENTICATED, userprofile.UnauthenticatedError, "token is missing or wrong"),
        (403, grpc.StatusCode.PERMISSION_DENIED, userprofile.PermissionDeniedError, "HTTP 403 (Forbidden)"),
        (404, grpc.StatusCode.UNIMPLEMENTED, userprofile.UserProfileError, "no route to the service"),
        (502, grpc.StatusCode.UNAVAILABLE, userprofile.ServiceUnavailableError, "HTTP 502 (Bad Gateway)"),
        (503, grpc.StatusCode.UNAVAILABLE, userprofile.ServiceUnavailableError, "HTTP 503 (Service Unavailable)"),
        (599, grpc.StatusCode.UNKNOWN, userprofile.UserProfileError, "HTTP 599 in place"),
    ],
)
def test_an_http_status_is_an_error_in_words(
    http: int, code: grpc.StatusCode, kind: type[userprofile.UserProfileError], says: str
) -> None:
    error = from_rpc_error(HttpError(http, code), "an-id", target="localhost:1", timeout=1)
    assert type(error) is kind
    assert error.message.startswith(f"A gateway returned HTTP {http}")
    assert says in error.message
