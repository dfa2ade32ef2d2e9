"""The Python clients and their command on a real server that knows its callers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.canary import raises
from tests.client_conformance import identities
from tests.clients.twins import MakeClient
from tests.support import run
from userprofile import TLS, PermissionDeniedError, UnauthenticatedError, User, reasons

EVERYTHING = User("johndoe", email="johndoe@example.com", full_name="John Doe", disabled=False)
NAMES = User("johndoe", full_name="John Doe")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("identities")
    with identities.serve(folder):
        yield folder


def test_a_token_over_tls(make_client: MakeClient, folder: Path) -> None:
    token, tls = (folder / "token").read_text(), TLS(ca=folder / "ca.pem")
    client = make_client((folder / "tls").read_text(), tls=tls, token=token, timeout=60)
    assert client.get_user("johndoe") == EVERYTHING
    assert client.get_users(["johndoe"]) == {"johndoe": EVERYTHING}


def test_a_certificate(make_client: MakeClient, folder: Path) -> None:
    tls = TLS(ca=folder / "ca.pem", certificate=folder / "caller.pem", key=folder / "caller.key")
    client = make_client((folder / "mtls").read_text(), tls=tls, timeout=60)
    assert client.get_user("johndoe") == NAMES
    assert client.get_users(["johndoe"]) == {"johndoe": NAMES}
    with raises(PermissionDeniedError, match="must not name email") as caught:
        client.get_user("johndoe", fields=["email"])
    assert caught.value.reason == reasons.CALLER_NOT_ALLOWED
    assert not caught.value.retryable


@pytest.mark.parametrize("token", [None, "wrong"])
def test_neither(make_client: MakeClient, folder: Path, token: str | None) -> None:
    client = make_client((folder / "tls").read_text(), tls=TLS(ca=folder / "ca.pem"), token=token, timeout=60)
    with raises(UnauthenticatedError) as caught:
        client.get_user("johndoe")
    assert caught.value.reason == reasons.CALLER_UNKNOWN
    assert not caught.value.retryable
    assert client.check_health()


def test_the_command(folder: Path) -> None:
    ca = "--tls-ca", folder / "ca.pem", "--timeout=60"
    by_token = run(
        "userprofile", "get", "johndoe", *ca, "--target", (folder / "tls").read_text(), "--token-file", folder / "token"
    )
    assert "johndoe@example.com" in by_token.stdout, by_token.stderr
    own = "--tls-certificate", folder / "caller.pem", "--tls-key", folder / "caller.key"
    by_certificate = run("userprofile", "get", "johndoe", *ca, "--target", (folder / "mtls").read_text(), *own)
    assert "John Doe" in by_certificate.stdout, by_certificate.stderr
    assert "@" not in by_certificate.stdout
