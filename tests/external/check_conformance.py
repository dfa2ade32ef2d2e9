"""Every client, in every language, by the cases of tests/client_conformance/table.json: `make test-conformance`.

Each language has an adapter, which reads a request per line and writes a response per line; the guide to write one is
tests/client_conformance/README.md.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.client_conformance import USERS, cases, serve
from tests.client_conformance.adapter_process import AdapterProcess

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parent.parent.parent
BUILD = ROOT / "build/conformance"
RUST = ROOT / "tests/client_conformance/rust"


class Adapter(NamedTuple):
    """How a language's adapter is built and started."""

    folder: str
    build: list[str]
    command: list[str]


PYTHON = [sys.executable, "-m", "tests.client_conformance.adapter"]
ADAPTERS = {
    "python": Adapter(".", [], PYTHON),
    "python-async": Adapter(".", [], [*PYTHON, "--async"]),
    "go": Adapter(
        "clients/go",
        ["sh", "-c", f"go generate . && go build -o {BUILD}/go ./internal/conformance"],
        [f"{BUILD}/go"],
    ),
    "node": Adapter("clients/node", [], ["node", "build/conformance/adapter.js"]),  # make has built it
    "java": Adapter("clients/java", ["mvn", "--batch-mode", "--quiet", "test-compile"], ["./conformance"]),
    "rust": Adapter(
        "tests/client_conformance/rust",
        ["cargo", "build", "--quiet", "--target-dir", f"{BUILD}/rust"],
        [f"{BUILD}/rust/debug/conformance"],
    ),
}

TIMEOUT_MS = 60_000
"""Enough for all retries, on a busy machine."""


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with serve() as address:
        yield address


# Each language on a process of its own: its cases mostly wait, for a store that doesn't respond.
@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ADAPTERS])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    """A language's adapter, built."""
    adapter = ADAPTERS[request.param]
    if adapter.build:
        done = subprocess.run(
            adapter.build, cwd=ROOT / adapter.folder, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return adapter


@pytest.fixture(scope="module")
def client(adapter: Adapter, target: str) -> Iterator[AdapterProcess]:
    process = start(adapter, target)
    yield process
    process.kill()


def start(adapter: Adapter, target: str) -> AdapterProcess:
    return AdapterProcess(adapter.command, ROOT / adapter.folder, target)


def arguments_of(case: dict[str, Any]) -> dict[str, Any]:
    given = {name: case[name] for name in ("username", "usernames", "fields") if name in case}
    return given | {"timeout_ms": int(case["timeout"] * 1000) if "timeout" in case else TIMEOUT_MS}


def assert_outcome(response: dict[str, Any], case: dict[str, Any]) -> None:
    """Asserts that a response is the user or the error of a case."""
    if "user" in case:
        assert response == {"user": case["user"]}
        return
    assert response.keys() == {"error"}
    error = without_index(response["error"])
    if "reason" not in case["error"]:  # when a deadline passes, the client may see that before the server's response
        servers = {"reason": "DEADLINE_EXCEEDED", "retryable": True}
        error = {name: value for name, value in error.items() if servers.get(name) != value}
    assert error == without_index(case["error"])


def assert_outcomes(response: dict[str, Any], case: dict[str, Any]) -> None:
    """Asserts that a response has the results of a case, or its error."""
    if "error" in response and "error" in case:
        assert_outcome(response, case)
        return
    assert response.keys() == {"results"}
    # A client may report the failure of a call for each username, and make no call for none.
    results = case.get("results") or [{"username": username, "error": case["error"]} for username in case["usernames"]]
    assert [result.get("username") for result in response["results"]] == [result["username"] for result in results]
    for actual, wanted in zip(response["results"], results, strict=True):
        assert_outcome({name: value for name, value in actual.items() if name != "username"}, wanted)


def without_index(error: dict[str, Any]) -> dict[str, Any]:
    """Clients split batches, so a server's index isn't that of the caller's list."""
    return error | ({"field": re.sub(r"s\[\d+\]$", "", str(error["field"]))} if "field" in error else {})


def names(case: dict[str, Any]) -> str:
    return str(case["case"])


@pytest.mark.timeout(900)
def test_it_starts_and_ends_with_its_input(adapter: Adapter, target: str) -> None:
    process = start(adapter, target)
    assert process.call("get_user", username="johndoe") == {"user": {"username": "johndoe", **USERS["johndoe"]}}
    assert process.end() == (0, "")


def test_it_refuses_what_it_does_not_know(adapter: Adapter, target: str) -> None:
    unknown: dict[str, dict[str, Any]] = {
        "get_user": {"username": "johndoe", "shoe_size": 46},
        "get_users": {"usernames": ["johndoe"], "timeout": 1},
        "delete_user": {"username": "johndoe"},
    }
    for method, arguments in unknown.items():
        status, stderr = start(adapter, target).refuse(method, **arguments)
        assert status == 2
        assert stderr


@pytest.mark.parametrize("case", cases("get_user"), ids=names)
def test_get_user(client: AdapterProcess, case: dict[str, Any]) -> None:
    assert_outcome(client.call("get_user", **arguments_of(case)), case)


@pytest.mark.parametrize("case", cases("batch_get_users"), ids=names)
def test_get_users(client: AdapterProcess, case: dict[str, Any]) -> None:
    assert_outcomes(client.call("get_users", **arguments_of(case)), case)


def test_get_users_takes_more_than_one_call_can(client: AdapterProcess) -> None:
    usernames = ["johndoe", "absent", "nobody"] * 100
    results = client.call("get_users", usernames=usernames, fields=["full_name"], timeout_ms=TIMEOUT_MS)["results"]
    batch = [
        {"username": "johndoe", "user": {"username": "johndoe", "full_name": "John Doe"}},
        {"username": "absent", "user": {"username": "absent"}},
        {"username": "nobody", "error": {"code": "NOT_FOUND", "reason": "USER_NOT_FOUND"}},
    ]
    assert results == batch * 100
