"""Tokens and certificates that are renewed in their files while a client is busy: no call fails, and none is lost."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from tests.canary import raises
from tests.clients.twins import MakeClient
from tests.support import WAIT, eventually
from userprofile import TLS, User, UserProfileClient
from userprofile.changing_files import ChangingFiles
from userprofile.testing import FakeUserProfileServer
from userprofile.v1 import user_profile_pb2 as user_pb
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

# `make test-rotation` has more of both.
TIMES = int(os.environ.get("TIMES", "3"))
CALLERS = int(os.environ.get("CALLERS", "4"))
NAMES = [f"user{number}" for number in range(201)]


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("userprofile.changing_files.LOOK_SECONDS", 0.03)


def replace(path: Path, content: str | bytes) -> None:
    """Puts a file into the place of another, at once."""
    new = path.with_suffix(".new")
    new.write_bytes(content if isinstance(content, bytes) else content.encode())
    new.replace(path)


class Load:
    """Callers of one client: most ask for single users, some for several batches, which are in flight at once."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.calls = 0
        self.failures: list[BaseException] = []
        self._done = threading.Event()

    def _call(self, number: int) -> None:
        while not self._done.wait(0.02):  # the machine has other work too
            try:
                if number % 8 == 0:
                    assert len(self._client.get_users(NAMES)) == len(NAMES)
                else:
                    assert self._client.get_user("johndoe").username == "johndoe"
                self.calls += 1
            except BaseException as error:
                self.failures.append(error)

    def more(self) -> None:
        before = self.calls
        eventually(lambda: self.calls > before + CALLERS, lambda: f"calls succeed: {self.failures[:2]}")

    @contextmanager
    def running(self) -> Iterator["Load"]:
        with ThreadPoolExecutor(CALLERS) as pool:
            for number in range(CALLERS):
                pool.submit(self._call, number)
            try:
                self.more()
                yield self
                self.more()
            finally:
                self._done.set()
        assert self.failures == []


class SecureServer(pb_grpc.UserProfileServiceServicer):
    """Everybody exists. Takes clients with a certificate of its authority, and notes their names."""

    def __init__(self, authority: trustme.CA, port: int = 0) -> None:
        self.authority = authority
        self.callers: list[str] = []
        self._server = grpc.server(ThreadPoolExecutor(CALLERS))
        pb_grpc.add_UserProfileServiceServicer_to_server(self, self._server)
        self._shown = authority
        credentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._changed_configuration,  # type: ignore[arg-type]  # None if nothing has changed
            require_client_authentication=True,
        )
        self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self.target = f"127.0.0.1:{self.port}"
        self._server.start()

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        own = self.authority.issue_cert("127.0.0.1")
        pair = own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()
        return grpc.ssl_server_certificate_configuration([pair], self.authority.cert_pem.bytes())

    def _changed_configuration(self) -> grpc.ServerCertificateConfiguration | None:
        # Not a new one for each handshake: while gRPC replaces one, another handshake that begins may crash.
        if self._shown is self.authority:
            return None
        self._shown = self.authority
        return self._configuration()

    def _note(self, context: grpc.ServicerContext) -> None:
        context_of_tls: dict[str, Any] = context.auth_context()  # type: ignore[assignment]
        self.callers.append(context_of_tls["x509_subject_alternative_name"][0].decode())

    def GetUser(self, request: pb.GetUserRequest, context: grpc.ServicerContext) -> pb.GetUserResponse:
        self._note(context)
        return pb.GetUserResponse(user=user_pb.User(username=request.username))

    def BatchGetUsers(self, request: pb.BatchGetUsersRequest, context: grpc.ServicerContext) -> Any:
        self._note(context)
        results = (
            pb.BatchGetUsersResponse.Result(username=name, user=user_pb.User(username=name))
            for name in request.usernames
        )
        return pb.BatchGetUsersResponse(results=results)

    def called_only_by(self, name: str) -> None:
        """Waits until that is so."""
        eventually(lambda: set(self.callers[-3 * CALLERS :]) == {name}, lambda: f"calls by {self.callers[-1]}")

    def connections(self) -> int:
        tables = (Path(f"/proc/net/{kind}").read_text().splitlines()[1:] for kind in ("tcp", "tcp6"))
        rows = [line.split() for table in tables for line in table]
        return sum(row[1].endswith(f":{self.port:04X}") and row[3] == "01" for row in rows)

    def stop(self) -> None:
        self._server.stop(grace=0).wait()


class Files:
    """A client's certificates, in files."""

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        self._ca, self._certificate, self._key = folder / "ca.pem", folder / "client.pem", folder / "client.key"
        self.tls = TLS(ca=self._ca, certificate=self._certificate, key=self._key)
        self.trust(authority)
        self.become("client0", authority)

    def trust(self, authority: trustme.CA) -> None:
        replace(self._ca, authority.cert_pem.bytes())

    def become(self, name: str, authority: trustme.CA, between: Callable[[], None] = lambda: None) -> None:
        pair = authority.issue_cert(name)
        replace(self._certificate, pair.cert_chain_pems[0].bytes())
        between()
        replace(self._key, pair.private_key_pem.bytes())


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA) -> Iterator[SecureServer]:
    server = SecureServer(authority)
    yield server
    server.stop()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    return Files(tmp_path, authority)


class TestCertificates:
    @pytest.mark.parametrize("connections", [1, 3])
    def test_a_new_pair_is_used_and_the_old_connections_end(
        self, make_client: MakeClient, server: SecureServer, files: Files, connections: int
    ) -> None:
        client = make_client(server.target, tls=files.tls, timeout=WAIT, connections=connections)
        with Load(client).running() as load:
            for number in range(1, TIMES + 1):
                files.become(f"client{number}", server.authority, between=load.more)  # calls with half of the pair
                server.called_only_by(f"client{number}")
            eventually(lambda: server.connections() == connections, lambda: f"{server.connections()} connections")
        client.close()
        eventually(lambda: server.connections() == 0, "all connections are closed")

    def test_a_client_that_a_signal_handler_closes_while_it_looks_at_them_is_closed(
        self, server: SecureServer, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = UserProfileClient(server.target, tls=files.tls, timeout=WAIT)
        client.get_user("johndoe")
        files.become("client1", server.authority)
        renew = client._channel_config.renew_credentials

        def interrupted() -> bool:
            client.close()
            threading.Event().wait(0.1)  # until the files count as complete
            return renew()

        monkeypatch.setattr(client._channel_config, "renew_credentials", interrupted)
        ends: list[BaseException] = []

        def call() -> None:
            try:
                while True:
                    client.get_user("johndoe")
            except BaseException as end:
                ends.append(end)

        caller = threading.Thread(target=call, daemon=True)
        caller.start()
        caller.join(WAIT)
        assert [type(end) for end in ends] == [RuntimeError]
        assert "this client is closed" in str(ends[0])
        eventually(lambda: server.connections() == 0, "all connections are closed")

    def test_interceptors_see_the_calls_on_new_connections_and_keep_no_old_one(
        self, make_client: MakeClient, server: SecureServer, files: Files
    ) -> None:
        seen = 0

        def see() -> None:
            nonlocal seen
            seen += 1
            if seen % 3 == 0:
                raise PermissionError("not this one")

        class Interceptor(grpc.UnaryUnaryClientInterceptor):
            def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
                see()
                return continuation(client_call_details, request)

        class AsyncInterceptor(grpc.aio.UnaryUnaryClientInterceptor):
            async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
                see()
                return await continuation(client_call_details, request)

        kind = Interceptor if isinstance(make_client(), UserProfileClient) else AsyncInterceptor
        client = make_client(server.target, tls=files.tls, timeout=WAIT, interceptors=[kind()])

        def calls_are_by(name: str) -> bool:
            with suppress(PermissionError):
                client.get_user("johndoe")
            with suppress(PermissionError):
                client.get_users(NAMES)
            return server.callers[-1] == name

        calls_are_by("client0")
        files.become("client1", server.authority)
        eventually(lambda: calls_are_by("client1"), "the new certificate is used")
        before = seen
        eventually(lambda: calls_are_by("client1") and server.connections() == 1, "the old connection is closed")
        assert seen > before
        client.close()

    @pytest.mark.parametrize("first", ["client", "server"])
    def test_a_new_authority_is_trusted_whoever_has_it_first(
        self, make_client: MakeClient, server: SecureServer, files: Files, first: str
    ) -> None:
        client = make_client(server.target, tls=files.tls, timeout=WAIT, wait_for_ready=False, retries=0)
        with Load(client).running() as load:
            for number in range(1, TIMES + 1):
                new = trustme.CA()
                if first == "server":
                    server.authority = new
                    load.more()
                files.trust(new)
                files.become(f"client{number}", new)
                load.more()
                server.authority = new
                server.called_only_by(f"client{number}")
        client.close()

    def test_are_used_at_once_if_there_is_no_connection(
        self, make_client: MakeClient, server: SecureServer, files: Files
    ) -> None:
        client = make_client(server.target, tls=files.tls, timeout=WAIT)
        client.get_user("johndoe")
        server.stop()
        eventually(lambda: server.connections() == 0, "the connection is lost")
        new = trustme.CA()
        files.trust(new)
        files.become("client1", new)
        past = 1_000_000_000  # long ago, as for a client that is seldom used
        for path in (files.tls.ca, files.tls.certificate, files.tls.key):
            os.utime(str(path), (past, past))
        threading.Event().wait(0.05)
        other = SecureServer(new, server.port)
        try:
            assert client.get_user("johndoe") == User("johndoe")
            assert other.callers == ["client1"]
            client.close()
        finally:
            other.stop()

    @pytest.mark.parametrize("damage", ["empty", "missing", "cut off", "another's key"])
    def test_bad_files_change_nothing(
        self, make_client: MakeClient, server: SecureServer, files: Files, damage: str
    ) -> None:
        client = make_client(server.target, tls=files.tls, timeout=WAIT)
        key = Path(str(files.tls.key))
        good = key.read_bytes()
        with Load(client).running() as load:
            if damage == "missing":
                key.unlink()
            else:
                other = server.authority.issue_cert("other").private_key_pem.bytes()
                replace(key, {"empty": b"", "cut off": good[: len(good) // 2], "another's key": other}[damage])
            for _ in range(3):
                load.more()
            assert set(server.callers) == {"client0"}
            files.become("client1", server.authority)
            server.called_only_by("client1")
        client.close()


class TestTokenFile:
    def test_a_new_token_is_used_as_soon_as_it_is_there(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer, tmp_path: Path
    ) -> None:
        def sent() -> list[Any]:
            return [request.metadata["authorization"] for request in fake_userprofile.requests]

        fake_userprofile.add(User("johndoe"), *map(User, NAMES))
        path = tmp_path / "token"
        path.write_text("token0\n")
        client = make_client(fake_userprofile.target, token_file=path, timeout=WAIT)
        with Load(client).running() as load:
            for number in range(1, TIMES + 1):
                path.unlink()
                load.more()
                path.write_text("")
                load.more()
                path.write_text(f"\ufeff token{number} \r\n")
                new = f"Bearer token{number}"
                eventually(lambda new=new: set(sent()[-CALLERS:]) == {new}, f"{new} is used")  # type: ignore[misc]
        assert set(sent()) == {f"Bearer token{number}" for number in range(TIMES + 1)}

    def test_a_link_may_lead_elsewhere(
        self, make_client: MakeClient, fake_userprofile: FakeUserProfileServer, tmp_path: Path
    ) -> None:
        """As the links in a Kubernetes volume do."""
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "token").write_text(name)
        (tmp_path / "data").symlink_to("one")
        client = make_client(fake_userprofile.target, token_file=str(tmp_path / "data" / "token"))
        client.find_user("johndoe")
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").replace(tmp_path / "data")
        eventually(
            lambda: (
                client.find_user("johndoe") or fake_userprofile.requests[-1].metadata["authorization"] == "Bearer two"
            ),
            "the new token is used",
        )

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (None, "No such file"),
            ("", "is empty"),
            ("\ufeff \n", "is empty"),
            ("a secret\n", "has characters"),
            ("a-secret\nanother-secret\n", "more than one line"),
        ],
    )
    def test_without_a_token_is_an_error(
        self, make_client: MakeClient, tmp_path: Path, content: str | None, says: str
    ) -> None:
        path = tmp_path / "token"
        if content is not None:
            path.write_text(content)
        with raises(ValueError, match=says) as caught:
            make_client(token_file=path)
        assert str(path) in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_and_a_token_are_one_too_many(self, make_client: MakeClient, tmp_path: Path) -> None:
        with raises(ValueError, match="not both"):
            make_client(token="secret", token_file=tmp_path / "token")

    def test_goes_without_tls_to_this_machine_alone(self, make_client: MakeClient, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("secret")
        with raises(ValueError, match="in plaintext"):
            make_client("users.example:50051", token_file=tmp_path / "token")


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    files = ChangingFiles([path], path.read_text)
    monkeypatch.setattr("userprofile.changing_files.LOOK_SECONDS", 3600)
    path.write_text("ne")
    assert not files.update()
    assert files.current == "old"
    path.write_text("new")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert files.update()
    assert files.current == "new"
    assert not files.update()


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    files = ChangingFiles([tmp_path / "pipe"], lambda: "read")
    os.utime(tmp_path / "pipe", (1_000_000_000, 1_000_000_000))
    assert not files.update()
