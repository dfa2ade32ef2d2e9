import gc
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests import canary, fast, timing
from tests.client_conformance import USERS
from tests.support import GetUser, documents_in, settings_for
from userprofile_server.server import UserProfileServer

pytest_plugins = ["userprofile.pytest_plugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--timing", action="store_true", help="judge the promises about time, and run no other test")
    parser.addoption("--fast", action="store_true", help="leave out what starts a process or a cluster")


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]  # or the servers of these tests would send spans to the shell's collector
    timing.begin(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def wanted(item: pytest.Item) -> bool:
        return timing.wanted(item) and (not only_fast or fast.is_fast(item))

    only_fast = config.getoption("--fast")
    kept: dict[bool, list[pytest.Item]] = {True: [], False: []}
    for item in items:
        kept[wanted(item)].append(item)
    config.hook.pytest_deselected(items=kept[False])
    items[:] = kept[True]


def pytest_collection_finish() -> None:
    """Spares what is there now, modules and all tests, each garbage collection: some tests ask for many."""
    gc.collect()
    gc.freeze()


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
    assert not seen, f"a secret was seen in: {', '.join(seen)}"


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
        report.outcome, report.longrepr = "failed", f"a secret was seen in: {', '.join(canary.sightings)}"
        canary.sightings.clear()
    return report


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names data by its size: archives have the time in them, and all test processes have to find the same tests."""
    return f"{len(val)} bytes" if isinstance(val, bytes) and len(val) > 16 else None


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """A SQLite store without users."""
    url = f"sqlite:///{tmp_path / 'users.db'}"
    documents_in(url, {})
    return url


def put_users(store_url: str) -> None:
    """Stores johndoe, and one user for each way in which a field can be there or not."""
    documents_in(
        store_url,
        {
            **{username: USERS[username] for username in ("johndoe", "absent", "null", "empty", "true")},
            "jürgen 🦊": {"full_name": "Jürgen", "admin_roles": ["superuser"], "admin_channels": None},
        },
    )


@pytest.fixture
def user_store_url(store_url: str) -> str:
    """A SQLite store with johndoe, and with one user for each way in which a field can be there or not."""
    put_users(store_url)
    return store_url


@pytest.fixture
def address(user_store_url: str) -> Iterator[str]:
    """The address of a running server over `user_store_url`."""
    with UserProfileServer(settings_for(user_store_url)) as address:
        yield address


@pytest.fixture(scope="module")
def shared_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server over the same users, for tests of one module that leave it as it is."""
    url = f"sqlite:///{tmp_path_factory.mktemp('shared') / 'users.db'}"
    put_users(url)
    with UserProfileServer(settings_for(url)) as address:
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
