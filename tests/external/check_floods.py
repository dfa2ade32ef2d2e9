"""Attacks on their full scale, each beside callers who want to be served: `make test-floods` prints what they noticed.

Each attack is a process of its own. The callers connect before it and during it, and call ten times a second each.
"""

import statistics
import threading
import time
from collections.abc import Iterator

import grpc
import pytest

from tests.attacks import ATTACKS, STARVING, attacking
from tests.support import CallError, GetUser, ServerProcess
from tests.test_floods import resident_mib

BEFORE, DURING, AFTER = 1.0, 3.0, 0.5  # seconds
MOST_MIB = 600


class Callers:
    """Four who call from the start, and one who connects anew for each call."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self.calls: list[tuple[float, float, str]] = []
        """When each call began, how long it took, and its status."""
        self._threads = [threading.Thread(target=self._call, args=[number == 0]) for number in range(5)]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def between(self, begin: float, end: float) -> tuple[int, int, float, str]:
        """How many calls began then, how many succeeded, their 99th percentile in ms, and what the others were."""
        calls = [call for call in self.calls if begin <= call[0] < end]
        seconds = [took for _, took, status in calls if status == "OK"]
        p99 = statistics.quantiles(seconds, n=100)[98] if len(seconds) > 1 else float("nan")
        failures = sorted({status for _, _, status in calls} - {"OK"})
        return len(calls), len(seconds), p99 * 1000, ", ".join(failures)

    def _call(self, anew: bool) -> None:
        while not self._stop.is_set():
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(self._address, options=options) as channel:
                get_user = GetUser(channel)
                while not self._stop.wait(0.1):
                    began = time.monotonic()
                    status = "OK"
                    try:
                        get_user("johndoe", timeout=5)
                    except grpc.RpcError as error:
                        status = CallError(error).code.name
                    self.calls.append((began, time.monotonic() - began, status))
                    if anew:
                        break


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Its rows are printed at the end."""
    rows: list[str] = []
    yield rows
    head = f"{'attack':40} {'others':>10} {'p99 before':>11} {'during':>9} {'MiB before':>11} {'most':>6} {'after':>6}"
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + "\n".join([head, *rows]))


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_served(user_store_url: str, name: str, table: list[str]) -> None:
    _, _, scale = ATTACKS[name]
    with ServerProcess(user_store_url) as server:
        with Callers(server.address) as callers:
            time.sleep(0.3)  # they have connected
            began = time.monotonic()
            time.sleep(BEFORE)
            before = resident_mib(server.pid)
            most = before
            attacked = time.monotonic()
            with attacking(name, server.address, scale):
                while time.monotonic() < attacked + DURING:
                    most = max(most, resident_mib(server.pid))
                    time.sleep(0.05)
                ended = time.monotonic()
            time.sleep(AFTER)
            after = resident_mib(server.pid)
        _, _, p99_before, _ = callers.between(began, attacked)
        calls, succeeded, p99, failures = callers.between(attacked + 0.5, ended)
        table.append(
            f"{name:40} {succeeded:>4} of {calls:>3} {p99_before:8.1f} ms {p99:6.0f} ms"
            f" {before:11.0f} {most:6.0f} {after:6.0f} {failures}"
        )
        assert most < MOST_MIB
        assert succeeded == calls or name in STARVING
