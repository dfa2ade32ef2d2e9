"""Log lines as text and as JSON, and the access log among them."""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.support import (
    WAIT,
    CallError,
    GetUser,
    ServerProcess,
    documents_in,
    eventually,
    health_stub,
    reflection_stub,
    settings_for,
)
from userprofile_server.rpc.call_log import CallLog
from userprofile_server.rpc.service import SERVICE
from userprofile_server.rpc.stages.telemetry import telemetry
from userprofile_server.security.tokens import new_token
from userprofile_server.server import UserProfileServer
from userprofile_server.telemetry import logs
from userprofile_server.telemetry.call import Call
from userprofile_server.telemetry.log_format import JsonFormatter, TextFormatter, add_call, formatter

MINE = [("x-request-id", "mine")]
CALLS = "userprofile_server.calls"


def record(message: str = "store connected", **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("userprofile_server.x", logging.WARNING, "", 1, message, None, None)
    made.created = 1795591800.9876
    vars(made).update(extra)
    add_call(made)
    return made


CALL = Call("mine", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


def test_json_is_one_object_with_what_is_known() -> None:
    assert json.loads(JsonFormatter("process 2, pid 7").format(record())) == {
        "time": "2026-11-25T07:30:00.987Z",
        "level": "WARNING",
        "logger": "userprofile_server.x",
        "message": "store connected",
        "process": "process 2, pid 7",
    }
    of_call = json.loads(JsonFormatter().format(record(call=CALL, fields={"status": "OK", "duration_ms": 0.25})))
    assert of_call["process"] == f"pid {os.getpid()}"
    assert (of_call["request_id"], of_call["trace_id"]) == ("mine", "4bf92f3577b34da6a3ce929d0e0e4736")
    assert (of_call["status"], of_call["duration_ms"]) == ("OK", 0.25)


@pytest.mark.parametrize("text", ["two\nlines", "jürgen 🦊", '"quoted"', "\ud800", "\x00\x1b[31m", "\u2028"])
def test_whatever_is_in_a_message_makes_one_line_of_json(text: str) -> None:
    line = logs._encode(JsonFormatter().format(record(text)) + "\n")
    assert line.count(b"\n") == 1
    assert json.loads(line)["message"] == text


def test_a_message_is_one_line_of_text_whatever_is_in_it() -> None:
    line = TextFormatter().format(record("a library\n2026 ERROR forged\x1b[31m\u2028\udcff"))
    assert line.endswith(r" a library\n2026 ERROR forged\x1b[31m\u2028\udcff")


def test_an_exception_is_a_field() -> None:
    try:
        raise KeyError("what")
    except KeyError:
        line = JsonFormatter().format(record(exc_info=sys.exc_info()))
    assert "\n" not in line
    exception = json.loads(line)["exception"]
    assert exception.startswith("Traceback (most recent call last):\n")
    assert exception.endswith("KeyError: 'what'")


def test_printed_lines_are_objects_too() -> None:
    found = [json.loads(line) for line in JsonFormatter().printed("Traceback\n  line\n").splitlines()]
    assert [(each["logger"], each["message"]) for each in found] == [("stderr", "Traceback"), ("stderr", "  line")]
    assert TextFormatter().printed("Traceback\n  line\n") == "Traceback\n  line\n"


def test_text_has_the_fields_behind_the_message() -> None:
    made = record("call", call=CALL, fields={"principal": "jane doe", "status": "OK", "queue_ms": 0.1})
    line = TextFormatter("process 1").format(made)
    assert line.endswith(
        'WARNING [process 1] userprofile_server.x [mine] call principal="jane doe" status=OK queue_ms=0.1'
        f" trace_id={CALL.trace_id}"
    )


@pytest.mark.parametrize(
    ("form", "on_terminal", "kind"),
    [
        ("auto", True, TextFormatter),
        ("auto", False, JsonFormatter),
        ("text", False, TextFormatter),
        ("json", True, JsonFormatter),
    ],
)
def test_auto_is_text_on_a_terminal_alone(form: str, on_terminal: bool, kind: type) -> None:
    assert type(formatter(form, None, on_terminal=on_terminal)) is kind


def test_a_server_whose_log_is_read_by_a_program_writes_json(user_store_url: str) -> None:
    documents_in(user_store_url, {"broken": {"disabled": "yes"}})
    with ServerProcess(user_store_url, "--log-calls", "1", USERPROFILE_SERVER_LOG_FORMAT="auto") as server:
        with grpc.insecure_channel(server.address) as channel:
            GetUser(channel)("johndoe", metadata=MINE)
            for _ in range(20):
                GetUser(channel).error("broken", metadata=MINE)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert not any(name in server.stderr for name in ("johndoe", "'broken'"))
    events = [json.loads(line) for line in server.stderr.splitlines()]
    assert all(event["process"] == f"pid {server.pid}" for event in events)
    assert all(datetime.fromisoformat(event["time"]).utcoffset() is not None for event in events)
    assert {event["message"] for event in events} >= {"connection 1: store connected", "stopped"}
    succeeded, failed = (event for event in events if event["logger"] == CALLS)
    assert (succeeded["level"], succeeded["message"], succeeded["request_id"]) == ("INFO", "call", "mine")
    assert (succeeded["method"], succeeded["status"]) == ("userprofile.v1.UserProfileService/GetUser", "OK")
    assert succeeded["duration_ms"] >= succeeded["queue_ms"] >= 0
    assert not {"reason", "principal", "trace_id"} & set(succeeded)
    assert (failed["status"], failed["reason"]) == ("DATA_LOSS", "CORRUPT_DOCUMENT")


Events = Callable[[int], list[logging.LogRecord]]


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Events:
    """Waits for so many lines of the access log, and returns them: a response may come before its line."""

    def wait(count: int) -> list[logging.LogRecord]:
        eventually(lambda: len(found()) >= count, lambda: str(found()))
        return found()

    def found() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == CALLS]

    return wait


def test_the_access_log_says_who_called_what_and_how_it_ended(
    user_store_url: str, tmp_path: Path, events: Events
) -> None:
    token = new_token("billing", tmp_path / "tokens")
    rules = [{"name": "all", "source": {"principals": ["token:billing"]}}]
    (tmp_path / "policy.json").write_text(json.dumps({"name": "all", "allow_rules": rules}))
    files = {"tokens": str(tmp_path / "tokens"), "policy": str(tmp_path / "policy.json")}
    with (
        UserProfileServer(settings_for(user_store_url, log_calls=1, **files)) as address,
        grpc.insecure_channel(address) as channel,
    ):
        GetUser(channel)("johndoe", metadata=[*MINE, ("authorization", f"Bearer {token}")])
        GetUser(channel).error("johndoe", metadata=MINE)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        list(
            reflection_stub(channel).ServerReflectionInfo(
                iter([request]), timeout=WAIT, metadata=[*MINE, ("authorization", f"Bearer {token}")]
            )
        )
        found = [(vars(record)["call"].request_id, vars(record)["fields"]) for record in events(3)]
    assert [request_id for request_id, _ in found] == ["mine"] * 3
    said = [{key: value for key, value in fields.items() if not key.endswith("_ms")} for _, fields in found]
    assert said == [
        {"method": "userprofile.v1.UserProfileService/GetUser", "principal": "token:billing", "status": "OK"},
        {
            "method": "userprofile.v1.UserProfileService/GetUser",
            "status": "UNAUTHENTICATED",
            "reason": "CALLER_UNKNOWN",
        },
        {
            "method": "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "principal": "token:billing",
            "status": "OK",
        },
    ]


def test_health_checks_are_logged_only_if_they_fail(user_store_url: str, events: Events) -> None:
    with (
        UserProfileServer(settings_for(user_store_url, log_calls=1)) as address,
        grpc.insecure_channel(address) as channel,
    ):
        health_stub(channel).Check(health_pb2.HealthCheckRequest(), timeout=WAIT)
        watch = health_stub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
        next(watch)
        watch.cancel()
        CallError.of(lambda: health_stub(channel).Check(health_pb2.HealthCheckRequest(service="x"), timeout=WAIT))
        GetUser(channel)("johndoe")
        statuses = [vars(record)["fields"]["status"] for record in events(2)]
    assert statuses == ["NOT_FOUND", "OK"]


@pytest.mark.parametrize(("fraction", "logged"), [(0.25, 1), (0.75, 3), (1.0, 4)])
def test_of_successful_calls_a_fraction_is_logged_and_of_failed_ones_all(
    fraction: float, logged: int, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter([0.9, 0.1, 0.5, 0.7])
    monkeypatch.setattr("userprofile_server.rpc.call_log.random.random", lambda: next(numbers))
    log = CallLog(fraction, SERVICE.methods_by_name["GetUser"])
    for _ in range(4):
        log.ended(CALL, grpc.StatusCode.OK, 0.001, 0.0)
    for _ in range(4):
        log.ended(CALL, grpc.StatusCode.NOT_FOUND, 0.001, 0.0)
    assert len(events(4 + logged)) == 4 + logged


def test_a_call_costs_nothing_for_a_log_that_is_off() -> None:
    assert telemetry([], lambda: None) is None
    assert UserProfileServer(settings_for("sqlite:///unused.db"))._call_observers() == []
