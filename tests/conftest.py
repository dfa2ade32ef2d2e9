import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests import canary
from tests.support import GetUser, documents_in
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import ServeSettings

pytest_plugins = ["userprofile.pytest_plugin"]


@pytest.fixture(scope="session", autouse=True)
def _watch_the_whole_run() -> Iterator[None]:
    root = logging.getLogger()
    watcher = canary.LogWatcher()
    root.addHandler(watcher)
    logging.getLogger("userprofile_server").setLevel(logging.DEBUG)
    original = grpc.insecure_channel
    grpc.insecure_channel = canary.watched(original)
    yield
    grpc.insecure_channel = original
    root.removeHandler(watcher)


@pytest.fixture(autouse=True)
def _canary_stays_unseen() -> Iterator[None]:
    yield
    seen = canary.sightings.copy()
    canary.sightings.clear()
    assert not seen, f"the hash was seen in: {', '.join(seen)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Fails a test in whose output or failure the canary stands."""
    report = yield
    if item.get_closest_marker("lets_the_canary_out"):
        return report
    places = [*report.sections, ("the failure", str(report.longrepr or ""))]
    for place, text in places:
        canary.look(place, text)
    if canary.sightings and report.when == "teardown":
        report.outcome, report.longrepr = "failed", f"the hash was seen in: {', '.join(canary.sightings)}"
        canary.sightings.clear()
    return report


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """A SQLite store without users."""
    url = f"sqlite:///{tmp_path / 'users.db'}"
    documents_in(url, {})
    return url


@pytest.fixture
def user_store_url(store_url: str) -> str:
    """A SQLite store with johndoe, and with one user for each way in which a field can be there or not."""
    documents_in(
        store_url,
        {
            "johndoe": {"email": "johndoe@example.com", "full_name": "John Doe", "disabled": False},
            "absent": {},
            "null": {"email": None, "full_name": None, "disabled": None},
            "empty": {"email": "", "full_name": "", "disabled": False},
            "true": {"disabled": True},
            "jürgen 🦊": {"full_name": "Jürgen", "admin_roles": ["superuser"], "admin_channels": None},
        },
    )
    return store_url


@pytest.fixture
def address(user_store_url: str) -> Iterator[str]:
    """The address of a running server over `user_store_url`."""
    with UserProfileServer(ServeSettings(store=user_store_url, listen="127.0.0.1:0")) as address:
        yield address


@pytest.fixture
def get_user(address: str) -> Iterator[GetUser]:
    """GetUser on the running server, by the bare stub."""
    with grpc.insecure_channel(address) as channel:
        yield GetUser(channel)


@pytest.fixture
def rows(tmp_path: Path) -> Any:
    """Writes JSON lines, given as objects or as raw text, and returns the file's path."""

    def write(*rows: object) -> Path:
        path = tmp_path / "rows.jsonl"
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"\n".join(lines) + b"\n")
        return path

    return write
