"""Malformed answers end the process, inside the SDK. Should this fail, a newer SDK may have mended it."""

import signal
import sys
from subprocess import run

import grpc
import pytest

from tests.couchbase_node import TestCluster
from tests.support import CallError, GetUser, ServerProcess, document

pytestmark = pytest.mark.xdist_group("faults")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("key", "std::length_error"),
        ("extras", "std::length_error"),
        ("framing", "std::length_error"),
        ("magic", "terminate called"),
        ("features", "terminate called"),
    ],
)
def test_the_program_in_the_docs_shows_it(answer: str, says: str) -> None:
    done = run([sys.executable, "docs/sdk_abort.py", answer], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGABRT, "")
    assert says in done.stderr


@pytest.mark.parametrize("part", ["key", "extras"])
def test_what_callers_and_operators_see_of_it(part: str) -> None:
    with TestCluster() as cluster:
        cluster.put("userprofile::johndoe", document("johndoe"))
        url = f"couchbase://{cluster.hosts}/default"
        credentials = {"USERPROFILE_COUCHBASE_USERNAME": "username", "USERPROFILE_COUCHBASE_PASSWORD": "password"}
        with ServerProcess(url, **credentials) as server, grpc.insecure_channel(server.address) as channel:
            get_user = GetUser(channel)
            assert get_user("johndoe").username == "johndoe"
            cluster.fault(overlong=part)
            error = CallError.of(lambda: get_user("johndoe"))
            assert error.code == grpc.StatusCode.UNAVAILABLE
            assert server.wait() == -signal.SIGABRT
            assert "terminate called after throwing an instance of 'std::length_error'" in server.stderr
        cluster.fault()
        # And what a process manager makes of it.
        with ServerProcess(url, **credentials) as server, grpc.insecure_channel(server.address) as channel:
            assert GetUser(channel)("johndoe").username == "johndoe"
