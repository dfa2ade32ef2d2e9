"""How both Python clients reach servers: several of them, lost ones, by TLS, with tokens."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

import userprofile
from tests.canary import raises
from tests.clients.twins import MakeClient, making
from tests.support import eventually, run, settings_for
from userprofile import TLS, User
from userprofile.channel import ChannelConfig
from userprofile.diagnosis import problems_by_address
from userprofile.testing import FakeUserProfileServer
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile_server.server import UserProfileServer

TOKEN = "a-token-for-the-tests"


class TestRetries:
    @pytest.mark.slow
    def test_are_made_up_to_four_times_where_the_service_is_unavailable(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        fake_userprofile.fail("STORE_UNAVAILABLE")
        with raises(userprofile.ServiceUnavailableError):
            make_client(fake_userprofile.target).get_user("johndoe")
        assert len(fake_userprofile.requests) == 5
        assert len({request.metadata["x-request-id"] for request in fake_userprofile.requests}) == 1

    def test_are_made_as_often_as_configured(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        fake_userprofile.fail("STORE_UNAVAILABLE")
        for retries in (0, 1):
            fake_userprofile.requests.clear()
            with raises(userprofile.ServiceUnavailableError):
                make_client(fake_userprofile.target, retries=retries).get_user("johndoe")
            assert len(fake_userprofile.requests) == 1 + retries

    @pytest.mark.parametrize("reason", ["STORE_TIMEOUT", "CORRUPT_DOCUMENT", "INTERNAL"])
    def test_are_not_made_where_they_would_not_help(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer, reason: str
    ) -> None:
        fake_userprofile.fail(reason)
        with raises(userprofile.UserProfileError):
            make_client(fake_userprofile.target).get_user("johndoe")
        assert len(fake_userprofile.requests) == 1

    @pytest.mark.slow
    def test_stop_while_most_calls_fail(self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer) -> None:
        fake_userprofile.fail("STORE_UNAVAILABLE")
        client = make_client(fake_userprofile.target, timeout=30)

        def call(_number: int) -> None:
            with raises(userprofile.ServiceUnavailableError):
                client.get_user("johndoe")

        with ThreadPoolExecutor(50) as callers:
            list(callers.map(call, range(300)))
        assert len(fake_userprofile.requests) < 900  # not 1500

    def test_a_call_succeeds_once_one_of_them_does(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        fake_userprofile.add(User("johndoe"))
        fake_userprofile.fail("STORE_UNAVAILABLE")
        client = make_client(fake_userprofile.target)
        with ThreadPoolExecutor(1) as caller:
            call = caller.submit(client.get_user, "johndoe")
            eventually(lambda: fake_userprofile.requests, "the first attempt has arrived")
            fake_userprofile.recover()
            assert call.result(timeout=20) == User("johndoe")

    @pytest.mark.parametrize("retries", [-1, 5])
    def test_are_as_many_as_grpc_makes(self, make_client: MakeClient, retries: int) -> None:
        with raises(ValueError, match="0 to 4"):
            make_client(retries=retries)


class TestSeveralServers:
    @pytest.fixture
    def servers(self) -> Iterator[list[FakeUserProfileServer]]:
        servers = [FakeUserProfileServer([User("johndoe")]) for _ in range(3)]
        for server in servers:
            server.start()
        yield servers
        for server in servers:
            server.stop()

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {}

    @pytest.fixture
    def client(self, make_client: MakeClient, servers: list[FakeUserProfileServer], options: dict[str, Any]) -> Any:
        client = make_client("ipv4:" + ",".join(server.target for server in servers), **options)

        def all_are_called() -> bool:
            client.get_user("johndoe")
            return all(server.requests for server in servers)

        eventually(all_are_called, "connected to all of them")
        for server in servers:
            server.requests.clear()
        return client

    def test_are_called_in_turn(self, client: Any, servers: list[FakeUserProfileServer]) -> None:
        for _ in range(30):
            client.get_user("johndoe")
        assert [len(server.requests) for server in servers] == [10, 10, 10]

    def test_one_that_is_lost_costs_no_call(self, client: Any, servers: list[FakeUserProfileServer]) -> None:
        for number in range(60):
            if number == 20:
                servers[0].stop()
            assert client.get_user("johndoe") == User("johndoe")

    @pytest.mark.slow
    def test_one_that_has_lost_its_store_is_made_up_for(
        self, client: Any, servers: list[FakeUserProfileServer]
    ) -> None:
        servers[0].set_serving(False)
        servers[0].fail("STORE_UNAVAILABLE")
        for _ in range(30):  # a retry goes to the next in turn
            assert client.get_user("johndoe") == User("johndoe")
        assert servers[0].requests

        def call(_number: int) -> bool:
            try:
                return bool(client.get_user("johndoe", timeout=60))
            except userprofile.ServiceUnavailableError:
                return False

        with ThreadPoolExecutor(50) as callers:
            found = sum(callers.map(call, range(600)))
        # Among many calls a retry may meet the same server, but five times in one of 243: retries haven't ended.
        assert found > 588

    @pytest.mark.parametrize("options", [{"health_checking": True}])
    def test_one_that_says_it_is_not_serving_is_left_alone(
        self, client: Any, servers: list[FakeUserProfileServer]
    ) -> None:
        servers[0].set_serving(False)

        def is_left_alone() -> bool:
            servers[0].requests.clear()
            for _ in range(9):
                client.get_user("johndoe")
            return not servers[0].requests

        eventually(is_left_alone, "only the others are called")
        servers[0].set_serving(True)
        eventually(lambda: client.get_user("johndoe") and servers[0].requests, "it is called again")

    @pytest.mark.parametrize("options", [{"health_checking": True, "retries": 0}])
    def test_where_none_is_serving_the_client_says_so_itself(
        self, client: Any, servers: list[FakeUserProfileServer]
    ) -> None:
        for server in servers:
            server.set_serving(False)

        def is_unreachable() -> bool:
            try:
                client.get_user("johndoe", wait_for_ready=False)
            except userprofile.ServiceUnavailableError as error:
                return error.reason == "SERVICE_UNREACHABLE"
            return False

        eventually(is_unreachable, "no server is serving")
        with raises(userprofile.ServiceUnavailableError, match="within 0.1 s"):
            client.get_user("johndoe", timeout=0.1)


def test_a_client_connects_again_by_itself(make_client: MakeClient, user_store_url: str) -> None:
    with UserProfileServer(settings_for(user_store_url)) as address:
        client = make_client(address, retries=0)
        assert client.get_user("johndoe")
    with raises(userprofile.ServiceUnavailableError):
        client.get_user("johndoe", wait_for_ready=False)
    with UserProfileServer(settings_for(user_store_url, listen=address)):
        assert client.get_user("johndoe", timeout=20).full_name == "John Doe"


class SecureServer:
    """What the real server can't do yet: TLS, and looking at tokens. It knows johndoe alone."""

    def __init__(self, credentials: grpc.ServerCredentials) -> None:
        self.authorizations: list[Any] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(
            self._get_user,
            request_deserializer=pb.GetUserRequest.FromString,
            response_serializer=pb.GetUserResponse.SerializeToString,
        )
        self._server.add_registered_method_handlers("userprofile.v1.UserProfileService", {"GetUser": handler})
        self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.target = f"127.0.0.1:{self.port}"
        self._server.start()

    def _get_user(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        authorization = dict(context.invocation_metadata()).get("authorization")
        self.authorizations.append(authorization)
        if request.username == "needs a token" and authorization != f"Bearer {TOKEN}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Who are you?")
        if request.username == "not for you":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "No.")
        return pb.GetUserResponse(user=user_pb.User(username=request.username))

    def stop(self) -> None:
        self._server.stop(grace=0).wait()


class TestTLS:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def ca(self, authority: trustme.CA, tmp_path: Path) -> Path:
        path = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(path)
        return path

    @contextmanager
    def serving(
        self, authority: trustme.CA, name: str = "127.0.0.1", *, mutual: bool = False
    ) -> Iterator[SecureServer]:
        certificate = authority.issue_cert(name)
        pair = (certificate.private_key_pem.bytes(), b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        roots = authority.cert_pem.bytes() if mutual else None
        server = SecureServer(grpc.ssl_server_credentials([pair], roots, require_client_auth=mutual))
        yield server
        server.stop()

    def test_with_an_authority_of_ones_own(self, make_client: MakeClient, authority: trustme.CA, ca: Path) -> None:
        with self.serving(authority) as server:
            client = make_client(server.target, tls=TLS(ca=ca))
            assert client.get_user("johndoe") == User("johndoe")
            client.close()

    def test_a_server_of_another_authority_is_not_trusted(
        self, make_client: MakeClient, authority: trustme.CA, ca: Path
    ) -> None:
        with self.serving(trustme.CA()) as server:
            for tls in (TLS(ca=ca), TLS()):
                with raises(userprofile.ServiceUnavailableError, match="(?i)certificate") as caught:
                    make_client(server.target, tls=tls, retries=0).get_user("johndoe", wait_for_ready=False)
                assert caught.value.reason == "SERVICE_UNREACHABLE"

    def test_a_server_with_another_name_is_not_trusted_unless_the_name_is_said(
        self, make_client: MakeClient, authority: trustme.CA, ca: Path
    ) -> None:
        with self.serving(authority, "users.example") as server:
            with raises(userprofile.ServiceUnavailableError):
                make_client(server.target, tls=TLS(ca=ca), retries=0).get_user("johndoe", wait_for_ready=False)
            client = make_client(server.target, tls=TLS(ca=ca, server_name="users.example"))
            assert client.get_user("johndoe") == User("johndoe")
            client.close()

    def test_on_this_machine_is_not_sent_to_a_proxy(
        self, make_client: MakeClient, authority: trustme.CA, ca: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
        monkeypatch.setenv("no_proxy", "")
        with self.serving(authority) as server:
            client = make_client(server.target, tls=TLS(ca=ca))
            assert client.get_user("johndoe") == User("johndoe")
            client.close()

    def test_a_server_that_asks_who_calls_is_shown_the_clients_certificate(
        self, make_client: MakeClient, authority: trustme.CA, ca: Path, tmp_path: Path
    ) -> None:
        own = authority.issue_cert("a-client")
        own.private_key_pem.write_to_path(tmp_path / "key.pem")
        own.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
        with self.serving(authority, mutual=True) as server:
            with raises(userprofile.ServiceUnavailableError):
                make_client(server.target, tls=TLS(ca=ca), retries=0).get_user("johndoe", wait_for_ready=False)
            tls = TLS(ca=str(ca), certificate=tmp_path / "certificate.pem", key=tmp_path / "key.pem")
            client = make_client(server.target, tls=tls)
            assert client.get_user("johndoe") == User("johndoe")
            client.close()

    def test_half_of_a_client_certificate_or_a_missing_file_is_an_error(
        self, make_client: MakeClient, tmp_path: Path
    ) -> None:
        with raises(ValueError, match="needs its key"):
            make_client(tls=TLS(certificate=tmp_path / "certificate.pem"))
        with raises(FileNotFoundError):
            make_client(tls=TLS(ca=tmp_path / "missing.pem"))

    def test_each_address_is_known_by_the_name_in_the_target(self, authority: trustme.CA, ca: Path) -> None:
        with self.serving(authority, "localhost") as server:
            target = server.target.replace("127.0.0.1", "localhost")
            problems = list(problems_by_address(ChannelConfig(target, tls=TLS(ca=ca), retries=0, channel_options=())))
            assert len(problems) == 2, problems
            assert "doesn't have this method" in problems[0]  # it was called, so its certificate was accepted

    @pytest.mark.parametrize("command", ["get johndoe", "health"])
    def test_the_problem_of_the_address_where_a_server_listens_is_reported_too(
        self, authority: trustme.CA, ca: Path, command: str
    ) -> None:
        with self.serving(authority, "users.example") as server:
            target = server.target.replace("127.0.0.1", "localhost")
            for options in ([], ["--tls-ca", ca]):
                problems = list(
                    problems_by_address(ChannelConfig(target, tls=TLS(ca=ca), retries=0, channel_options=()))
                )
                assert len(problems) == 2, problems
                assert any(re.search("(?i)handshake|verification", problem) for problem in problems), problems
                done = run("userprofile", *command.split(), "--target", target, *options)
                assert done.returncode == 4
                assert "is it running?" not in done.stderr
                assert "127.0.0.1" in done.stderr

    @pytest.mark.parametrize("name", ["", "a b", "users.example:443", "https://users.example", "\x1b[1m"])
    def test_a_server_name_that_is_none_is_refused(self, make_client: MakeClient, name: str) -> None:
        with raises(ValueError, match="the TLS server name") as caught:
            make_client(tls=TLS(server_name=name))
        assert str(caught.value).isprintable()

    def test_a_token_goes_with_every_call(self, make_client: MakeClient, authority: trustme.CA, ca: Path) -> None:
        with self.serving(authority) as server:
            fixed = make_client(server.target, tls=TLS(ca=ca), token=TOKEN)
            assert fixed.get_user("needs a token")
            tokens = iter(["first", TOKEN])
            changing = make_client(server.target, tls=TLS(ca=ca), token=lambda: next(tokens))
            with raises(userprofile.UnauthenticatedError, match="Who are you"):
                changing.get_user("needs a token")
            assert changing.get_user("needs a token")
            with raises(userprofile.PermissionDeniedError):
                fixed.get_user("not for you")
            assert server.authorizations[:3] == [f"Bearer {TOKEN}", "Bearer first", f"Bearer {TOKEN}"]
            for client in (fixed, changing):
                client.close()


class TestTokens:
    def test_go_without_tls_to_this_machine_alone(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer
    ) -> None:
        client = make_client(fake_userprofile.target, token=TOKEN)
        client.find_user("johndoe")
        client.get_users(["johndoe"])
        assert {request.metadata["authorization"] for request in fake_userprofile.requests} == {f"Bearer {TOKEN}"}

    @pytest.mark.parametrize("target", ["users.example:50051", "10.0.0.1:50051", "dns:///users.example:443"])
    def test_are_refused_to_other_machines_unless_allowed(self, make_client: MakeClient, target: str) -> None:
        with raises(ValueError, match="in plaintext") as caught:
            make_client(target, token=TOKEN)
        assert TOKEN not in str(caught.value)
        make_client(target, token=TOKEN, allow_plaintext_token=True)
        make_client(target, token=TOKEN, tls=TLS())

    @pytest.mark.parametrize("token", ["", "a b", "line\n", "ü"])
    def test_that_cannot_be_sent_are_refused_without_being_shown(self, make_client: MakeClient, token: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: make_client(token=token),
            lambda: make_client(token=lambda: token).get_user("johndoe"),
        ]
        for call in calls:
            with raises(ValueError, match="the token is empty, or has characters") as caught:
                call()
            assert not token or token not in str(caught.value)

    def test_are_not_shown_by_the_client(self, make_client: MakeClient) -> None:
        assert TOKEN not in repr(make_client(token=TOKEN))


class Serving:
    """The context of a call that is being served, whose caller waits for so many seconds more."""

    def __init__(self, time_remaining: Callable[[], float]) -> None:
        self.time_remaining = time_remaining

    def invocation_metadata(self) -> tuple[()]:
        return ()


class TestAsyncTokens:
    """Of a token function that has to be awaited: its time is the call's."""

    @pytest.fixture
    def make_client(self) -> Iterator[MakeClient]:
        with making("async") as make:
            yield make

    @pytest.mark.parametrize("limit", ["client", "call", "caller's own caller"])
    def test_that_do_not_come_end_the_call_with_its_time(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer, limit: str
    ) -> None:
        cancelled: list[bool] = []

        async def token() -> str:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
            return TOKEN

        client = make_client(fake_userprofile.target, token=token, timeout=0.05 if limit == "client" else 3600)
        limits: dict[str, dict[str, Any]] = {
            "client": {},
            "call": {"timeout": 0.05},
            "caller's own caller": {"context": Serving(lambda: 0.05)},
        }
        options = limits[limit]
        calls: list[Callable[[], object]] = [
            lambda: client.get_user("johndoe", **options),
            lambda: client.get_users(["johndoe"], **options),
            lambda: client.check_health(**options),
        ]
        for call in calls:
            with raises(userprofile.DeadlineExceededError, match="token function did not return"):
                call()
        ((_, error),) = client.iter_users(["johndoe"], **options)
        assert type(error) is userprofile.DeadlineExceededError
        assert (cancelled, fake_userprofile.requests) == ([True] * 4, [])

    def test_take_their_time_from_the_calls(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passed = 0

        async def token() -> str:
            nonlocal passed
            loop = asyncio.get_running_loop()
            now = loop.time
            monkeypatch.setattr(loop, "time", lambda: now() + 100)  # as if it had taken so long
            passed += 100
            await asyncio.sleep(0)
            return TOKEN

        client = make_client(fake_userprofile.target, token=token, timeout=1000)
        client.find_user("johndoe")
        client.find_user("johndoe", timeout=600)
        client.get_users(["johndoe"], context=Serving(lambda: 600 - passed))
        left = [request.time_remaining for request in fake_userprofile.requests]
        assert left == [pytest.approx(seconds, abs=20) for seconds in (900, 500, 300)]

    def test_may_fail_in_their_own_way(self, make_client: MakeClient) -> None:
        async def token() -> str:
            raise PermissionError("no such account")

        with raises(PermissionError, match="no such account"):
            make_client(token=token).get_user("johndoe")

    def test_may_run_out_of_time_themselves(self, make_client: MakeClient) -> None:
        async def token() -> str:
            raise TimeoutError("the identity provider is slow")

        with raises(TimeoutError, match="the identity provider is slow"):
            make_client(token=token).get_user("johndoe")


@pytest.mark.parametrize(
    ("target", "private"),
    [
        ("localhost:50051", True),
        ("LOCALHOST:50051", True),
        ("127.0.0.1:50051", True),
        ("127.1.2.3:1", True),
        ("[::1]:50051", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:2", True),
        ("ipv6:[::1]:1", True),
        ("dns:localhost:50051", True),
        ("dns:///localhost:50051", True),
        ("dns://8.8.8.8:53/localhost:1", True),
        ("unix:socket", True),
        ("unix:///run/socket", True),
        ("unix-abstract:name", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("ipv6:[::2]:1", False),
        ("10.0.0.1:50051", False),
        ("[fe80::1]:50051", False),
        ("127.0.0.1.example:50051", False),
        ("localhost.example:50051", False),
        ("dns:///users.example:1", False),
        ("xds:///localhost", False),
        ("0.0.0.0:50051", False),
    ],
)
def test_which_targets_are_this_machine(target: str, private: bool) -> None:
    assert ChannelConfig(target, tls=None, retries=0, channel_options=()).is_private is private


def test_what_never_leaves_this_machine_is_not_sent_to_a_proxy(
    make_client: MakeClient, fake_userprofile: FakeUserProfileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    fake_userprofile.add(User("johndoe"))
    assert make_client(fake_userprofile.target, token=TOKEN).get_user("johndoe")


def test_channel_options_win_over_the_clients_own(make_client: MakeClient, address: str) -> None:
    client = make_client(address, channel_options=[("grpc.max_receive_message_length", 10)])
    with raises(userprofile.UserProfileError, match="larger than max") as caught:
        client.get_user("johndoe")
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", ["channel_options", "metadata"])
@pytest.mark.parametrize("given", [{"x-a": "b"}, {}, None, 5, "x-a", ["x-a"], [("x-a", "b", "c")], [None]])
def test_what_has_to_be_pairs(make_client: MakeClient, name: str, given: Any) -> None:
    with raises(TypeError, match=re.escape(f"{name} must be a sequence of (name, value) pairs")):
        make_client(**{name: given})


def test_iterators_are_read_once(make_client: MakeClient, fake_userprofile: FakeUserProfileServer) -> None:
    fake_userprofile.add(User("johndoe"))
    client = make_client(
        fake_userprofile.target,
        metadata=iter([("x-tenant", "acme")]),
        channel_options=iter([("grpc.primary_user_agent", "mine")]),
    )
    client.get_user("johndoe", metadata=iter([("x-of-call", "yes")]))
    client.get_users(iter(["johndoe"]), fields=iter(["email"]))
    client.get_users((f"user{number}" for number in range(201)), metadata=iter([("x-of-call", "yes")]))
    for request in fake_userprofile.requests:
        assert request.metadata["x-tenant"] == "acme"
        assert str(request.metadata["user-agent"]).startswith("mine ")
    assert [request.metadata.get("x-of-call") for request in fake_userprofile.requests] == ["yes", None, *["yes"] * 3]


@pytest.mark.parametrize("target", [None, 50051, b"localhost:50051", Path("socket"), ["localhost:50051"]])
def test_a_target_is_a_string(make_client: MakeClient, target: Any) -> None:
    with raises(TypeError, match=f"a target is a string, not {type(target).__name__}"):
        make_client(target)


def test_a_target_has_to_be_something(make_client: MakeClient) -> None:
    with raises(ValueError, match="must not be empty"):
        make_client("")


def test_several_threads_share_a_client(make_client: MakeClient, address: str) -> None:
    client = make_client(address)
    failures: list[BaseException] = []

    def call() -> None:
        try:
            for _ in range(50):
                assert client.get_user("johndoe").full_name == "John Doe"
                assert client.get_users(["johndoe", "nobody"]).keys() == {"johndoe"}
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
