"""Judging promises about time: a busy machine proves nothing, and is reported."""

from types import SimpleNamespace
from typing import Any

import pytest
from _pytest.outcomes import Skipped

from tests import timing
from tests.canary import raises
from tests.support import WAIT


def judge(monkeypatch: pytest.MonkeyPatch, share: float) -> timing.Judge:
    monkeypatch.setattr(timing, "_PATIENCE", 0)
    monkeypatch.setattr(timing, "share_of_cores", lambda: share)
    return timing.Judge()


def ended(judge: timing.Judge, outcome: str) -> Any:
    """Has the judge see a test that ended so, and returns its report."""
    report = SimpleNamespace(when="call", outcome=outcome, failed=outcome == "failed", longrepr="late")
    hook = judge.pytest_runtest_makereport(SimpleNamespace(reportinfo=lambda: ("a.py", 1, "")))  # type: ignore[arg-type]
    next(hook)
    with raises(StopIteration):
        hook.send(report)
    return report


def summary(judge: timing.Judge) -> str:
    lines: list[str] = []
    judge.pytest_terminal_summary(SimpleNamespace(write_line=lambda line, **_: lines.append(line)))  # type: ignore[arg-type]
    (line,) = lines
    return line


def test_on_a_quiet_machine_a_broken_promise_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = judge(monkeypatch, 1.0)
    quiet.pytest_runtest_setup()
    assert ended(quiet, "passed").outcome == "passed"
    assert ended(quiet, "failed").outcome == "failed"
    assert summary(quiet) == "all 2 tests of promises about time were judged"


def test_on_a_busy_one_it_is_not_judged_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = judge(monkeypatch, 0.22)
    with raises(Skipped, match="NOT JUDGED: the machine is busy, 22% of its cores"):
        busy.pytest_runtest_setup()
    assert ended(busy, "passed").outcome == "passed"
    report = ended(busy, "failed")
    assert report.outcome == "skipped"
    assert "NOT JUDGED" in report.longrepr[2]
    assert summary(busy).startswith("NOT JUDGED: 2 of 3 tests of promises about time")


def test_the_share_of_cores_is_a_share() -> None:
    assert 0 < timing.share_of_cores() <= 1.1  # clocks aren't exact


def test_bounds_are_generous_where_nothing_is_judged() -> None:
    assert (timing.promise(3.0), timing.judging()) == (WAIT, False)
