"""The stores of a run, each with the same users in it."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.peers import OURS, PYTHON
from bench.processes import Server

NODE_CREDENTIALS = {"USERPROFILE_COUCHBASE_USERNAME": "username", "USERPROFILE_COUCHBASE_PASSWORD": "password"}


def write_users(path: Path, count: int, size: int) -> None:
    """Writes `count` users, johndoe and then user1, user2 and so on, as documents of about `size` bytes."""
    with path.open("w") as file:
        for number in range(count):
            username = f"user{number}" if number else "johndoe"
            user = {
                "username": username,
                "email": f"{username}@example.com",
                "full_name": "John Doe",
                "disabled": False,
                "type": "userprofile",
                "hashed_password": "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaA",
            }
            padding = size - len(json.dumps(user)) - len(', "admin_channels": ""')
            if padding > 0:
                user["admin_channels"] = "x" * padding
            file.write(json.dumps(user) + "\n")


@contextmanager
def running_stores(folder: Path, *, users: int = 1000, size: int = 300) -> Iterator[dict[str, dict[str, str]]]:
    """Makes the stores and yields for each the environment of a server that reads it.

    Couchbase is the test node, unless USERPROFILE_BENCH_COUCHBASE is the URL of a cluster that has the users already
    (`userprofile-server import`), with its credentials in the environment.
    """
    rows = folder / "users.jsonl"
    write_users(rows, users, size)
    sqlite = {"USERPROFILE_STORE": f"sqlite:///{folder / 'users.db'}"}
    subprocess.run([OURS, "import", rows], env=os.environ | sqlite, check=True, capture_output=True)
    cluster = os.environ.get("USERPROFILE_BENCH_COUCHBASE")
    if cluster is not None:
        yield {"none": {}, "sqlite": sqlite, "couchbase": {"USERPROFILE_STORE": cluster}}
        return
    with Server([PYTHON, "-m", "tests.couchbase_node", "--load", rows], {}, folder / "node.log") as node:
        couchbase = {"USERPROFILE_STORE": node.address, **NODE_CREDENTIALS}
        yield {"none": {}, "sqlite": sqlite, "couchbase": couchbase}
