"""What the check of TLS files says, and that clients and their command line look at the files by it."""

import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.authority import Authority
from tests.canary import guard, raises
from tests.certificates import BAD_AUTHORITIES, BAD_PAIRS, DAY, PASSWORD, MadeFiles
from tests.clients.twins import MakeClient
from tests.fork_server import BIN
from tests.support import WAIT
from userprofile import TLS, certificates
from userprofile.certificates import CertificateError, Role, expiry, read_authorities, read_identity, time_left


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> MadeFiles:
    return MadeFiles(tmp_path_factory.mktemp("certificates"))


def in_full(files: MadeFiles, says: str) -> str:
    return says if "can't be used" not in says else f"{files.folder}/{says}"


@pytest.mark.parametrize(("name", "says"), BAD_AUTHORITIES.items())
def test_a_client_refuses_bad_authorities(make_client: MakeClient, files: MadeFiles, name: str, says: str) -> None:
    with raises(ValueError, match="can't be used as certificate authorities") as caught:
        make_client(tls=TLS(ca=files / name))
    assert str(files / name) in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(("names", "says"), BAD_PAIRS.items(), ids=str)
def test_a_client_refuses_a_bad_certificate_or_key(
    make_client: MakeClient, files: MadeFiles, names: tuple[str, str], says: str
) -> None:
    certificate, key = names
    with raises(ValueError, match="can't be used as a") as caught:
        make_client(tls=TLS(certificate=str(files / certificate), key=files / key))
    assert in_full(files, says) in str(caught.value)
    assert caught.value.__cause__ is None
    assert not any(secret.decode() in str(caught.value) for secret in files.secrets)


@pytest.mark.parametrize(
    "name", ["ca.pem", "both.pem", "chain upside down.pem", "crlf.pem", "one line.pem", "self-signed.pem"]
)
def test_authorities_in_any_usual_form_are_taken(files: MadeFiles, name: str) -> None:
    authorities = read_authorities(files / name)
    assert (authorities.count, authorities.expired) == (1, 0)
    assert authorities.pem == (files / name).read_bytes()


def test_a_file_of_very_many_beginnings_is_refused_at_once(tmp_path: Path) -> None:
    # With a search for the end of each it would take hours, in which nothing else in the process runs.
    (tmp_path / "ca.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n" * 500_000)
    with raises(ValueError, match="it is damaged"):
        read_authorities(tmp_path / "ca.pem")


def test_one_expired_authority_among_others_is_no_harm(files: MadeFiles) -> None:
    authorities = read_authorities(files / "some expired.pem")
    assert authorities.expired == 1
    assert authorities.not_after > datetime.now(UTC) + DAY


def test_the_bundle_that_grpc_comes_with_is_taken() -> None:
    bundle = Path(grpc.__file__).parent / "_cython/_credentials/roots.pem"
    assert read_authorities(bundle).count > 50


@pytest.mark.parametrize(
    ("certificate", "key"),
    [("own.pem", "own.key"), ("both.pem", "both.pem"), ("own.pem", "pkcs8.key"), ("fresh.pem", "fresh.key")],
)
def test_a_certificate_and_its_key_are_taken(files: MadeFiles, certificate: str, key: str) -> None:
    identity = read_identity(files / certificate, files / key)
    assert (identity.certificate, identity.key) == ((files / certificate).read_bytes(), (files / key).read_bytes())
    assert "PRIVATE" not in repr(identity)


@pytest.mark.parametrize(
    ("key", "usable"),
    [
        (rsa.generate_private_key(65537, 2048), True),
        (ec.generate_private_key(ec.SECP384R1()), True),
        (ec.generate_private_key(ec.SECP521R1()), False),
        (ec.generate_private_key(ec.SECP256K1()), False),
        (ed25519.Ed25519PrivateKey.generate(), False),
    ],
    ids=["RSA", "P-384", "P-521", "secp256k1", "Ed25519"],
)
def test_a_key_with_which_each_handshake_of_grpc_would_fail_is_refused(
    tmp_path: Path, key: CertificateIssuerPrivateKeyTypes, usable: bool
) -> None:
    authority = Authority()
    issued = authority.issue("localhost", key=key)
    issued.write(tmp_path, "own")
    if usable:
        credentials = grpc.ssl_server_credentials([(issued.key, issued.certificate)])
        server = grpc.server(ThreadPoolExecutor(1))
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        with authority.channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(WAIT)
        server.stop(0)
        assert read_identity(tmp_path / "own.pem", tmp_path / "own.key").key == issued.key
    else:
        with raises(CertificateError, match="gRPC can't use a key of its kind; use RSA, or EC with P-256 or P-384"):
            read_identity(tmp_path / "own.pem", tmp_path / "own.key")
    assert read_identity(tmp_path / "own.pem", tmp_path / "own.key", for_grpc=False).key == issued.key


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), None], ids=["RSA", "EC"])
def test_a_certificate_that_is_not_for_signatures_is_refused(
    tmp_path: Path, key: CertificateIssuerPrivateKeyTypes | None
) -> None:
    """A server would go on with the one before, and say that the new one is in use."""
    flags = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"), False
    )
    for signs in (True, False):
        usage = x509.KeyUsage(signs, key_encipherment=True, encipher_only=False, decipher_only=False, **flags)
        issued = Authority().issue("localhost", key=key, more=[usage])
        issued.write(tmp_path, "own")
        assert read_identity(tmp_path / "own.pem", tmp_path / "own.key", for_grpc=False).key == issued.key
        if signs:
            assert read_identity(tmp_path / "own.pem", tmp_path / "own.key").key == issued.key
        else:
            with raises(CertificateError, match="its key usage lacks digitalSignature"):
                read_identity(tmp_path / "own.pem", tmp_path / "own.key")


CLIENT, SERVER, ANY, CODE = (
    ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, ExtendedKeyUsageOID.CODE_SIGNING,
)  # fmt: skip


@pytest.mark.parametrize(
    ("purposes", "roles"),
    [
        ([], {"client", "server"}),
        ([SERVER], {"server"}),
        ([CLIENT], {"client"}),
        ([CODE, SERVER, CLIENT], {"client", "server"}),
        ([ANY], {"client", "server"}),
        ([CODE], set()),
    ],
)
def test_a_certificate_for_the_other_end_is_refused(
    tmp_path: Path, purposes: list[x509.ObjectIdentifier], roles: set[Role]
) -> None:
    Authority().issue("localhost", more=[x509.ExtendedKeyUsage(purposes)] if purposes else []).write(tmp_path, "own")
    role: Role
    for role in ("client", "server"):
        if role in roles:
            read_identity(tmp_path / "own.pem", tmp_path / "own.key", role=role)
        else:
            with raises(CertificateError, match=f"its extended key usage lacks {role}Auth, so it isn't one for a"):
                read_identity(tmp_path / "own.pem", tmp_path / "own.key", role=role)


def test_a_client_refuses_the_certificate_of_a_server(make_client: MakeClient, tmp_path: Path) -> None:
    """Its handshakes would fail, and only the server's standard error would say why."""
    Authority().issue("localhost", more=[x509.ExtendedKeyUsage([SERVER])]).write(tmp_path, "own")
    with raises(ValueError, match="its extended key usage lacks clientAuth"):
        make_client(tls=TLS(certificate=tmp_path / "own.pem", key=tmp_path / "own.key"))


def test_a_pair_that_is_replaced_while_it_is_read_is_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority()
    authority.issue("localhost").write(tmp_path, "own")
    check_key = certificates._check_key

    def replaced_meanwhile(path: Path | str, content: bytes) -> None:
        check_key(path, content)
        authority.issue("localhost").write(tmp_path, "own")

    monkeypatch.setattr(certificates, "_check_key", replaced_meanwhile)
    with raises(CertificateError, match="replaced while they were read"):
        read_identity(tmp_path / "own.pem", tmp_path / "own.key")


def test_the_days_that_are_left_are_said(files: MadeFiles) -> None:
    not_after = read_identity(files / "own.pem", files / "own.key").not_after
    assert time_left(not_after) == f"90 days left (until {not_after:%Y-%m-%d})"
    assert time_left(datetime.now(UTC) + 1.5 * DAY).startswith("1 day left")


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path: Path) -> None:
    with raises(FileNotFoundError):
        read_authorities(tmp_path / "missing.pem")


def test_the_content_of_a_file_in_place_of_its_path_is_not_shown(make_client: MakeClient, files: MadeFiles) -> None:
    key = (files / "own.key").read_text()
    guard(key)
    for tls in (
        TLS(certificate=files / "own.pem", key=key),
        TLS(certificate=files / "own.pem", key=Path(key)),
        TLS(certificate=key, key=files / "own.key"),
        TLS(ca=key),
    ):
        with raises(ValueError, match="the path of a file is needed"):
            make_client(tls=tls)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    for path in (tmp_path / "pipe", "/dev/zero"):
        with raises(CertificateError, match="a pipe or a device"):
            read_authorities(path)


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    before = (tmp_path / "file").stat()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", lambda _path: before)  # what was there a moment ago
        with raises(CertificateError, match="a pipe or a device"):
            read_authorities(tmp_path / "pipe")


def test_the_command_line_never_prompts_for_a_password(files: MadeFiles) -> None:
    """In a session without a terminal, where OpenSSL would prompt on standard input."""
    for name in ("encrypted.key", "encrypted traditionally.key"):
        command = [str(BIN / "userprofile"), "get", "johndoe", "--tls-certificate", str(files / "own.pem"), "--tls-key"]
        done = subprocess.run(
            [*command, str(files / name)],
            input=PASSWORD.decode() + "\n",
            capture_output=True,
            text=True,
            timeout=60,
            start_new_session=True,
            check=False,
        )
        assert done.returncode == 2
        assert f"{files / name} can't be used as a private key: it is encrypted" in done.stderr


@pytest.mark.parametrize("name", ["empty", "folder", "garbage"])
def test_the_command_line_refuses_bad_authorities(files: MadeFiles, name: str) -> None:
    command = [str(BIN / "userprofile"), "health", "--tls-ca", str(files / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert BAD_AUTHORITIES[name] in done.stderr
    assert "Traceback" not in done.stderr


def test_when_a_certificate_expires() -> None:
    not_after = datetime(2057, 3, 1, 12, 30, tzinfo=UTC)
    issued = trustme.CA().issue_cert("localhost", not_after=not_after)
    assert expiry(issued.cert_chain_pems[0].bytes()) == not_after


@pytest.mark.parametrize("content", [b"", b"\xff", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_does_not_say_when_it_expires(content: bytes) -> None:
    with raises(ValueError):
        expiry(content)
