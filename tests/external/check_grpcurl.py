"""The real grpcurl against the real server: `make test-grpcurl`.

Not collected by `make test`, which needs nothing but Python. grpcurl speaks reflection v1; v1alpha is
in tests/test_health.py.
"""

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.canary import look
from tests.client_conformance import identities
from tests.couchbase_node import TestCluster
from tests.store_contract.couchbase_mock import shared_mock
from tests.support import ServerProcess, run

SERVICE = "userprofile.v1.UserProfileService"
PROTOSET = Path(__file__).parent.parent.parent / "build" / "userprofile.protoset"


@pytest.fixture(params=["sqlite", "our node", "CouchbaseMock"])
def server(
    request: pytest.FixtureRequest, user_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    """The same users on each store: nothing changes but --store and the credentials."""
    with closing(sqlite3.connect(user_store_url.removeprefix("sqlite:///"))) as connection:
        stored = connection.execute("SELECT CAST(document AS BLOB) FROM userprofiles").fetchall()
    users = b"\n".join(document for (document,) in stored)
    with ExitStack() as running:
        url = user_store_url
        if request.param == "our node":
            cluster = running.enter_context(TestCluster())
            url = f"couchbase://{cluster.hosts}/default"
            credentials = "username", "password"
        elif request.param == "CouchbaseMock":
            url = f"couchbase://{shared_mock().host}/default"
            credentials = "default", "any"
        if url != user_store_url:
            monkeypatch.setenv("USERPROFILE_SERVER_COUCHBASE_USERNAME", credentials[0])
            monkeypatch.setenv("USERPROFILE_SERVER_COUCHBASE_PASSWORD", credentials[1])
            assert run("userprofile-server", "import", "-", "--store", url, stdin=users).returncode == 0
        yield running.enter_context(ServerProcess(url))


def grpcurl(
    server: ServerProcess, *args: str, data: object = None, protoset: bool = False
) -> "subprocess.CompletedProcess[str]":
    options = [] if data is None else ["-d", json.dumps(data)]
    options += ["-protoset", str(PROTOSET)] if protoset else []
    done = subprocess.run(
        [
            os.environ["GRPCURL"],
            "-plaintext",
            "-max-time",
            "10",
            "-H",
            "x-request-id: mine",
            *options,
            server.address,
            *args,
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    look("grpcurl", done.stdout + done.stderr)
    return done


def test_prints_a_user(server: ServerProcess) -> None:
    done = grpcurl(server, f"{SERVICE}/GetUser", data={"username": "johndoe"})
    assert json.loads(done.stdout) == {
        "user": {"username": "johndoe", "email": "johndoe@example.com", "fullName": "John Doe", "disabled": False}
    }


@pytest.mark.parametrize(
    ("method", "data"),
    [
        (f"{SERVICE}/GetUser", {"username": "johndoe"}),
        (f"{SERVICE}/GetUser", {"username": "johndoe", "readMask": {"paths": ["full_name", "disabled"]}}),
        (f"{SERVICE}/GetUser", {"username": "nobody"}),
        (f"{SERVICE}/GetUser", {"username": ""}),
        (f"{SERVICE}/GetUser", {"username": "johndoe", "readMask": {"paths": ["shoe_size"]}}),
        (f"{SERVICE}/BatchGetUsers", {"usernames": ["johndoe", "null", "nobody", ""]}),
        (f"{SERVICE}/BatchGetUsers", {}),
        ("grpc.health.v1.Health/Check", {"service": SERVICE}),
    ],
    ids=json.dumps,
)
def test_prints_the_same_by_reflection_and_by_a_protoset(server: ServerProcess, method: str, data: object) -> None:
    by_reflection = grpcurl(server, method, data=data)
    by_protoset = grpcurl(server, method, data=data, protoset=True)
    assert (by_reflection.stdout, by_reflection.stderr) == (by_protoset.stdout, by_protoset.stderr)
    assert "full_name" not in by_reflection.stdout
    assert by_reflection.stdout or "Code: " in by_reflection.stderr


def test_takes_a_mask_as_a_message(server: ServerProcess) -> None:
    """Where JSON's own form is a string with commas, which grpcurl doesn't know (docs/debugging.md says so)."""
    request = {"username": "johndoe", "readMask": {"paths": ["full_name"]}}
    assert json.loads(grpcurl(server, f"{SERVICE}/GetUser", data=request).stdout) == {
        "user": {"username": "johndoe", "fullName": "John Doe"}
    }
    done = grpcurl(server, f"{SERVICE}/GetUser", data=request | {"readMask": "fullName"})
    assert "bad input" in done.stderr


def test_leaves_out_what_is_unset(server: ServerProcess) -> None:
    done = grpcurl(server, f"{SERVICE}/GetUser", data={"username": "null"})
    assert json.loads(done.stdout) == {"user": {"username": "null"}}


def test_decodes_the_details_of_an_error(server: ServerProcess) -> None:
    done = grpcurl(server, f"{SERVICE}/GetUser", data={"username": "nobody"})
    assert done.returncode != 0
    assert "Code: NotFound" in done.stderr
    assert '"@type": "type.googleapis.com/google.rpc.ErrorInfo"' in done.stderr
    assert '"reason": "USER_NOT_FOUND"' in done.stderr
    assert '"@type": "type.googleapis.com/google.rpc.RequestInfo"' in done.stderr


def test_names_the_field_of_an_invalid_argument(server: ServerProcess) -> None:
    done = grpcurl(server, f"{SERVICE}/GetUser", data={"username": "x" * 234})
    assert "Code: InvalidArgument" in done.stderr
    assert '"field": "username"' in done.stderr


def test_lists_the_services(server: ServerProcess) -> None:
    assert grpcurl(server, "list").stdout.split() == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        SERVICE,
    ]


def test_describes_all_of_them_and_a_message(server: ServerProcess) -> None:
    assert grpcurl(server, "describe").stdout.count(" is a service:") == 4
    described = grpcurl(server, "describe", "userprofile.v1.User").stdout
    assert "optional string email = 2;" in described
    assert 'reserved "hashed_password", "password";' in described


def test_asks_for_health(server: ServerProcess) -> None:
    done = grpcurl(server, "grpc.health.v1.Health/Check", data={"service": SERVICE})
    assert json.loads(done.stdout) == {"status": "SERVING"}


def test_a_token_over_tls_and_a_certificate(tmp_path: Path) -> None:
    with identities.serve(tmp_path):

        def email(address: str, *options: str) -> "subprocess.CompletedProcess[str]":
            command = [os.environ["GRPCURL"], "-cacert", str(tmp_path / "ca.pem"), "-protoset", str(PROTOSET), *options]
            command += ["-d", '{"username": "johndoe"}', (tmp_path / address).read_text(), f"{SERVICE}/GetUser"]
            return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

        token = f"authorization: Bearer {(tmp_path / 'token').read_text()}"
        assert json.loads(email("tls", "-H", token).stdout)["user"]["email"] == "johndoe@example.com"
        own = "-cert", str(tmp_path / "caller.pem"), "-key", str(tmp_path / "caller.key")
        assert json.loads(email("mtls", *own).stdout) == {"user": {"username": "johndoe", "fullName": "John Doe"}}
        for done in (email("tls"), email("tls", "-H", "authorization: Bearer wrong")):
            assert done.returncode != 0
            assert "CALLER_UNKNOWN" in done.stderr
        assert email("mtls").returncode != 0
