"""All clients through a real nginx: tokens, routes, TLS, and connections that it ends: `make test-nginx`."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

import userprofile
from tests.canary import raises
from tests.client_conformance import identities
from tests.clients.twins import MakeClient, making
from tests.external.nginx import nginx
from tests.fork_server import BIN
from tests.support import eventually, run
from userprofile import TLS, User
from userprofile.testing import FakeUserProfileServer

pytestmark = pytest.mark.timeout(600)

CLIENTS = Path(__file__).parent.parent.parent / "clients"
TOKEN = "abc"
GUARDED = 'location / {{ if ($http_authorization != "Bearer abc") {{ return 401; }} grpc_pass grpc://{}; }}'
ROUTED = "location /userprofile.v1. {{ grpc_pass grpc://{}; }} location / {{ return {}; }}"
OPEN = "location / {{ grpc_pass grpc://{}; }}"


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[MakeClient]:
    with making(request.param) as make:
        yield make


@pytest.fixture
def service() -> Iterator[FakeUserProfileServer]:
    with FakeUserProfileServer([User("johndoe", "j@example.com")]) as server:
        yield server


@contextmanager
def calling(make_client: MakeClient, target: str, **options: Any) -> Iterator[Callable[[int], None]]:
    """Makes calls from several threads until the block ends; none may fail. Yields what waits for some more calls."""
    client = make_client(target, timeout=30, **options)
    outcomes: list[Any] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            try:
                outcomes.append(client.get_user("johndoe").username)
            except Exception as error:
                outcomes.append(error)

    def more(calls: int) -> None:
        wanted = len(outcomes) + calls
        eventually(lambda: len(outcomes) >= wanted, "calls return", timeout=60)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield more
        more(100)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert [outcome for outcome in outcomes if outcome != "johndoe"] == []


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Each language's `get`, which takes the target and the token from the environment."""
    folder = tmp_path_factory.mktemp("commands")

    def build(language: str, *command: str) -> None:
        done = subprocess.run(command, cwd=CLIENTS / language, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]

    build("go", "go", "build", "-o", str(folder / "go-client"), "./examples/get")
    build("java", "mvn", "-B", "-q", "test-compile")
    target = CLIENTS / "java/target"
    java = f"{target / 'test-classes'}:{target / 'classes'}:{(target / 'test-classpath').read_text().strip()}"
    return {
        "python": [str(BIN / "userprofile")],
        "go": [str(folder / "go-client")],
        "node": ["node", str(CLIENTS / "node/build/examples/greet.js")],  # make has built it
        "java": ["java", "-cp", java, "FirstCalls"],
    }


def get(command: list[str], target: str, token: str | None = None) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"USERPROFILE_TARGET": target} | ({} if token is None else {"USERPROFILE_TOKEN": token})
    return subprocess.run(
        [*command, "get", "johndoe"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("language", ["python", "go", "node", "java"])
def test_no_language_feels_a_restart_of_the_service(
    language: str, commands: dict[str, list[str]], service: FakeUserProfileServer, tmp_path: Path
) -> None:
    with nginx(tmp_path, OPEN.format(service.target)) as gateway, ThreadPoolExecutor(1) as threads:
        for _ in range(3):
            service.stop()
            refused = gateway.refused()
            call = threads.submit(get, commands[language], *gateway.targets)
            eventually(partial(gateway.refuses_more_than, refused), "the call finds no service", timeout=60)
            service.start()
            done = call.result()
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("language", ["python", "go", "node", "java"])
def test_every_language_gets_through_or_says_why_not(
    language: str, commands: dict[str, list[str]], service: FakeUserProfileServer, tmp_path: Path
) -> None:
    with (
        socket_that_refuses() as nobody,
        nginx(
            tmp_path,
            GUARDED.format(service.target),
            ROUTED.format(service.target, 403),
            ROUTED.format(service.target, 503),
            "location / { return 404; }",
            OPEN.format(nobody),
        ) as gateway,
    ):
        guarded, *routed, without_route, without_service = gateway.targets
        command = commands[language]
        assert "j@example.com" in get(command, guarded, TOKEN).stdout
        for token in (None, "wrong"):
            done = get(command, guarded, token)
            assert done.returncode == 1
            assert "UNAUTHENTICATED" in done.stderr.upper()
            assert "HTTP 401" in done.stderr
        for target in routed:
            assert "j@example.com" in get(command, target).stdout
        done = get(command, without_route)
        assert done.returncode == 1
        assert "HTTP 404" in done.stderr
        done = get(command, without_service)
        assert done.returncode in (1, 4)
        # grpc-java may be between two attempts when its time is over, and then has only the codes of the others.
        assert ("[UNAVAILABLE" if "deadline" in done.stderr and language == "java" else "HTTP 502") in done.stderr
        assert "running" not in done.stderr


@contextmanager
def socket_that_refuses() -> Iterator[str]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unused.getsockname()[1]}"


class TestPython:
    def test_a_token_on_every_path(
        self, make_client: MakeClient, service: FakeUserProfileServer, tmp_path: Path
    ) -> None:
        with nginx(tmp_path, GUARDED.format(service.target)) as gateway:
            [target] = gateway.targets
            client = make_client(target, token=TOKEN)
            assert client.get_user("johndoe").email == "j@example.com"
            assert client.get_users(["johndoe"])
            assert client.check_health()
            for token in (None, "wrong"):
                refused = make_client(target, token=token)
                for call in (refused.get_user, lambda name, refused=refused: refused.get_users([name])):
                    with raises(userprofile.UnauthenticatedError, match="HTTP 401"):
                        call("johndoe")
                with raises(userprofile.UnauthenticatedError, match="HTTP 401"):
                    refused.check_health()

    @pytest.mark.parametrize("status", [403, 503])
    def test_a_route_to_one_service_alone(
        self, make_client: MakeClient, service: FakeUserProfileServer, tmp_path: Path, status: int
    ) -> None:
        with nginx(tmp_path, ROUTED.format(service.target, status)) as gateway:
            client = make_client(*gateway.targets)
            assert client.get_user("johndoe").email == "j@example.com"
            with raises(userprofile.UserProfileError, match=f"HTTP {status}"):
                client.check_health()
            done = run("userprofile", "health", USERPROFILE_TARGET=gateway.targets[0])
            assert f"HTTP {status}" in done.stderr
            assert "running" not in done.stderr

    @pytest.mark.parametrize("mutual", [False, True])
    def test_tls(self, make_client: MakeClient, service: FakeUserProfileServer, tmp_path: Path, mutual: bool) -> None:
        authority = trustme.CA()
        ours, its = authority.issue_cert("a-client"), authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        for name, certificate in (("client", ours), ("server", its)):
            certificate.private_key_pem.write_to_path(tmp_path / f"{name}.key")
            certificate.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
        tls = f"ssl_certificate {tmp_path}/server.pem; ssl_certificate_key {tmp_path}/server.key;"
        if mutual:
            tls += f"ssl_client_certificate {tmp_path}/ca.pem; ssl_verify_client on;"
        with nginx(tmp_path, tls + GUARDED.format(service.target)) as gateway:
            [target] = gateway.targets
            identity: dict[str, Any] = (
                {"certificate": tmp_path / "client.pem", "key": tmp_path / "client.key"} if mutual else {}
            )
            options = TLS(ca=tmp_path / "ca.pem", **identity)
            client = make_client(target, tls=options, token=TOKEN)
            assert client.get_user("johndoe").email == "j@example.com"
            with raises(userprofile.UnauthenticatedError):
                make_client(target, tls=options, token="wrong").get_user("johndoe")
            if mutual:
                with raises(userprofile.UserProfileError, match="HTTP 400"):
                    make_client(target, tls=TLS(ca=tmp_path / "ca.pem"), token=TOKEN).get_user("johndoe")

    def test_in_front_of_a_server_that_knows_its_callers(self, make_client: MakeClient, tmp_path: Path) -> None:
        """nginx as a caller of its own, which hands on its callers' tokens, and nginx that only passes bytes on."""
        with identities.serve(tmp_path):
            tls, mtls = ((tmp_path / name).read_text().replace("localhost", "127.0.0.1") for name in ("tls", "mtls"))
            trust = f"grpc_ssl_trusted_certificate {tmp_path}/ca.pem; grpc_ssl_verify on; grpc_ssl_name localhost;"
            own = f"grpc_ssl_certificate {tmp_path}/caller.pem; grpc_ssl_certificate_key {tmp_path}/caller.key;"
            servers = (
                f"location / {{ {trust} grpc_pass grpcs://{tls}; }}",
                f"location / {{ {trust} {own} grpc_pass grpcs://{mtls}; }}",
            )
            with nginx(tmp_path, *servers, streams=[mtls]) as gateway:
                to_tls, to_mtls, through = gateway.targets
                token = (tmp_path / "token").read_text()
                for target in (to_tls, to_mtls):
                    assert make_client(target, token=token).get_user("johndoe").email == "johndoe@example.com"
                    with raises(userprofile.UnauthenticatedError):
                        make_client(target, token="wrong").get_user("johndoe")
                with raises(userprofile.UnauthenticatedError):
                    make_client(to_tls).get_user("johndoe")
                assert make_client(to_mtls).get_user("johndoe") == User("johndoe", full_name="John Doe")
                options = TLS(
                    ca=tmp_path / "ca.pem",
                    certificate=tmp_path / "caller.pem",
                    key=tmp_path / "caller.key",
                    server_name="localhost",
                )
                assert make_client(through, tls=options).get_user("johndoe") == User("johndoe", full_name="John Doe")

    def test_connections_that_end_after_a_few_calls(
        self, make_client: MakeClient, service: FakeUserProfileServer, tmp_path: Path
    ) -> None:
        with (
            nginx(tmp_path, "keepalive_requests 20;" + OPEN.format(service.target)) as gateway,
            calling(make_client, *gateway.targets) as more,
        ):
            more(1000)

    def test_a_service_that_starts_again(
        self, make_client: MakeClient, service: FakeUserProfileServer, tmp_path: Path
    ) -> None:
        with nginx(tmp_path, OPEN.format(service.target)) as gateway, calling(make_client, *gateway.targets) as more:
            for _ in range(2):
                more(50)
                service.stop()
                time.sleep(1)  # how long a restart takes
                service.start()
            more(50)

    def test_a_service_that_is_gone(
        self, make_client: MakeClient, service: FakeUserProfileServer, tmp_path: Path
    ) -> None:
        with nginx(tmp_path, OPEN.format(service.target)) as gateway:
            service.stop()
            [target] = gateway.targets
            with raises(userprofile.ServiceUnavailableError, match=r"HTTP 502 \(Bad Gateway\)") as caught:
                make_client(target, timeout=30).get_user("johndoe")
            assert caught.value.reason == "SERVICE_UNREACHABLE"
            done = run("userprofile", "get", "johndoe", USERPROFILE_TARGET=target)
            assert done.returncode == 4
            assert "HTTP 502 (Bad Gateway)" in done.stderr
            assert "running" not in done.stderr

    def test_a_reload(self, make_client: MakeClient, service: FakeUserProfileServer, tmp_path: Path) -> None:
        with nginx(tmp_path, OPEN.format(service.target)) as gateway, calling(make_client, *gateway.targets) as more:
            for _ in range(3):
                more(50)
                gateway.reload()

    def test_nginx_that_starts_again(
        self, make_client: MakeClient, service: FakeUserProfileServer, tmp_path: Path
    ) -> None:
        with socket_that_refuses() as unused:
            port = int(unused.rpartition(":")[2])
        with ExitStack() as calls:
            more = calls.enter_context(calling(make_client, unused))
            for _ in range(2):  # not there at first, either
                with nginx(tmp_path, OPEN.format(service.target), ports=[port]):
                    more(50)
            with nginx(tmp_path, OPEN.format(service.target), ports=[port]):
                more(50)
                calls.close()

    def test_a_service_that_is_slower_than_nginx_waits(
        self, make_client: MakeClient, service: FakeUserProfileServer, tmp_path: Path
    ) -> None:
        with nginx(tmp_path, "grpc_read_timeout 200ms;" + OPEN.format(service.target)) as gateway:
            client = make_client(*gateway.targets, timeout=30)
            service.delay = 60
            with raises(userprofile.ServiceUnavailableError, match=r"HTTP 504 \(Gateway Timeout\)"):
                client.get_user("johndoe")
            service.delay = 0
            with calling(make_client, *gateway.targets):
                pass
