"""Listeners with TLS and mutual TLS, and certificates that are replaced while the server runs."""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from tests.authority import DAY, Authority, Issued
from tests.canary import raises
from tests.issuer import SigningKey, key_set
from tests.support import WAIT, GetUser, ServerProcess, eventually, health_stub, run, settings_for
from userprofile_server.errors import SecurityError
from userprofile_server.listen import ListenAddress
from userprofile_server.rpc import credentials
from userprofile_server.security.tokens import new_token
from userprofile_server.server import UserProfileServer

ANYONE = '{"name": "p", "allow_rules": [{"name": "anyone with a certificate", "source": {"principals": ["*"]}}]}'
CALLER = "spiffe://example.org/a-caller"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def caller(authority: Authority) -> Issued:
    return authority.issue(CALLER)


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Path:
    """The folder of a server's files."""
    authority.issue("localhost").write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "policy.json").write_text(ANYONE)
    return tmp_path


def given(files: Path, listen: str) -> dict[str, Any]:
    """The settings of a server that listens with these files."""
    tls = {"tls_certificate": str(files / "server.pem"), "tls_key": str(files / "server.key"), "listen": listen}
    if "mtls" in listen:
        tls |= {"tls_client_ca": str(files / "ca.pem"), "policy": str(files / "policy.json")}
    return tls


def flags(files: Path, listen: str) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in given(files, listen).items()]


@pytest.fixture
def tls_address(files: Path, user_store_url: str) -> Iterator[str]:
    with UserProfileServer(settings_for(user_store_url, **given(files, "tls://127.0.0.1:0"))) as listening:
        assert listening.startswith("tls://127.0.0.1:")
        yield listening.removeprefix("tls://")


@pytest.fixture
def mtls_address(files: Path, user_store_url: str) -> Iterator[str]:
    with UserProfileServer(settings_for(user_store_url, **given(files, "mtls://127.0.0.1:0"))) as listening:
        assert listening.startswith("mtls://127.0.0.1:")
        yield listening.removeprefix("mtls://")


def name_from(channel: grpc.Channel) -> str | None:
    return GetUser(channel)("johndoe").full_name


def is_refused(channel: grpc.Channel) -> bool:
    return GetUser(channel).error("johndoe").code is grpc.StatusCode.UNAVAILABLE


def serial_shown(address: str) -> int:
    """The serial number of the certificate that a new connection is shown."""
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=WAIT)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def serial_of(issued: Issued) -> int:
    return x509.load_pem_x509_certificate(issued.certificate).serial_number


class TestWhoGetsIn:
    def test_a_client_that_trusts_the_authority(self, authority: Authority, tls_address: str) -> None:
        with authority.channel(tls_address) as channel:
            assert name_from(channel) == "John Doe"

    def test_no_client_that_trusts_another_authority(self, tls_address: str) -> None:
        with Authority("another").channel(tls_address) as channel:
            assert is_refused(channel)

    def test_mutual_tls_needs_a_certificate_of_the_authority_that_is_valid_now(
        self, authority: Authority, caller: Issued, mtls_address: str
    ) -> None:
        with authority.channel(mtls_address, caller) as channel:
            assert name_from(channel) == "John Doe"
        for shown in (
            None,
            Authority().issue(CALLER),
            Authority("another").issue(CALLER),
            authority.issue(CALLER, not_before=-2 * DAY, not_after=-DAY),
            authority.issue(CALLER, not_before=DAY),
        ):
            with authority.channel(mtls_address, shown) as channel:
                assert is_refused(channel)

    def test_nobody_in_plaintext(self, tls_address: str, mtls_address: str) -> None:
        for address in (tls_address, mtls_address):
            with grpc.insecure_channel(address) as channel:
                assert is_refused(channel)

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
    def test_nobody_with_an_old_version_of_tls(self, tls_address: str, version: ssl.TLSVersion) -> None:
        context = a_context()
        context.minimum_version = context.maximum_version = version
        with raises(OSError):  # of ssl's, or that the connection is gone
            connect(tls_address, context).close()

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_those_with_a_new_one(self, tls_address: str, version: ssl.TLSVersion) -> None:
        context = a_context()
        context.minimum_version = context.maximum_version = version
        with connect(tls_address, context) as connection:
            assert connection.selected_alpn_protocol() == "h2"

    def test_nobody_who_does_not_speak_http_2(self, tls_address: str) -> None:
        context = a_context()
        context.set_alpn_protocols(["http/1.1"])
        with raises(OSError):
            with connect(tls_address, context) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                if not connection.recv(1):
                    raise ConnectionError("closed")


def a_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    return context


def connect(address: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=WAIT)
    return context.wrap_socket(connection, session=session)


@pytest.mark.slow
class TestNewFiles:
    @pytest.mark.parametrize("way", ["in place", "key first", "by a link"])
    def test_new_connections_get_the_new_certificate_and_open_ones_go_on(
        self, authority: Authority, user_store_url: str, files: Path, way: str
    ) -> None:
        volume = files / "volume"
        if way == "by a link":  # as Kubernetes mounts secrets
            volume.symlink_to(files / "first")
            (files / "first").mkdir()
            authority.issue("localhost").write(files / "first", "server")
        else:
            volume = files
        new = authority.issue("localhost")
        with UserProfileServer(settings_for(user_store_url, **given(volume, "tls://127.0.0.1:0"))) as listening:
            address = listening.removeprefix("tls://")
            with authority.channel(address) as channel:
                assert name_from(channel) == "John Doe"
                assert serial_shown(address) != serial_of(new)
                if way == "by a link":
                    (files / "second").mkdir()
                    new.write(files / "second", "server")
                    (files / "next").symlink_to(files / "second")
                    (files / "next").replace(volume)
                else:
                    if way == "key first":
                        (files / "server.key").write_bytes(new.key)
                        assert name_from(channel) == "John Doe"
                    new.write(files, "server")
                eventually(lambda: serial_shown(address) == serial_of(new), "the new certificate is shown")
                assert name_from(channel) == "John Doe"
            with authority.channel(address) as channel:
                assert name_from(channel) == "John Doe"

    def test_each_address_of_a_name_gets_them(
        self, authority: Authority, user_store_url: str, files: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As that of localhost, which is 127.0.0.1 and ::1 on most machines."""
        hosts = ["127.0.0.1", "127.0.0.2"]
        if not ListenAddress(hosts[1], 0).exists():
            pytest.skip("this machine has 127.0.0.1 alone")
        monkeypatch.setattr(
            ListenAddress, "resolve", lambda address: [ListenAddress(host, address.port) for host in hosts]
        )
        new = authority.issue("localhost")
        with UserProfileServer(settings_for(user_store_url, **given(files, "tls://localhost:0"))) as listening:
            port = listening.rpartition(":")[2]
            assert len({serial_shown(f"{host}:{port}") for host in hosts} - {serial_of(new)}) == 1
            new.write(files, "server")
            for host in hosts:
                eventually(lambda host=host: serial_shown(f"{host}:{port}") == serial_of(new), f"{host} has it")  # type: ignore[misc]

    def test_files_that_cannot_be_used_change_nothing_and_are_said_once(
        self, authority: Authority, user_store_url: str, files: Path
    ) -> None:
        old, other, new = serial_in(files / "server.pem"), authority.issue("localhost"), authority.issue("localhost")
        with ServerProcess("", "--store", user_store_url, *flags(files, "tls://127.0.0.1:0")) as server:
            address = server.address.removeprefix("tls://")
            (files / "server.key").write_bytes(other.key)  # of a certificate that never comes
            eventually(lambda: "stays in use" in server.stderr, lambda: server.stderr)
            assert "doesn't belong to the certificate" in server.stderr
            assert serial_shown(address) == old
            new.write(files, "server")
            eventually(lambda: serial_shown(address) == serial_of(new), lambda: server.stderr)
            line = f"{files / 'server.pem'}: 89 days left"
            eventually(lambda: server.stderr.count(line) == 2, lambda: server.stderr)
            assert server.stderr.count("stays in use") == 1

    @pytest.mark.parametrize(
        ("differently", "says"),
        [
            ({"key": ec.generate_private_key(ec.SECP521R1())}, "gRPC can't use a key of its kind"),
            ({"more": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]}, "it isn't one for a server"),
        ],
        ids=["key", "purpose"],
    )
    def test_a_certificate_with_which_each_handshake_would_fail_changes_nothing(
        self,
        authority: Authority,
        user_store_url: str,
        files: Path,
        caplog: pytest.LogCaptureFixture,
        differently: dict[str, Any],
        says: str,
    ) -> None:
        with UserProfileServer(settings_for(user_store_url, **given(files, "tls://127.0.0.1:0"))) as address:
            authority.issue("localhost", **differently).write(files, "server")
            eventually(lambda: says in caplog.text, "it is said")
            with authority.channel(address.removeprefix("tls://")) as channel:
                assert name_from(channel) == "John Doe"

    def test_a_new_authority_of_clients_counts_for_new_connections(
        self, authority: Authority, caller: Issued, mtls_address: str, files: Path
    ) -> None:
        another = Authority("another")
        with authority.channel(mtls_address, caller) as open_channel:
            assert name_from(open_channel) == "John Doe"
            (files / "ca.pem").write_bytes(another.pem)

            def old_ones_are_refused() -> bool:
                with authority.channel(mtls_address, caller) as channel:
                    return CallOutcome(channel).code is grpc.StatusCode.UNAVAILABLE

            eventually(old_ones_are_refused, "certificates of the old authority are refused")
            with authority.channel(mtls_address, another.issue(CALLER)) as channel:
                assert name_from(channel) == "John Doe"
            assert name_from(open_channel) == "John Doe"  # until --connection-age

    def test_a_certificate_counts_until_it_expires(self, authority: Authority, mtls_address: str) -> None:
        """On open connections too, and on those that resume a TLS session, for which it isn't presented again."""
        short = authority.issue(CALLER, not_after=timedelta(seconds=5))
        session = [("grpc.ssl_session_cache", cygrpc.SSLSessionCacheLRU(10))]
        with authority.channel(mtls_address, short, session) as open_channel:
            assert name_from(open_channel) == "John Doe"
            eventually(lambda: CallOutcome(open_channel).code is not grpc.StatusCode.OK, "it has expired")
            error = GetUser(open_channel).error("johndoe")
            assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")
            with authority.channel(mtls_address, short, session) as resumed:
                assert CallOutcome(resumed).code is grpc.StatusCode.UNAUTHENTICATED
            with authority.channel(mtls_address, short) as new:
                assert CallOutcome(new).code is grpc.StatusCode.UNAVAILABLE  # refused in the handshake

    def test_a_session_ends_when_the_configuration_is_renewed(
        self, authority: Authority, user_store_url: str, files: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        renew = 3600.0
        monkeypatch.setattr(credentials, "_RENEW_SECONDS", Later(lambda: renew))
        short = authority.issue(CALLER, not_after=timedelta(seconds=5))
        short.write(files, "short")
        context = a_context()
        context.load_cert_chain(files / "short.pem", files / "short.key")
        with UserProfileServer(settings_for(user_store_url, **given(files, "mtls://127.0.0.1:0"))) as listening:
            address = listening.removeprefix("mtls://")
            with connect(address, context) as connection:
                connection.recv(1)  # tickets come behind the handshake
                session = connection.session
            eventually(lambda: not gets_in(address, context), "the certificate has expired")
            assert gets_in(address, context, session), "this is what has to be bounded"
            renew = 0.0
            eventually(lambda: not gets_in(address, context, session), "the session has ended")

    def test_no_handshake_begins_while_the_configuration_is_replaced(
        self, user_store_url: str, files: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the waiting before it relies on; the crash that it prevents is too rare to be tested."""
        inside = threading.Lock()
        overlaps = []

        def wait() -> None:
            overlaps.append(not inside.acquire(blocking=False))
            time.sleep(0.05)
            inside.release()

        monkeypatch.setattr(credentials, "_RENEW_SECONDS", 0.0)
        monkeypatch.setattr(credentials, "_let_handshakes_begin", wait)
        with UserProfileServer(settings_for(user_store_url, **given(files, "tls://127.0.0.1:0"))) as listening:
            address = listening.removeprefix("tls://")
            with ThreadPoolExecutor(8) as pool:
                assert len(set(pool.map(serial_shown, [address] * 8))) == 1
        assert overlaps == [False] * 8

    def test_what_changes_while_handshakes_wait_counts_for_them(
        self,
        authority: Authority,
        user_store_url: str,
        files: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """As when the pair and the clients' authorities are replaced: they wait once, and none has the old ones."""
        new = authority.issue("localhost")

        def wait() -> None:
            new.write(files, "server")
            eventually(lambda: caplog.text.count("89 days left") == 2, "it is in use")

        monkeypatch.setattr(credentials, "_RENEW_SECONDS", 0.0)
        monkeypatch.setattr(credentials, "_let_handshakes_begin", wait)
        caplog.set_level(logging.INFO)
        with UserProfileServer(settings_for(user_store_url, **given(files, "tls://127.0.0.1:0"))) as listening:
            assert serial_shown(listening.removeprefix("tls://")) == serial_of(new)


class Later:
    """A number that is asked for whenever it is compared."""

    def __init__(self, number: Any) -> None:
        self._number = number

    def __gt__(self, other: float) -> bool:
        return bool(self._number() > other)


class CallOutcome:
    """The code that a call ends with."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.code = grpc.StatusCode.OK
        try:
            GetUser(channel)("johndoe")
        except grpc.RpcError as error:
            self.code = error.code()


def gets_in(address: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> bool:
    """Whether a handshake succeeds, at both ends: with TLS 1.3 the client's is over before the server's."""
    try:
        with connect(address, context, session) as connection:
            return bool(connection.recv(1))
    except (ssl.SSLError, ConnectionError):
        return False


def serial_in(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


class TestListeners:
    def test_one_server_has_several(
        self, authority: Authority, caller: Issued, user_store_url: str, files: Path
    ) -> None:
        wanted = f"127.0.0.1:0,tls://127.0.0.1:0,mtls://127.0.0.1:0,unix:{files / 'a.sock'}"
        with UserProfileServer(settings_for(user_store_url, **given(files, wanted))) as listening:
            plain, tls, mtls, unix = listening.split(",")
            for channel in (authority.channel(mtls.removeprefix("mtls://"), caller),):
                with channel:
                    assert name_from(channel) == "John Doe"
            for channel in (
                grpc.insecure_channel(plain),
                authority.channel(tls.removeprefix("tls://")),
                authority.channel(tls.removeprefix("tls://"), caller),  # which it doesn't ask for
                grpc.insecure_channel(unix),
            ):
                with channel:
                    assert GetUser(channel).error("johndoe").reason == "CALLER_UNKNOWN"

    def test_a_flag_for_each_and_a_line_for_each(self, authority: Authority, user_store_url: str, files: Path) -> None:
        with ServerProcess(
            user_store_url, f"--listen=unix:{files / 'a.sock'}", *flags(files, "tls://127.0.0.1:0")
        ) as server:
            first, second, third = server.address.replace("listening on ", "").splitlines()
            assert first.startswith("127.0.0.1:")
            assert second == f"unix:{files / 'a.sock'}"
            for channel in (
                grpc.insecure_channel(first),
                grpc.insecure_channel(second),
                authority.channel(third.removeprefix("tls://")),
            ):
                with channel:
                    assert name_from(channel) == "John Doe"

    def test_several_processes_share_all_of_them(
        self, authority: Authority, caller: Issued, user_store_url: str, files: Path
    ) -> None:
        arguments = ["--processes=2", "--health-listen=127.0.0.1:0", *flags(files, "mtls://127.0.0.1:0")]
        with ServerProcess("", "--store", user_store_url, "--listen=tls://127.0.0.1:0", *arguments) as server:
            tls, mtls = server.address.replace("listening on ", "").splitlines()
            for channel in (
                authority.channel(tls.removeprefix("tls://")),
                authority.channel(mtls.removeprefix("mtls://"), caller),
            ):
                with channel:
                    assert CallOutcome(channel).code in (grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED)
            eventually(lambda: server.stderr.count("health checks on 127.0.0.1:") == 2, lambda: server.stderr)

    def test_health_alone_in_plaintext_for_those_without_a_certificate(self, user_store_url: str, files: Path) -> None:
        settings = ["--health-listen=127.0.0.1:0", *flags(files, "mtls://127.0.0.1:0")]
        with ServerProcess("", "--store", user_store_url, *settings) as server:
            eventually(lambda: "health checks on " in server.stderr, lambda: server.stderr)
            address = server.stderr.partition("health checks on ")[2].split()[0]
            with grpc.insecure_channel(address) as channel:
                eventually(lambda: health_stub(channel).Check(health_request(), timeout=WAIT).status == 1, "SERVING")
                assert GetUser(channel).error("johndoe").code is grpc.StatusCode.UNIMPLEMENTED


def health_request() -> Any:
    from grpc_health.v1 import health_pb2

    return health_pb2.HealthCheckRequest()


class TestMistakes:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ("--listen=tls://127.0.0.1:0", "--listen tls://… and mtls://… need --tls-certificate and --tls-key"),
            ("--listen=tls://127.0.0.1:0 --tls-key=k", "need --tls-certificate and --tls-key"),
            ("--listen=mtls://127.0.0.1:0 --tls-key=k --tls-certificate=c", "--listen mtls://… needs --tls-client-ca"),
            (
                "--listen=mtls://127.0.0.1:0 --tls-key=k --tls-certificate=c --tls-client-ca=a",
                "--listen mtls://… needs --policy: without one nobody may call anything",
            ),
            ("--tls-key=k --tls-certificate=c", "no --listen begins with tls:// or mtls://"),
            ("--listen=tls://127.0.0.1:0 --tls-key=k --tls-certificate=c --tls-client-ca=a", "and there is none"),
            ("--listen=tls://unix:/x.sock", "a Unix socket has no TLS: only this machine can reach it"),
            ("--listen=https://127.0.0.1:1", "an address begins with tls://, with mtls://, or with nothing"),
            ("--listen=127.0.0.1:1 --listen=tls://127.0.0.1:1", "127.0.0.1:1 is given twice"),
            ("--listen=tls://0.0.0.0", "an address is HOST:PORT"),
            ("--listen=127.0.0.1:0 --listen=0.0.0.0:0", "use tls:// (see --tls-certificate), or to allow that"),
            ("--health-listen=nothing", "an address is HOST:PORT"),
            ("--tokens=t", "--tokens needs --policy: without one nobody may call anything"),
        ],
    )
    def test_in_flags_are_explained_before_anything_is_opened(self, given: str, says: str) -> None:
        done = run("userprofile-server", "serve", *given.split())
        assert done.returncode == 2, done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("flag", ["--tls-certificate=c", "--tls-key=k"])
    def test_check_asks_for_both_of_a_pair(self, flag: str) -> None:
        done = run("userprofile-server", "check", flag)
        assert done.returncode == 2
        assert "need --tls-certificate and --tls-key, both of them" in done.stderr

    def test_in_files_are_explained_at_the_start(self, user_store_url: str, files: Path) -> None:
        (files / "server.key").write_bytes(Authority().issue("localhost").key)
        with raises(SecurityError, match="doesn't belong to the certificate in"):
            UserProfileServer(settings_for(user_store_url, **given(files, "tls://127.0.0.1:0")))
        for processes in ("1", "2"):
            done = run(
                "userprofile-server", "serve", "--store", user_store_url, "--processes", processes,
                *flags(files, "tls://127.0.0.1:0"),
            )  # fmt: skip
            assert done.returncode == 3
            assert "error: " in done.stderr
            assert "doesn't belong to the certificate in" in done.stderr
            assert "Traceback" not in done.stderr


class TestCheck:
    def test_says_how_long_certificates_are_valid_and_what_is_in_the_other_files(
        self, user_store_url: str, files: Path
    ) -> None:
        new_token("a-caller", files / "tokens")
        new_token("a-caller", files / "tokens")
        (files / "keys.json").write_bytes(key_set(SigningKey("ES256").public()))
        done = run(
            "userprofile-server", "check", "--store", user_store_url, "--tls-certificate", files / "server.pem",
            "--tls-key", files / "server.key", "--tls-client-ca", files / "ca.pem", "--tokens", files / "tokens",
            "--policy", files / "policy.json", "--jwt-keys", files / "keys.json", "--jwt-issuer=i", "--jwt-audience=a",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [line.partition(f"{files}/")[2].partition(" (")[0] for line in done.stdout.splitlines()[:5]] == [
            "server.pem: 89 days left", "ca.pem: 364 days left", "tokens: 2 tokens of 1 caller", "policy.json: 1 rule",
            "keys.json: 1 key",
        ]  # fmt: skip
        assert done.stdout.endswith("ok\n")

    @pytest.mark.parametrize(
        ("flags", "says"),
        [
            ("--tls-certificate={0}/server.pem --tls-key={0}/ca.pem", "can't be used as a private key"),
            ("--tls-certificate={0}/nothing --tls-key={0}/server.key", "nothing can't be read: No such file"),
            ("--tls-client-ca={0}/server.pem", "can't be used as certificate authorities"),
            ("--policy={0}/server.pem", "line 1, column 1"),
            ("--tokens={0}/server.pem", "line 1: "),
            ("--jwt-keys={0}/policy.json --jwt-issuer=i --jwt-audience=a", "isn't a set of keys"),
            (
                "--jwt-keys=https://127.0.0.1:1/ --jwt-issuer=i --jwt-audience=a",
                "the JWT keys at https://127.0.0.1:1/ can't be used: ",
            ),
        ],
    )
    def test_says_what_cannot_be_used(self, user_store_url: str, files: Path, flags: str, says: str) -> None:
        done = run("userprofile-server", "check", "--store", user_store_url, *flags.format(files).split())
        assert done.returncode == 3
        assert done.stderr.startswith("error: ")
        assert says in done.stderr
        assert "ok" not in done.stdout
