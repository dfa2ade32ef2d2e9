"""The trace that a caller says its call belongs to, in the log of the server."""

import json
import signal

import grpc
import pytest

from tests.support import GetUser, ServerProcess
from userprofile_server.telemetry.trace_context import is_valid

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALID = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "traceparent", [VALID, f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01", f"01-{TRACE}-{PARENT}-01-and-more"]
)
def test_a_traceparent_is_valid(traceparent: str) -> None:
    assert is_valid(traceparent)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        f"ff-{TRACE}-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}0-{PARENT}-01",
        f"00-{TRACE}-{PARENT[1:]}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-0g",
        f"00-{TRACE}-{PARENT}",
        f"{VALID}-and-more",
        f"{VALID}-",
        f"01-{TRACE}-{PARENT}-01and-more",
        f" {VALID}",
        f"{VALID}\n",
        VALID.replace("-", "_"),
        VALID.replace("4", "٤"),
    ],
)
def test_any_other_is_not(traceparent: str) -> None:
    assert not is_valid(traceparent)


def test_each_line_of_a_call_has_its_trace_id(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--log-level", "debug", "--log-format", "json", "--log-calls", "1") as server:
        with grpc.insecure_channel(server.address) as channel:
            for request_id, traceparent in {"one": VALID, "wrong": VALID.upper(), "none": None}.items():
                sent = [] if traceparent is None else [("traceparent", traceparent)]
                GetUser(channel).error("nobody", metadata=[("x-request-id", request_id), *sent])
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    events = [json.loads(line) for line in server.stderr.splitlines()]
    found = [(event["request_id"], event.get("trace_id")) for event in events if "request_id" in event]
    assert found == [("one", TRACE)] * 2 + [("wrong", None)] * 2 + [("none", None)] * 2
