"""The conformance runner itself: cases fail for wrong responses, and adapters that break off are noticed and ended."""

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.canary import raises
from tests.client_conformance import cases
from tests.client_conformance.adapter_process import AdapterError, AdapterProcess
from tests.external.check_conformance import assert_outcome, assert_outcomes

Json = dict[str, Any]


def right_response(case: Json) -> Json:
    return copy.deepcopy({name: case[name] for name in ("user", "error", "results") if name in case})


def wrong_responses(right: Any) -> Iterator[Any]:
    """Yields copies of a response with one fault each: something is missing, changed, added, or in another place."""
    yield {}
    for name, value in right.items():
        yield {other: right[other] for other in right if other != name}
        yield right | {"another": 1}
        if isinstance(value, dict):
            changed = wrong_responses(value)
        elif isinstance(value, list):
            changed = wrong_lists(value)
        elif isinstance(value, bool):
            changed = iter([not value, None])
        else:
            changed = iter([f"{value}!", value.swapcase() or "x", None])
        yield from (right | {name: other} for other in changed)


def wrong_lists(right: list[Any]) -> Iterator[Any]:
    yield from ([], right[:-1], [*right, right[0]])
    if right != right[::-1]:
        yield right[::-1]
    for place, one in enumerate(right):
        yield from ([*right[:place], other, *right[place + 1 :]] for other in wrong_responses(one))


@pytest.mark.parametrize(
    ("judge", "case"),
    [
        *(pytest.param(assert_outcome, case, id=f"get_user-{case['case']}") for case in cases("get_user")),
        *(pytest.param(assert_outcomes, case, id=f"get_users-{case['case']}") for case in cases("batch_get_users")),
    ],
)
def test_a_case_has_one_right_response(judge: Callable[[Json, Json], None], case: Json) -> None:
    right = right_response(case)
    judge(copy.deepcopy(right), case)
    for wrong in wrong_responses(right):
        with raises(AssertionError):
            judge(copy.deepcopy(wrong), case)


RIGHT = "import sys, time\nfor line in sys.stdin:\n    print('{}', flush=True)\n"


def once(then: str) -> str:
    """An adapter that responds to the first request, and to the second as it must not."""
    return f"import sys, time\nsys.stdin.readline()\nprint('{{}}', flush=True)\nsys.stdin.readline()\n{then}"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], AdapterProcess]]:
    started: list[AdapterProcess] = []

    def start(program: str) -> AdapterProcess:
        started.append(AdapterProcess([sys.executable, "-I", "-S", "-c", program], tmp_path, "localhost:1"))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.mark.xdist_group("a group")
def test_a_group_of_tests_stays_on_one_worker(request: pytest.FixtureRequest) -> None:
    """Or several would build a language's adapter in the same folder at the same time."""
    if request.config.getoption("loadgroup", False):  # in a worker of pytest-xdist
        assert request.node.nodeid.endswith("@a group")


def test_an_adapter_responds_and_ends(start: Callable[[str], AdapterProcess]) -> None:
    process = start(RIGHT)
    assert process.call("get_user") == {}
    assert process.call("get_user") == {}
    assert process.end() == (0, "")


@pytest.mark.parametrize(
    ("then", "says"),
    [
        ("sys.stderr.write('why'); sys.exit(3)", r"ended without a response, with status 3; on stderr: why"),
        ("print('{\"us', end='')", r"ended without a response after b'{\"us', with status 0"),
        ("print('garbage', flush=True); time.sleep(60)", r"no JSON in UTF-8 .*b'garbage'"),
        ("sys.stdout.buffer.write(b'\"\\xff\"\\n'); sys.stdout.flush(); time.sleep(60)", r"no JSON in UTF-8"),
        ("print('[]', flush=True); time.sleep(60)", r"no JSON object: b'\[\]'"),
        ("print('{}\\n{}', flush=True); time.sleep(60)", r"more than one line: b'{}' and b'{}"),
        ("while True: sys.stdout.write('x' * 65536)", r"a line without end: b'x"),
    ],
)
def test_an_adapter_that_breaks_off_is_said_to(start: Callable[[str], AdapterProcess], then: str, says: str) -> None:
    process = start(once(then))
    assert process.call("get_user") == {}
    with raises(AdapterError, match=says):
        process.call("get_user")
    with raises(AdapterError, match=rf"in an earlier case, .*{says}"):
        process.call("get_user")


@pytest.mark.parametrize("then", ["time.sleep(60)", "while True: sys.stderr.write('x' * 65536)"])
def test_one_that_hangs_is_ended(start: Callable[[str], AdapterProcess], then: str) -> None:
    process = start(once(then))
    assert process.call("get_user") == {}
    process.response_seconds = 0.2
    with raises(AdapterError, match=r"did not respond, or end, within 0.2 s"):
        process.call("get_user")


def test_one_that_writes_much_to_stderr_is_not_stuck(start: Callable[[str], AdapterProcess]) -> None:
    process = start(f"{RIGHT}    sys.stderr.write('x' * 1_000_000)\n")
    for _ in range(3):
        assert process.call("get_user") == {}
    status, stderr = process.end()
    assert (status, set(stderr)) == (0, {"x"})


def test_one_that_has_ended_before_a_request_is_said_to(start: Callable[[str], AdapterProcess]) -> None:
    with raises(AdapterError, match="ended without a response, with status 1"):
        start("import sys; sys.stdin.close(); sys.exit(1)").call("get_user")


def test_an_invalid_request_gets_no_response(start: Callable[[str], AdapterProcess]) -> None:
    assert start("import sys; sys.stdin.readline(); sys.exit('no')").refuse("no") == (1, "no\n")
    with raises(AdapterError, match="wrote a line without a request: b'{}"):
        start(RIGHT).refuse("no")
