"""What every client has to see, in any language: `table.json` says it, and `serve` runs the server that it is about."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from tests.couchbase_node import TestCluster
from tests.support import COUCHBASE_CREDENTIALS, WAIT, GetUser, ServerProcess, document, eventually, health_stub
from userprofile import reasons

TABLE = Path(__file__).parent / "table.json"

USERS: dict[str, dict[str, Any]] = {
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

FAILURES = {
    "corrupt": reasons.CORRUPT_DOCUMENT,
    "large": reasons.PROFILE_TOO_LARGE,
    "down": reasons.STORE_UNAVAILABLE,
    "slow": reasons.STORE_TIMEOUT,
}
"""Why those of them fail that do."""


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
        for username, fields in USERS.items():
            cluster.put(f"userprofile::{username}", document(username, **fields))
        url = f"couchbase://{cluster.hosts}/default"
        with (
            ServerProcess(url, "--store-timeout", "2", "--workers", "4", **COUCHBASE_CREDENTIALS) as server,
            grpc.insecure_channel(server.address) as channel,
        ):
            check, get_user = health_stub(channel).Check, GetUser(channel)
            eventually(lambda: server.stderr.count("store connected") == 4, lambda: server.stderr)
            serving = health_pb2.HealthCheckResponse.SERVING
            eventually(lambda: check(health_pb2.HealthCheckRequest(), timeout=WAIT).status == serving, "SERVING")
            cluster.stop(down)
            cluster.fault(slow, delay=600)
            eventually(lambda: get_user.error("down").reason == "STORE_UNAVAILABLE", "a node is known to be down")
            yield server.address
