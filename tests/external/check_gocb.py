"""The test node as a second official SDK sees it: `make test-gocb`."""

import subprocess
from pathlib import Path

import pytest

from tests.couchbase_node import TestCluster

GOCB = Path(__file__).parent / "gocb"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("gocb") / "gocb"
    subprocess.run(["go", "build", "-o", built, "."], cwd=GOCB, check=True, timeout=600)
    return built


@pytest.mark.timeout(700)
@pytest.mark.parametrize("nodes", [1, 3])
def test_the_go_sdk_creates_reads_updates_and_deletes(program: Path, nodes: int) -> None:
    with TestCluster(nodes) as cluster:
        cluster.add_collection("app", "users")
        url = f"couchbase://{cluster.hosts}"
        done = subprocess.run([program, url, "username", "password"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_the_go_sdk_is_not_let_in_with_a_wrong_password(program: Path) -> None:
    with TestCluster() as cluster:
        url = f"couchbase://{cluster.hosts}"
        done = subprocess.run([program, url, "username", "wrong"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
