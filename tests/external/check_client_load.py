"""The Python clients and the command line under load, and losing servers: `make test-client-load`.

Needs Python alone, but takes minutes, so `make test` leaves it out.
"""

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.test_bursts import burst
from tests.fork_server import BIN
from tests.support import ServerProcess, documents_in
from userprofile import AsyncUserProfileClient, User, UserProfileClient

pytestmark = pytest.mark.timeout(600)

USERS = [f"user{number}" for number in range(1000)]


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('load') / 'users.db'}"
    documents_in(url, {username: {"full_name": f"Name of {username}"} for username in USERS})
    return url


@pytest.fixture
def server(store_url: str) -> Iterator[ServerProcess]:
    with ServerProcess(store_url) as server:
        yield server


class Tally:
    """What became of many calls."""

    def __init__(self, calls: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self._turns = iter(range(calls))

    def next_name(self) -> str | None:
        turn = next(self._turns, None)
        return None if turn is None else USERS[turn % len(USERS)]

    def add(self, username: str, outcome: "User | BaseException") -> None:
        right = User(username, full_name=f"Name of {username}")
        self.outcomes["right" if outcome == right else repr(outcome)] += 1


def call_by_threads(target: str, calls: int, threads: int) -> Tally:
    tally = Tally(calls)
    with UserProfileClient(target) as client:

        def call() -> None:
            while (username := tally.next_name()) is not None:
                try:
                    tally.add(username, client.get_user(username))
                except Exception as error:
                    tally.add(username, error)

        callers = [threading.Thread(target=call) for _ in range(threads)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    return tally


def call_by_tasks(target: str, calls: int, tasks: int) -> Tally:
    tally = Tally(calls)

    async def main() -> None:
        async with AsyncUserProfileClient(target, timeout=60) as client:

            async def call() -> None:
                while (username := tally.next_name()) is not None:
                    try:
                        tally.add(username, await client.get_user(username))
                    except Exception as error:
                        tally.add(username, error)

            await asyncio.gather(*(call() for _ in range(tasks)))

    asyncio.run(main())
    return tally


CALLING: dict[str, Callable[[str, int, int], Tally]] = {"threads": call_by_threads, "tasks": call_by_tasks}


@pytest.mark.parametrize(("kind", "callers"), [("threads", 16), ("threads", 200), ("tasks", 500)])
def test_losing_two_of_three_servers_costs_no_call(store_url: str, kind: str, callers: int) -> None:
    """One is killed, one is drained, and a default client makes 20,000 calls meanwhile."""
    with ServerProcess(store_url) as killed, ServerProcess(store_url) as drained, ServerProcess(store_url) as left:
        target = "ipv4:" + ",".join(server.address for server in (killed, drained, left))
        ended = threading.Event()

        def lose_them() -> None:
            time.sleep(1)
            killed.signal(signal.SIGKILL)
            time.sleep(1)
            drained.signal(signal.SIGTERM)
            assert drained.wait() == 0
            lost_in_time.append(not ended.is_set())

        lost_in_time: list[bool] = []
        losing = threading.Thread(target=lose_them)
        losing.start()
        tally = CALLING[kind](target, 20_000, callers)
        ended.set()
        losing.join()
    assert tally.outcomes == {"right": 20_000}
    assert lost_in_time == [True]


def test_ten_thousand_tasks_at_once_get_a_response_each(server: ServerProcess) -> None:
    assert burst(server.address, USERS[0], 10_000) == {"a user": 10_000}


def connections_to(address: str) -> int:
    """Established connections to a server of this machine, by its port."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    tables = (Path("/proc/net/tcp").read_text(), Path("/proc/net/tcp6").read_text())
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return sum(local.endswith(port) and state == "01" for _, local, _, state, *_ in rows)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(("kind", "callers"), [("threads", 64), ("tasks", 1000)])
def test_many_callers_share_one_connection_and_nothing_grows(server: ServerProcess, kind: str, callers: int) -> None:
    call = CALLING[kind]
    assert call(server.address, 20_000, callers).outcomes == {"right": 20_000}
    before = resident_bytes()
    seen: set[int] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            seen.add(connections_to(server.address))

    watcher = threading.Thread(target=watch)
    watcher.start()
    tally = call(server.address, 200_000, callers)
    ended.set()
    watcher.join()
    assert tally.outcomes == {"right": 200_000}
    assert max(seen) == 1
    grown = resident_bytes() - before
    print(f"{kind}: {grown / 2**20:+.1f} MiB over 200,000 calls, from {before / 2**20:.0f} MiB")
    assert grown < 0.05 * before


def run_batch(server: ServerProcess, names: Path) -> tuple[int, int, float]:
    """Returns the lines that `userprofile batch` prints, and its largest size in bytes; it has to succeed."""
    began = time.monotonic()
    with names.open() as stdin:
        process = subprocess.Popen(
            [BIN / "userprofile", "batch", "--target", server.address],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    assert process.stdout is not None
    lines = 0
    for line in process.stdout:
        result: dict[str, Any] = json.loads(line)
        assert result["username"] == result["user"]["username"] == USERS[lines % len(USERS)]
        lines += 1
    process.stdout.close()
    _, status, usage = wait4(process)
    assert status == 0
    return lines, usage.ru_maxrss * 1024, time.monotonic() - began


def wait4(process: "subprocess.Popen[bytes]") -> Any:
    ended = os.wait4(process.pid, 0)
    process.returncode = 0  # it has been waited for
    return ended


def test_batch_takes_no_more_memory_for_more_names(server: ServerProcess, tmp_path: Path) -> None:
    sizes = {}
    for count in (1_000, 100_000):
        names = tmp_path / "names"
        names.write_text("".join(f"{USERS[number % len(USERS)]}\n" for number in range(count)))
        lines, sizes[count], seconds = run_batch(server, names)
        assert lines == count
        print(f"{count:,} names: {sizes[count] / 2**20:.0f} MiB, {seconds:.1f} s")
    assert sizes[100_000] < sizes[1_000] + 8 * 2**20
