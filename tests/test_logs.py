"""What stands in the log, and what may not."""

import errno
import logging
import signal
from pathlib import Path

import grpc
import pytest

from tests.support import CallError, FreshServerProcess, GetUser, ServerProcess, documents_in, eventually
from tests.test_get_user import Serve, serve  # noqa: F401, a fixture
from userprofile_server import errors
from userprofile_server.rpc.error_table import ERROR_STATUSES
from userprofile_server.telemetry import logs
from userprofile_server.telemetry.log_format import TextFormatter


def lines_of(store_url: str, level: str, kind: type[ServerProcess] = ServerProcess) -> list[str]:
    documents_in(store_url, {"broken": {"disabled": "yes"}})
    with kind(store_url, "--log-level", level) as server:
        with grpc.insecure_channel(server.address) as channel:
            get_user = GetUser(channel)
            for username in ("broken", "johndoe", "nobody"):
                try:
                    get_user(username, metadata=[("x-request-id", f"call-for-{len(username)}")])
                except grpc.RpcError:
                    pass
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        return server.stderr.splitlines()


def test_a_corrupt_document_is_logged_under_the_calls_request_id_without_the_users_name(user_store_url: str) -> None:
    lines = lines_of(user_store_url, "info")
    (line,) = (line for line in lines if "CORRUPT_DOCUMENT" in line)
    assert "WARNING" in line
    assert "[call-for-6]" in line
    assert line.endswith("CORRUPT_DOCUMENT: disabled: Input should be a valid boolean")
    assert not any(name in line for line in lines for name in ("'broken'", "johndoe", "nobody"))


def test_at_debug_level_the_operator_learns_whose_document_it_is(user_store_url: str) -> None:
    lines = lines_of(user_store_url, "debug")
    assert any("the document of 'broken' is corrupt" in line and "[call-for-6]" in line for line in lines)


def test_at_error_level_a_server_that_is_well_is_silent_and_so_is_grpc(user_store_url: str) -> None:
    assert lines_of(user_store_url, "error", FreshServerProcess) == []


def test_what_happens_again_and_again_is_logged_once_and_then_counted(user_store_url: str) -> None:
    documents_in(user_store_url, {"broken": {"disabled": "yes"}})
    with ServerProcess(user_store_url) as server:
        with grpc.insecure_channel(server.address) as channel:
            for _ in range(50):
                CallError.of(lambda: GetUser(channel)("broken"))
        eventually(lambda: "more like this" in server.stderr, lambda: server.stderr)
        first, counted = (line for line in server.stderr.splitlines() if "CORRUPT_DOCUMENT" in line)
    assert first.endswith("CORRUPT_DOCUMENT: disabled: Input should be a valid boolean")
    assert counted.endswith(
        "WARNING userprofile_server.rpc.stages.error_boundary [-] CORRUPT_DOCUMENT: 49 more like this in the last 10 s"
    )


def test_at_debug_level_every_call_has_its_line(user_store_url: str) -> None:
    documents_in(user_store_url, {"broken": {"disabled": "yes"}})
    with ServerProcess(user_store_url, "--log-level", "debug") as server:
        with grpc.insecure_channel(server.address) as channel:
            for _ in range(50):
                CallError.of(lambda: GetUser(channel)("broken"))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert server.stderr.count("CORRUPT_DOCUMENT") == 50


def test_kinds_are_counted_by_themselves_and_forgotten_when_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("userprofile_server.telemetry.logs.time.monotonic", lambda: now[0])
    repeats = logs._Repeats()

    def happens(kind: str) -> bool:
        record = logging.LogRecord("userprofile_server.x", logging.WARNING, "", 1, "%s", (kind,), None)
        record.kind = kind
        return repeats.is_first(record)

    assert [happens("A"), happens("B"), happens("A"), happens("A")] == [True, True, False, False]
    now[0] = 10
    assert [record.getMessage() for record in repeats.take()] == ["A: 2 more like this in the last 10 s"]
    assert [happens("A"), happens("B")] == [False, True]
    now[0] = 20
    assert [record.getMessage() for record in repeats.take()] == ["A: 1 more like this in the last 10 s"]
    now[0] = 40
    assert repeats.take() == []
    assert [happens("A"), happens("B")] == [True, True]


def test_of_very_many_kinds_most_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("userprofile_server.telemetry.logs.time.monotonic", lambda: now[0])
    repeats = logs._Repeats()

    def happens(kind: str, name: str = "userprofile_server.audit") -> bool:
        record = logging.LogRecord(name, logging.WARNING, "", 1, "%s", (kind,), None)
        record.kind = kind
        return repeats.is_first(record)

    written = [happens(f"caller {number} was denied") for number in range(5000)]
    assert sum(written) == logs._MOST_KINDS + 1
    assert not happens("caller 0 was denied")
    assert happens("STORE_TIMEOUT", "userprofile_server.rpc")  # a flood of one kind hides no other
    now[0] = 10
    others = 4999 - logs._MOST_KINDS
    assert [record.getMessage() for record in repeats.take()] == [
        "caller 0 was denied: 1 more like this in the last 10 s",
        f"others: {others} more like this in the last 10 s",
    ]


@pytest.mark.parametrize("kind", ERROR_STATUSES)
def test_an_error_of_the_table_leaves_the_line_that_it_promises(
    serve: Serve,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    kind: type[errors.DomainError],
) -> None:
    def fail(_timeout: float) -> None:
        raise kind("what the operator reads")

    status = ERROR_STATUSES[kind]
    get_user = serve(fail).get_user
    # The reconnecting store judges a store that fails in its own way; the line of the call is there in any case.
    reason = get_user.error("johndoe", metadata=[("x-request-id", "the-call")]).reason
    assert reason == status.reason
    levels = {record.levelno for record in caplog.records if record.getMessage().startswith(status.reason)}
    assert levels == {status.log_level}


def test_a_line_that_was_cut_off_does_not_spoil_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A full disk takes some of a line, and the next ones when there is space again."""
    space = [10]

    def write(_descriptor: int, data: bytes) -> int:
        some = data[: space[0]]
        if not some:
            raise OSError(errno.ENOSPC, "No space left on device")
        space[0] -= len(some)
        with (tmp_path / "log").open("ab") as file:
            return file.write(some)

    monkeypatch.setattr("userprofile_server.telemetry.logs.os.write", write)
    writer = logs.LogWriter(TextFormatter())
    assert [writer._send(line) for line in (b"one line\n", b"cut off\n", b"lost\n")] == [True, False, False]
    space[0] = 1000
    assert writer._send(b"another\n")
    assert (tmp_path / "log").read_text() == "one line\nc\nanother\n"
