"""The stores of a run, all with the same users."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.contenders import OURS, PYTHON, Store
from bench.processes import Server


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
def running_stores(folder: Path, *, users: int = 1000, size: int = 300) -> Iterator[dict[str, Store]]:
    """Creates the stores, and yields the settings for servers on each.

    Couchbase is the test node, unless BENCH_COUCHBASE is the URL of a cluster that already has the users
    (`userprofile-server import`); its credentials are in the environment.
    """
    rows = folder / "users.jsonl"
    write_users(rows, users, size)
    url = f"sqlite:///{folder / 'users.db'}"
    sqlite = Store({"USERPROFILE_SERVER_STORE": url}, ("--store", url))
    subprocess.run([OURS, "import", rows, *sqlite.flags], check=True, capture_output=True)
    cluster = os.environ.get("BENCH_COUCHBASE")
    if cluster is not None:
        couchbase = Store({"USERPROFILE_SERVER_STORE": cluster}, ("--store", cluster))
        yield {"none": Store(), "sqlite": sqlite, "couchbase": couchbase}
        return
    with Server([PYTHON, "-m", "tests.couchbase_node", "--load", rows], {}, folder / "node.log") as node:
        password = folder / "password"
        password.write_text("password")
        couchbase = Store(
            {
                "USERPROFILE_SERVER_STORE": node.address,
                "USERPROFILE_SERVER_COUCHBASE_USERNAME": "username",
                "USERPROFILE_SERVER_COUCHBASE_PASSWORD": "password",
            },
            ("--store", node.address, "--couchbase-username", "username", "--couchbase-password-file", str(password)),
        )
        yield {"none": Store(), "sqlite": sqlite, "couchbase": couchbase}
