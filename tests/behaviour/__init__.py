"""What every client has to see, in any language: `table.json` says it, and `serve` runs the server that it is about."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.couchbase_node import TestCluster
from tests.support import ServerProcess, document, eventually

TABLE = Path(__file__).parent / "table.json"

_USERS: dict[str, dict[str, object]] = {
    "johndoe": {"email": "johndoe@example.com", "full_name": "John Doe", "disabled": False},
    "absent": {},
    "null": {"email": None, "full_name": None, "disabled": None},
    "empty": {"email": "", "full_name": "", "disabled": False},
    "true": {"disabled": True},
    "jürgen 🦊": {"full_name": "Jürgen 🦊"},
    "corrupt": {"disabled": "yes"},
    "large": {"full_name": "x" * 32 * 1024},
    "down": {},
    "slow": {},
}


def cases(method: str) -> list[Any]:
    """The cases of one method."""
    table: dict[str, list[Any]] = json.loads(TABLE.read_text())
    return table[method]


@contextmanager
def serve() -> Iterator[str]:
    """Runs the server, over three nodes: one is well, one is down and one is slow. Yields its address."""
    well, down, slow = range(3)
    with TestCluster(nodes=3) as cluster:
        cluster.move_vbuckets(down, well)
        cluster.move_vbuckets(slow, well)
        cluster.assign("userprofile::down", down)
        cluster.assign("userprofile::slow", slow)
        for username, fields in _USERS.items():
            cluster.put(f"userprofile::{username}", document(username, **fields))
        credentials = {"USERPROFILE_COUCHBASE_USERNAME": "username", "USERPROFILE_COUCHBASE_PASSWORD": "password"}
        url = f"couchbase://{cluster.hosts}/default"
        with ServerProcess(url, "--store-timeout", "0.5", "--workers", "4", **credentials) as server:
            eventually(lambda: server.stderr.count("the store answers") == 4, lambda: server.stderr, timeout=30)
            cluster.stop(down)
            cluster.fault(slow, delay=10)
            yield server.address
