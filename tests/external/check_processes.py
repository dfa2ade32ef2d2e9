"""Processes that end, are killed or are replaced under load: `make test-processes`, and behind nginx `make test-nginx`.

No call of our client with its defaults may fail directly, and next to none through nginx. Of grpc-go with its defaults,
which doesn't repeat calls that may have been processed, it is counted how many do.

A client has one connection, and so one process that responds to it: there are several clients, each a process of its
own, so that all server processes have calls in progress when one of them goes.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.external.nginx import nginx
from tests.external.tables import printed
from tests.supervised import Supervised, send, stopped
from tests.support import WAIT, documents_in
from userprofile import UserProfileClient, UserProfileError

pytestmark = pytest.mark.timeout(600)

TIMES = int(os.environ.get("TIMES", "20"))
CLIENTS, THREADS = 4, 4
LOAD = Path(__file__).parent.parent.parent / "build" / "bench-load"


def load(target: str) -> None:
    """Makes calls until stdin is closed, and prints what became of them: the main function of a client process."""
    outcomes: Counter[str] = Counter()
    ended = threading.Event()

    def call() -> None:
        while not ended.wait(0.02):
            try:
                right = client.get_user("johndoe").full_name == "John Doe"
            except UserProfileError as error:
                outcomes[f"{time.time():.3f} {error!r}"] += 1
            else:
                outcomes["right" if right else "wrong"] += 1

    with UserProfileClient(target) as client:
        callers = [threading.Thread(target=call) for _ in range(THREADS)]
        for caller in callers:
            caller.start()
        sys.stdin.read()
        ended.set()
        for caller in callers:
            caller.join()
    print(json.dumps(outcomes))


class Clients:
    """Client processes of ours that make calls while the block lasts."""

    name = "our client"

    def __init__(self, target: str) -> None:
        code = f"from tests.external.check_processes import load; load({target!r})"
        pipe = subprocess.PIPE
        self._processes = [
            subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) for _ in range(CLIENTS)
        ]

    def outcomes(self) -> Counter[str]:
        """Ends them, and returns what became of their calls."""
        found: Counter[str] = Counter()
        for process in self._processes:
            stdout, _ = process.communicate(timeout=WAIT)
            assert process.returncode == 0
            found.update(json.loads(stdout))
        return found

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()


class GoClients:
    """Four connections of grpc-go as it is, and calls at a fixed rate."""

    name = "grpc-go with its defaults"

    def __init__(self, target: str) -> None:
        callers, seconds = f"go:{CLIENTS}:400", "3600"
        flags = ["-plain", "-address", target, "-callers", callers, "-seconds", seconds, "-deadline", "30s"]
        self._process = subprocess.Popen([LOAD, *flags], stdout=subprocess.PIPE, text=True)

    def outcomes(self) -> Counter[str]:
        """Ends them, and returns what became of their calls."""
        self._process.terminate()
        stdout, _ = self._process.communicate(timeout=WAIT)
        assert self._process.returncode == 0
        calls = json.loads(stdout)["go"]["calls"]
        return Counter({"right" if code == "OK" else code: count for code, count in calls.items()})

    def __enter__(self) -> "GoClients":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Supervised]:
    url = f"sqlite:///{tmp_path}/users.db"
    documents_in(url, {"johndoe": {"full_name": "John Doe"}})
    with Supervised(url) as server:
        server.in_log("ready: all 2 processes")
        yield server


def end_one(number: signal.Signals) -> Callable[[Supervised], None]:
    def end(server: Supervised) -> None:
        ready = server.stderr.count("ready: all 2 processes")
        send(random.choice(server.children()), number)
        server.in_log("ready: all 2 processes", times=ready + 1)

    return end


def roll(server: Supervised) -> None:
    done = server.stderr.count("all 2 processes have the new settings")
    server.signal(signal.SIGHUP)
    server.in_log("all 2 processes have the new settings", times=done + 1)


DISTURBANCES = {
    "SIGTERM to a process": end_one(signal.SIGTERM),
    "SIGHUP": roll,
    "SIGKILL to a process": end_one(signal.SIGKILL),
}


@contextmanager
def directly(server: Supervised, _: Path) -> Iterator[str]:
    yield server.address


@contextmanager
def through_nginx(server: Supervised, folder: Path) -> Iterator[str]:
    """As nginx is by default: a connection for each call."""
    with nginx(folder, f"location / {{ grpc_pass grpc://{server.address}; }}") as gateway:
        yield gateway.targets[0]


@contextmanager
def through_connections_of_nginx(server: Supervised, folder: Path) -> Iterator[str]:
    """With connections that it keeps."""
    upstream = f"upstream userprofile {{ server {server.address}; keepalive 16; }}"
    with nginx(folder, "location / { grpc_pass grpc://userprofile; }", upstreams=upstream) as gateway:
        yield gateway.targets[0]


WAYS = {"directly": directly, "nginx": through_nginx, "nginx with keepalive": through_connections_of_nginx}


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Its rows are printed at the end."""
    with printed(request, f"{TIMES} times each") as rows:
        yield rows


@pytest.mark.parametrize("clients", [Clients, GoClients])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", DISTURBANCES)
def test_no_call_of_ours_fails(
    server: Supervised,
    tmp_path: Path,
    table: list[str],
    clients: type[Clients | GoClients],
    way: str,
    what: str,
) -> None:
    with WAYS[way](server, tmp_path) as target, clients(target) as calling:
        for _ in range(TIMES):
            time.sleep(random.uniform(0.02, 0.3))
            DISTURBANCES[what](server)
        children = server.children()
        outcomes = calling.outcomes()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    stopped(children)
    right = outcomes.pop("right")
    failed = ", ".join(f"{count} {status}" for status, count in outcomes.items()) or "none"
    calls = right + outcomes.total()
    table.append(f"{calling.name:27} {way:22} {what:22} {calls:7,} calls, failed: {failed}")
    assert right > 20 * TIMES
    if clients is Clients:
        # nginx may pass on the beginning of a response and then lose the connection: gRPC repeats no such call.
        assert outcomes.total() <= (0 if way == "directly" else calls / 1000), failed
