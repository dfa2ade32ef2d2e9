"""Promises about time: `make test-timing` judges them, on a machine that is quiet enough to; `make test` never does.

A test that makes any is marked `timing`, and takes its bounds from `promise`. With `timing(only=True)` it says nothing
without them, and `make test` leaves it out.
"""

import os
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.support import WAIT

QUIET = 0.85
"""The share of all cores that has to be there for us. A process of others at full load leaves less, on up to six."""
_PATIENCE = 10.0
"""Seconds for which a test waits for the machine to become quiet."""

_LOOP = """if True:
    import time
    end = time.monotonic() + 0.25
    cpu = time.process_time(); began = time.monotonic()
    while time.monotonic() < end: pass
    print((time.process_time() - cpu) / (time.monotonic() - began))
"""

_judging = False


def judging() -> bool:
    """Whether promises are judged in this run."""
    return _judging


def promise(seconds: float) -> float:
    """The bound for what has to happen within `seconds`: that where promises are judged, else one against hanging."""
    return seconds if _judging else WAIT


def begin(config: pytest.Config) -> None:
    """Judges promises in this run if `--timing` says so."""
    global _judging
    _judging = config.getoption("--timing")
    if _judging:
        config.pluginmanager.register(Judge())


def wanted(item: pytest.Item) -> bool:
    """Whether this run is about the test."""
    marker = item.get_closest_marker("timing")
    return marker is not None if _judging else marker is None or not marker.kwargs.get("only")


def share_of_cores() -> float:
    """How much of all cores' time is there for us, from 0 to 1, other threads of this process included."""
    began, own = time.monotonic(), time.process_time()
    cores = os.cpu_count() or 1
    command = [sys.executable, "-S", "-c", _LOOP]
    loops = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(cores)]
    share = sum(float(loop.communicate(timeout=WAIT)[0]) for loop in loops) / cores
    return share + (time.process_time() - own) / (time.monotonic() - began) / cores


class Judge:
    """Looks, before each test and after one that fails, whether the machine can be trusted with it."""

    def __init__(self) -> None:
        self._judged = 0
        self._unjudged = 0

    def pytest_runtest_setup(self) -> None:
        """Skips the test where the machine doesn't become quiet."""
        end = time.monotonic() + _PATIENCE
        while (share := share_of_cores()) < QUIET:
            if time.monotonic() > end:
                self._unjudged += 1
                pytest.skip(_why(share))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Any:
        """Takes a failure back where the machine became busy meanwhile."""
        report = yield
        if report.when == "call":
            if report.failed and (share := share_of_cores()) < QUIET:
                self._unjudged += 1
                report.outcome, report.longrepr = "skipped", (*item.reportinfo()[:2], _why(share))
            else:
                self._judged += 1
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says how many could be judged."""
        if self._unjudged:
            terminalreporter.write_line(
                f"NOT JUDGED: {self._unjudged} of {self._judged + self._unjudged} tests of promises about time: "
                "other processes kept this machine busy. Run `make test-timing` again when it is quiet.",
                yellow=True,
            )
        else:
            terminalreporter.write_line(f"all {self._judged} tests of promises about time were judged")


def _why(share: float) -> str:
    return f"NOT JUDGED: the machine is busy, {share:.0%} of its cores are there for the test, not {QUIET:.0%}"
