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

import pytest

from tests.canary import look
from tests.conformance.couchbase_mock import shared_mock
from tests.couchbase_node import TestCluster
from tests.support import ServerProcess, run

SERVICE = "userprofile.v1.UserProfileService"


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
            monkeypatch.setenv("USERPROFILE_COUCHBASE_USERNAME", credentials[0])
            monkeypatch.setenv("USERPROFILE_COUCHBASE_PASSWORD", credentials[1])
            assert run("userprofile-server", "import", "-", "--store", url, stdin=users).returncode == 0
        yield running.enter_context(ServerProcess(url))


def grpcurl(server: ServerProcess, *args: str, data: object = None) -> "subprocess.CompletedProcess[str]":
    options = [] if data is None else ["-d", json.dumps(data)]
    done = subprocess.run(
        [os.environ["GRPCURL"], "-plaintext", "-max-time", "10", *options, server.address, *args],
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
        "user": {"username": "johndoe", "email": "johndoe@example.com", "full_name": "John Doe", "disabled": False}
    }


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
