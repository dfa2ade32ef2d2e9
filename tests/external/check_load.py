"""More calls than a server can serve, by an open loop: `make test-load` prints what becomes of them.

People judge the figures, which depend on the machine. What must never happen fails: health checks that get no response,
a server that isn't as before after the load, and memory that grows without a bound. Nothing is judged on a machine on
which other programs leave the server too little for half of what it can serve.
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.contenders import OURS
from bench.processes import Server, cores_apart
from bench.stores import running_stores
from tests.external.tables import printed
from tests.test_floods import resident_mib

SECONDS = float(os.environ.get("SECONDS", "4"))
AFTER = 6  # seconds at a tenth of the rate, within which all has to be as before
MOST_MIB = 600
MOST_SECONDS_WITHOUT_HEALTH = 3  # Kubernetes' failureThreshold, at a probe a second
LOAD = Path(__file__).parent.parent.parent / "build" / "bench-load"

pytestmark = pytest.mark.timeout(600 + 20 * SECONDS)


class Loaded:
    """What became of a load."""

    def __init__(self, server: Server, callers: str, seconds: float, after: float = 0) -> None:
        """`callers` are NAME:CONNECTIONS:CALLS_PER_SECOND, separated by commas."""
        self._seconds = seconds
        self.most_mib = 0.0
        ended = threading.Event()
        watching = threading.Thread(target=self._watch_memory, args=(server.family(), ended))
        watching.start()
        flags = ["-address", server.address, "-callers", callers, "-seconds", str(seconds), "-after", str(after)]
        done = subprocess.run([LOAD, *flags], capture_output=True, text=True, check=True)
        ended.set()
        watching.join()
        self._summaries: dict[str, Any] = json.loads(done.stdout)

    def _watch_memory(self, pids: list[int], ended: threading.Event) -> None:
        while not ended.wait(0.1):
            self.most_mib = max(self.most_mib, sum(map(resident_mib, pids)))

    def offered(self, caller: str = "one") -> float:
        """Calls a second that were made."""
        return float(sum(self._summaries[caller]["begun"][: int(self._seconds)])) / int(self._seconds)

    def served(self, caller: str = "one") -> float:
        """Calls a second that succeeded."""
        return float(sum(self._summaries[caller]["succeeded"][: int(self._seconds)])) / int(self._seconds)

    def p99(self, caller: str = "one") -> float:
        """The 99th percentile of the latency of calls that succeeded, in milliseconds."""
        return float(self._summaries[caller]["ok_ms"].get("p99", float("nan")))

    def longest_health_check(self) -> float:
        """In milliseconds."""
        return float(self._summaries["health"]["ok_ms"].get("max", float("nan")))

    def seconds_without_health(self) -> int:
        """The longest time in which no health check succeeded."""
        longest = now = 0
        for begun, succeeded in zip(
            self._summaries["health"]["begun"], self._summaries["health"]["succeeded"], strict=True
        ):
            now = now + 1 if begun and not succeeded else 0
            longest = max(longest, now)
        return longest

    def recovered_after(self, caller: str = "one") -> int | None:
        """The first second after the load in which all calls succeeded, if there is one."""
        one = self._summaries[caller]
        seconds = list(zip(one["begun"], one["succeeded"], strict=True))[int(self._seconds) :]
        return next((number for number, (begun, right) in enumerate(seconds) if begun and right == begun), None)


def judge_only_if_served(found: Loaded, *callers: str) -> None:
    """Skips a test whose server doesn't even get to the calls that it has shown it can serve."""
    for caller in callers:
        if (share := found.served(caller) / found.offered(caller)) < 0.9:
            pytest.skip(f"other programs keep this machine too busy: {share:.0%} of a light load were served")


@pytest.fixture(scope="module", params=["sqlite", "couchbase"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def server(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("load")
    with running_stores(folder) as stores:
        command = [str(OURS), "serve", "--listen", "127.0.0.1:0", *stores[store].flags]
        with Server(command, {}, folder / "log") as running, cores_apart([running]):
            yield running


@pytest.fixture(scope="module")
def peak(server: Server) -> float:
    """The calls a second that it can serve."""
    served, rate = [0.0], 1000.0
    while rate < 4 * max(served) or len(served) < 3:
        served.append(Loaded(server, f"one:16:{rate}", 2).served())
        rate *= 1.5
    return max(served)


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Its rows are printed at the end."""
    with printed(request) as rows:
        yield rows


def test_more_and_more_calls(store: str, server: Server, peak: float, table: list[str]) -> None:
    table.append(f"{store}: peak {peak:,.0f} calls/s; each row for {SECONDS:g} s; p99 of calls that succeeded")
    table.append("  of peak offered/s  served/s  ÷ peak   p99 ms  ÷ at half  health: longest ms     MiB  normal after")
    half: float | None = None
    for factor in (0.5, 1, 1.5, 3, 5):
        found = Loaded(server, f"one:16:{factor * peak}", SECONDS, AFTER)
        if half is None:
            judge_only_if_served(found, "one")
            half = found.p99()
        recovered = found.recovered_after()
        table.append(
            f"{factor:8g} {found.offered():10,.0f} {found.served():9,.0f} {found.served() / peak:7.2f}"
            f" {found.p99():8.0f} {found.p99() / half:10.1f} {found.longest_health_check():19.0f} {found.most_mib:7.0f}"
            f" {'never' if recovered is None else f'{recovered} s':>13}"
        )
        assert found.seconds_without_health() < MOST_SECONDS_WITHOUT_HEALTH
        assert recovered is not None
        assert found.most_mib < MOST_MIB


def test_one_of_three_callers_floods(server: Server, peak: float, table: list[str]) -> None:
    callers = f"one:4:{peak / 6},two:4:{peak / 6}"
    table.append("  callers              one: served     p99 ms    two: served     p99 ms  health: longest ms")
    for name, more in (("two", ""), ("and one floods", f",flood:16:{3 * peak}")):
        found = Loaded(server, callers + more, SECONDS, AFTER)
        row = "".join(
            f" {found.served(each) / found.offered(each):15.0%} {found.p99(each):10.0f}" for each in ("one", "two")
        )
        if not more:
            judge_only_if_served(found, "one", "two")
        table.append(f"  {name:16}{row} {found.longest_health_check():19.0f}")
        assert found.seconds_without_health() < MOST_SECONDS_WITHOUT_HEALTH
        assert found.recovered_after() is not None
        assert found.most_mib < MOST_MIB
