"""What the check of TLS files says, and that clients and their command line look at the files by it."""

import os
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from tests.canary import raises
from tests.certificates import BAD_AUTHORITIES, BAD_PAIRS, DAY, PASSWORD, MadeFiles
from tests.clients.twins import MakeClient
from tests.support import BIN
from userprofile import TLS
from userprofile.certificates import CertificateError, read_authorities, read_identity, time_left


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


def test_the_days_that_are_left_are_said(files: MadeFiles) -> None:
    not_after = read_identity(files / "own.pem", files / "own.key").not_after
    assert time_left(not_after) == f"90 days left (until {not_after:%Y-%m-%d})"
    assert time_left(datetime.now(UTC) + 1.5 * DAY).startswith("1 day left")


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path: Path) -> None:
    with raises(FileNotFoundError):
        read_authorities(tmp_path / "missing.pem")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    for path in (tmp_path / "pipe", "/dev/zero"):
        with raises(CertificateError, match="a pipe or a device"):
            read_authorities(path)


def test_the_command_line_asks_nobody_for_a_password(files: MadeFiles) -> None:
    """In a session without a terminal, where OpenSSL would ask on standard input."""
    for name in ("encrypted.key", "encrypted traditionally.key"):
        command = [BIN / "userprofile", "get", "johndoe", "--tls-certificate", files / "own.pem", "--tls-key"]
        done = subprocess.run(
            [*command, files / name],
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
    command = [BIN / "userprofile", "health", "--tls-ca", files / name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert BAD_AUTHORITIES[name] in done.stderr
    assert "Traceback" not in done.stderr
