"""What the fast lane takes."""

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tests import fast
from tests.support import ServerProcess, document, run


def calls_nothing() -> None:
    assert document("johndoe")


class SomeServer(ServerProcess):
    """Inherits what it does."""


def runs() -> None:
    run("userprofile", "--help")


@contextmanager
def serving() -> Any:
    with ServerProcess("sqlite://") as server:
        yield server


class Group:
    def helper(self) -> None:
        runs()

    def calls_it(self) -> None:
        (lambda: self.helper())()


def item(function: Any, *fixtures: Any, marks: tuple[str, ...] = (), cls: type | None = None) -> Any:
    known = {str(number): [SimpleNamespace(func=fixture)] for number, fixture in enumerate(fixtures)}
    return SimpleNamespace(
        function=function,
        cls=cls,
        _fixtureinfo=SimpleNamespace(name2fixturedefs=known),
        get_closest_marker=lambda name: name in marks or None,
    )


def test_takes_what_stays_in_this_process() -> None:
    assert fast.is_fast(item(calls_nothing, calls_nothing))


@pytest.mark.parametrize(
    "slow",
    [
        item(runs),
        item(lambda: runs()),
        item(lambda: SomeServer("sqlite://")),
        item(calls_nothing, serving),
        item(Group.calls_it, cls=Group),
        item(calls_nothing, marks=("slow",)),
        item(calls_nothing, marks=("timing",)),
    ],
)
def test_leaves_out_what_starts_a_process_by_whatever_way(slow: Any) -> None:
    assert not fast.is_fast(slow)
