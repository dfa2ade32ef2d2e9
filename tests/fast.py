"""The fast lane, `make test-fast`: what starts no process and no cluster, and isn't marked `slow` or `timing`.

Nobody keeps a list of that: it is seen in the code of a test, of its fixtures, and of whatever of ours they call.
"""

import functools
import inspect
import subprocess
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import pytest

from tests import fork_server
from tests.couchbase_node import TestCluster

_EXPENSIVE = (subprocess, subprocess.Popen, subprocess.run, fork_server.start, TestCluster)


def is_fast(item: pytest.Item) -> bool:
    """Whether the fast lane takes this test."""
    if any(item.get_closest_marker(name) for name in ("slow", "timing")):
        return False
    owner = getattr(item, "cls", None)
    fixtures = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009, nothing public has them
    used = [(getattr(item, "function", None), owner), *((one.func, owner) for several in fixtures for one in several)]
    return _are_cheap(tuple(used))


@functools.cache  # a test's many cases use the same
def _are_cheap(used: tuple[tuple[Any, type | None], ...]) -> bool:
    """Whether none of these, and nothing that they call, is expensive."""
    ahead = [*used]
    seen = set()
    while ahead:
        found = ahead.pop()
        if any(found[0] is expensive for expensive in _EXPENSIVE):
            return False
        if found not in seen:
            seen.add(found)
            ahead += _used_by(*found)
    return True


@functools.cache
def _used_by(found: Any, owner: type | None) -> list[tuple[Any, type | None]]:
    """What this calls or may call. `owner` is the class whose methods it may."""
    found = inspect.unwrap(found) if isinstance(found, FunctionType) else found
    if isinstance(found, type):
        parts = [part for one in found.__mro__ if _is_ours(one) for part in vars(one).values()]
        return [(part, found) for part in parts if isinstance(part, FunctionType)]
    if not isinstance(found, FunctionType):
        return []
    scope: dict[str, Any] = {**found.__globals__, **(vars(owner) if owner else {})}
    used = [scope[name] for name in _names(found.__code__) if name in scope]
    return [(one, owner if isinstance(one, FunctionType) else None) for one in used if _is_ours(one)]


def _is_ours(found: Any) -> bool:
    return found in _EXPENSIVE or str(getattr(found, "__module__", "")).startswith("tests.")


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
