"""docs/debugging.md and the README, command by command, against a real server: part of `make test-grpcurl`."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console import ROOT, commands, log_lines, matches, problem
from tests.support import ServerProcess, eventually, run

PROGRAMS = ("grpcurl ", ".venv/bin/userprofile ")
TARGETS = ("make protoset",)
"""What a document's commands can be. `make run`, which never ends, belongs into a block of another kind."""


class Reader:
    """Does what a document says, with the demo users of `make run`."""

    def __init__(self, server: ServerProcess, nobody: str) -> None:
        self._server = server
        self._addresses = {"localhost:50051": server.address, "localhost:50052": nobody}
        self._env = {
            "PATH": f"{Path(os.environ['GRPCURL']).parent}{os.pathsep}{os.environ['PATH']}",
            "USERPROFILE_TARGET": server.address,
        }

    def problems(self, document: str) -> list[str]:
        """Runs every command. Says what isn't as the document has it."""
        for standing, real in self._addresses.items():
            document = document.replace(standing, real)
        found = []
        for command in commands(document):
            if command.text.startswith(PROGRAMS) or command.text in TARGETS:
                found.append(problem(command, self._env))
            else:
                found.append(f"line {command.line}: $ {command.text}\nis no command that can be tried here")
        found += [f"not in the server's log: {line}" for line in log_lines(document) if not self._logged(line)]
        return [text for text in found if text]

    def _logged(self, expected: str) -> bool:
        try:  # a log line may come a little later than the response
            eventually(lambda: any(matches(expected, line) for line in self._server.stderr.splitlines()), "", timeout=2)
        except AssertionError:
            return False
        return True


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    store = f"sqlite:///{tmp_path_factory.mktemp('demo') / 'demo.db'}"
    assert run("userprofile-server", "import", ROOT / "demo" / "users.jsonl", "--store", store).returncode == 0
    with socket.socket() as unused, ServerProcess(store, "--log-level", "debug", "--log-calls", "1") as server:
        unused.bind(("127.0.0.1", 0))  # taken, and nobody listens
        yield Reader(server, f"127.0.0.1:{unused.getsockname()[1]}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["README.md", "docs/debugging.md"])
def test_a_document_prints_what_really_happens(reader: Reader, name: str) -> None:
    document = (ROOT / name).read_text()
    assert commands(document)
    problems = reader.problems(document)
    assert not problems, f"{name}:\n" + "\n\n".join(problems)


LIST = """\
```console
$ grpcurl -plaintext localhost:50051 list
grpc.health.v1.Health
grpc.reflection.v1.ServerReflection
grpc.reflection.v1alpha.ServerReflection
userprofile.v1.UserProfileService
```
"""


def test_a_right_document_has_no_problems(reader: Reader) -> None:
    assert reader.problems(LIST) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("UserProfileService\n", "UserProfileServices\n", "should print"),
        ("UserProfileService\n", "UserProfileService\nanother\n", "should print"),
        ("grpc.health.v1.Health\n", "", "should print"),
        ("v1alpha", "v2", "should print"),
        ("list", "lists", "should print"),
        ("50051", "50052", "should print"),
        ("$ grpcurl", "$ grpcurl -plaintext localhost:50051 list nobody\n$ grpcurl", "fails with status 1"),
        ("$ grpcurl", "$ curl", "is no command"),
        ("$ grpcurl", "$ make run\n$ grpcurl", "is no command"),
        ("$ grpcurl", "$ make protoset run\n$ grpcurl", "is no command"),
    ],
)
def test_one_wrong_line_is_noticed(reader: Reader, old: str, new: str, says: str) -> None:
    (said,) = reader.problems(LIST.replace(old, new))
    assert says in said


def test_a_log_line_that_is_not_there_is_noticed(reader: Reader) -> None:
    assert reader.problems("```log\n… INFO … ready\n```\n") == []
    assert len(reader.problems("```log\n… INFO … ready for anything\n```\n")) == 1
