"""Every client, in every language, by the cases of tests/client_conformance/table.json: `make test-conformance`.

Each language has an adapter, which reads a request per line and writes a response per line; the guide to write one is
tests/client_conformance/README.md.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.canary import look
from tests.client_conformance import USERS, cases, serve

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


class Process:
    """A running adapter."""

    def __init__(self, adapter: Adapter, target: str) -> None:
        self._process = subprocess.Popen(
            [*adapter.command, target],
            cwd=ROOT / adapter.folder,
            env=os.environ | {"PYTHONUTF8": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def call(self, method: str, **arguments: Any) -> Any:
        """Sends a request, and returns the response."""
        self._send({method: arguments})
        assert self._process.stdout
        line = self._process.stdout.readline()
        look("response of an adapter", line)
        assert line, self.end()
        return json.loads(line)

    def refuse(self, method: str, **arguments: Any) -> tuple[int, str]:
        """Sends an invalid request; returns the exit status and what stands on stderr."""
        self._send({method: arguments})
        return self.end()

    def end(self) -> tuple[int, str]:
        """Ends the input; returns the exit status and what stands on stderr."""
        _, stderr = self._process.communicate(timeout=60)
        return self._process.returncode, stderr

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process.stdin
        print(json.dumps(request, ensure_ascii=False), file=self._process.stdin, flush=True)


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
def client(adapter: Adapter, target: str) -> Iterator[Process]:
    process = Process(adapter, target)
    yield process
    process.kill()


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
        error = {"code": error["code"]}
    assert error == without_index(case["error"])


def without_index(error: dict[str, Any]) -> dict[str, Any]:
    """Clients split batches, so a server's index isn't that of the caller's list."""
    return error | ({"field": re.sub(r"s\[\d+\]$", "", error["field"])} if "field" in error else {})


def names(case: dict[str, Any]) -> str:
    return str(case["case"])


@pytest.mark.timeout(900)
def test_it_starts_and_ends_with_its_input(adapter: Adapter, target: str) -> None:
    process = Process(adapter, target)
    assert process.call("get_user", username="johndoe") == {"user": {"username": "johndoe", **USERS["johndoe"]}}
    assert process.end() == (0, "")


def test_it_refuses_what_it_does_not_know(adapter: Adapter, target: str) -> None:
    unknown: dict[str, dict[str, Any]] = {
        "get_user": {"username": "johndoe", "shoe_size": 46},
        "get_users": {"usernames": ["johndoe"], "timeout": 1},
        "delete_user": {"username": "johndoe"},
    }
    for method, arguments in unknown.items():
        status, stderr = Process(adapter, target).refuse(method, **arguments)
        assert status == 2
        assert stderr


@pytest.mark.parametrize("case", cases("get_user"), ids=names)
def test_get_user(client: Process, case: dict[str, Any]) -> None:
    assert_outcome(client.call("get_user", **arguments_of(case)), case)


@pytest.mark.parametrize("case", cases("batch_get_users"), ids=names)
def test_get_users(client: Process, case: dict[str, Any]) -> None:
    response = client.call("get_users", **arguments_of(case))
    if "error" in response:
        assert_outcome(response, case)
        return
    # A client may report the failure of a call for each username, and make no call for none.
    results = case.get("results") or [{"username": username, "error": case["error"]} for username in case["usernames"]]
    for actual, wanted in zip(response["results"], results, strict=True):
        assert actual.pop("username") == wanted["username"]
        assert_outcome(actual, wanted)


def test_get_users_takes_more_than_one_call_can(client: Process) -> None:
    usernames = ["johndoe", "absent", "nobody"] * 100
    results = client.call("get_users", usernames=usernames, fields=["full_name"], timeout_ms=TIMEOUT_MS)["results"]
    batch = [
        {"username": "johndoe", "user": {"username": "johndoe", "full_name": "John Doe"}},
        {"username": "absent", "user": {"username": "absent"}},
        {"username": "nobody", "error": {"code": "NOT_FOUND", "reason": "USER_NOT_FOUND"}},
    ]
    assert results == batch * 100
