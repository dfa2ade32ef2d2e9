"""The log lines that the documentation quotes are lines that the server writes.

Quotes are found in blocks of lines with a level, in columns of tables that are named so, and in code of five words or
more in paragraphs about the log. `…` in them stands for what differs each time, and a number for any number.
"""

import logging
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from tests.supervised import Supervised
from tests.support import GetUser, ServerProcess, documents_in, eventually
from userprofile import UserProfileClient, UserProfileError
from userprofile_server.telemetry import logs
from userprofile_server.telemetry.log_format import TextFormatter

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "clients").glob("*/README.md"))]
SAYS = "what the log says"
GUIDE, OPERATIONS, PROCESSES, SQLITE, TRACING = (
    ROOT / "docs" / f"{name}.md" for name in ("debugging", "operations", "processes", "sqlite", "tracing")
)

_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINE = re.compile(r"^.* (?:DEBUG|INFO|WARNING|ERROR) +[\w\[].*$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_NOT_OURS = "terminate called"  # the C++ runtime's


def quotes(page: Path) -> list[str]:
    """All log lines that stand on this page, whole or in part."""
    text = page.read_text()
    found = [line for block in _BLOCK.findall(text) for line in _LINE.findall(block)]
    for paragraph in _BLOCK.sub("", text).split("\n\n"):
        if paragraph.startswith("|"):
            if SAYS in paragraph.splitlines()[0]:
                found += [code for row in table(paragraph) for code in _CODE.findall(row[SAYS])]
        elif re.search(r"\blog\b", paragraph):
            found += [code for code in _CODE.findall(paragraph) if len(code.split()) >= 5]
    return [quote for quote in found if not quote.startswith(_NOT_OURS)]


def table(paragraph: str) -> list[dict[str, str]]:
    """The rows of a table, by the names of its columns."""
    names, _, *rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in paragraph.splitlines()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def is_in(quote: str, log: list[str]) -> bool:
    pattern = re.sub(r"\d+", r"\\d+", re.escape(quote)).replace("…", ".*")
    return any(re.search(pattern, line) for line in log)


def test_pages_that_quote_the_log_are_the_three_that_are_tried_here_and_two_that_have_their_own_tests() -> None:
    assert [page for page in PAGES if quotes(page)] == [GUIDE, OPERATIONS, PROCESSES, SQLITE, TRACING]


@pytest.mark.parametrize("quote", ["… INFO … ready for anything", "… lines of the log were dropped"])
def test_a_line_that_nobody_writes_is_noticed(quote: str) -> None:
    assert not is_in(quote, ["2026-11-25 06:10:00 INFO    userprofile_server.readiness [-] ready"])


class Unwritten(logs.LogWriter):
    """Takes what is to be written, which has to be little, and gives it as lines."""

    def lines(self) -> list[str]:
        lines = []
        while not self._queue.empty():
            line = self._queue.get()
            assert line is not None
            lines.append(line.decode())
        return lines


def repeated() -> list[str]:
    """What is logged of an error of calls that goes on and on."""
    writer = Unwritten(TextFormatter())
    handler = logs._QueueHandler(writer, count_repeats=True)
    for _ in range(3):
        record = logging.LogRecord(
            "userprofile_server.rpc.stages.error_boundary", logging.WARNING, "", 1, "%s", ("x",), None
        )
        record.kind = "STORE_TIMEOUT"
        handler.handle(record)
    assert handler._repeats is not None
    for counted in handler._repeats._known.values():
        counted.since -= logs.REPEAT_SECONDS
    handler.report_repeats()
    return writer.lines()


def dropped() -> list[str]:
    """What is logged once somebody reads again."""
    writer = Unwritten(TextFormatter())
    for _ in range(20):
        writer.put(b"x" * (logs.QUEUE_BYTES + 1))
    writer.put(b"x\n")
    return writer.lines()


def test_the_debugging_guides(user_store_url: str) -> None:
    with (
        ServerProcess(user_store_url, "--log-level", "debug", "--log-calls", "1") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        GetUser(channel).error("nobody", metadata=[("x-request-id", "trace-2")])
        eventually(
            lambda: "[trace-2] call" in server.stderr, "logged"
        )  # by a thread of its own; leaving the block kills it
    log = [*server.stderr.splitlines(), *repeated(), *dropped()]
    for quote in quotes(GUIDE):
        assert is_in(quote, log), quote


def test_the_guide_to_processes(user_store_url: str) -> None:
    with Supervised(user_store_url) as server:
        server.in_log("ready: all 2 processes")
    for quote in quotes(PROCESSES):
        assert is_in(quote, server.stderr.splitlines()), quote


MANY = [f"user{number}" for number in range(3000)]


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4096 // 2 * 4096)
        file.write(bytes(2 * 4096))


def make_another_applications(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id)")


HAPPENINGS: dict[str, list[Callable[[Path], object]]] = {
    "it was moved or removed": [Path.unlink, lambda path: path.rename(path.with_name("elsewhere.db"))],
    "it was truncated to nothing": [lambda path: path.write_bytes(b"")],
    "pages of it are damaged": [damage],
    "something else was put in its place": [lambda path: path.write_text("text" * 500), make_another_applications],
}
"""What can happen to a file, by what the guide to SQLite calls it. It is done to a copy that takes the file's place."""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of many users."""
    path = tmp_path_factory.mktemp("many") / "users.db"
    documents_in(f"sqlite:///{path}", {name: {} for name in MANY})
    return path


def rows_of_the_guide_to_sqlite() -> list[dict[str, str]]:
    (found,) = [part for part in SQLITE.read_text().split("\n\n") if part.startswith("| what happened ")]
    return table(found)


def test_all_that_the_guide_to_sqlite_says_can_happen_is_tried() -> None:
    assert [row["what happened"] for row in rows_of_the_guide_to_sqlite()] == list(HAPPENINGS)


@pytest.mark.parametrize("row", rows_of_the_guide_to_sqlite(), ids=lambda row: row["what happened"])
def test_the_guide_to_sqlites(many: Path, tmp_path: Path, row: dict[str, str]) -> None:
    code, reason = re.findall(r"[A-Z_]{5,}", row["what callers get"])
    log: list[str] = []
    for happen in HAPPENINGS[row["what happened"]]:
        path, changed = tmp_path / "users.db", tmp_path / "changed.db"
        shutil.copy(many, path)
        shutil.copy(many, changed)
        with ServerProcess(f"sqlite:///{path}") as server, UserProfileClient(server.address, retries=0) as client:
            assert client.get_user("user0")
            happen(changed)
            if changed.exists():
                changed.replace(path)
            else:
                path.unlink()

            def failures(client: UserProfileClient = client) -> set[tuple[str, str | None]]:
                outcomes = [outcome for _, outcome in client.iter_users(MANY)]
                return {(error.code.name, error.reason) for error in outcomes if isinstance(error, UserProfileError)}

            eventually(lambda: failures() == {(code, reason)}, f"callers get {code}, {reason}")
        log += server.stderr.splitlines()
    quoted = _CODE.findall(row[SAYS])
    assert quoted
    for quote in quoted:
        assert is_in(quote, log), quote
