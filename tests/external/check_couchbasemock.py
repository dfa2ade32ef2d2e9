"""The operator's and the caller's session against CouchbaseMock: part of `make test-couchbasemock`."""

import json

import pytest

from tests.canary import CANARY
from tests.store_contract.couchbase_mock import shared_mock
from tests.support import ServerProcess, run


def test_import_check_serve_and_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERPROFILE_SERVER_COUCHBASE_USERNAME", "default")
    monkeypatch.setenv("USERPROFILE_SERVER_COUCHBASE_PASSWORD", "any")
    url = f"couchbase://{shared_mock().host}/default"
    row = json.dumps({"username": "session", "full_name": "A Session", "hashed_password": CANARY}).encode()
    done = run("userprofile-server", "import", "-", "--store", url, stdin=row)
    assert (done.returncode, done.stdout) == (0, "1 user imported (0 replaced an older one), 0 rows rejected\n")
    assert run("userprofile-server", "check", "--store", url).stdout.endswith("ok\n")
    with ServerProcess(url) as server:
        found = run("userprofile", "get", "session", "--json", "--target", server.address)
        assert json.loads(found.stdout)["full_name"] == "A Session"
        assert run("userprofile", "get", "nobody", "--target", server.address).returncode == 3
