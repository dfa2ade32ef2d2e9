"""Malformed responses abort the process, inside the SDK. If this fails, a newer SDK may have fixed it."""

import signal
import sys
from contextlib import suppress
from subprocess import run

import grpc
import pytest

from tests.couchbase_node import TestCluster
from tests.support import (
    COUCHBASE_CREDENTIALS,
    TIME_TO_CONNECT,
    CallError,
    GetUser,
    ServerProcess,
    document,
    eventually,
)
from userprofile.v1 import user_profile_pb2 as user_pb

ENVIRONMENT = COUCHBASE_CREDENTIALS | TIME_TO_CONNECT
pytestmark = pytest.mark.xdist_group("faults")


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ("key", "std::length_error"),
        ("extras", "std::length_error"),
        ("framing", "std::length_error"),
        ("magic", "terminate called"),
        ("features", "terminate called"),
    ],
)
def test_the_program_in_the_docs_shows_it(response: str, says: str) -> None:
    done = run([sys.executable, "docs/sdk_abort.py", response], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGABRT, "")
    assert says in done.stderr


def once_connected(get_user: GetUser) -> user_pb.User:
    """Reads johndoe. On a busy machine a server listens before its connections are made."""
    found: list[user_pb.User] = []

    def read() -> list[user_pb.User]:
        with suppress(grpc.RpcError):
            found.append(get_user("johndoe"))
        return found

    eventually(read, "the store is connected")
    return found[0]


@pytest.mark.parametrize("part", ["key", "extras"])
def test_what_callers_and_operators_see_of_it(part: str) -> None:
    with TestCluster() as cluster:
        cluster.put("userprofile::johndoe", document("johndoe"))
        url = f"couchbase://{cluster.hosts}/default"
        with (
            ServerProcess(url, **ENVIRONMENT) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            get_user = GetUser(channel)
            assert once_connected(get_user).username == "johndoe"
            cluster.fault(overlong=part)
            error = CallError.of(lambda: get_user("johndoe"))
            assert error.code == grpc.StatusCode.UNAVAILABLE
            assert server.wait() == -signal.SIGABRT
            assert "terminate called after throwing an instance of 'std::length_error'" in server.stderr
        cluster.fault()
        # A process manager restarts the server.
        with (
            ServerProcess(url, **ENVIRONMENT) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            assert once_connected(GetUser(channel)).username == "johndoe"
