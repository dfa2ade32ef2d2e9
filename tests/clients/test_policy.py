"""The clients of all languages try again, ping and read as much as the Python client: its numbers, in their code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from userprofile.channel import Endpoint
from userprofile.client import DEFAULT_RETRIES

CLIENTS = Path(__file__).parent.parent.parent / "clients"

RECONNECT = {
    "go": [r"BaseDelay: +{first} \* time\.Millisecond", r"MaxDelay: +{longest} \* time\.Millisecond"],
    "node": [r"first: {first}\b", r"longest: {longest}\b"],
    "java": [r"LONGEST = Duration\.ofMillis\({longest}\)"],
}
"""Between attempts to connect again; grpc-java's first pause can't be set."""

WAITS = {
    "go": r"WaitForReady\(!config\.FailFast\)",
    "node": r"waitForReady = true",
    "java": r"if \(!failFast\) \{\s+stub = stub\.withWaitForReady\(\)",
}
"""Calls wait for a server by default."""

SOURCES = {
    "go": CLIENTS / "go/client.go",
    "node": CLIENTS / "node/src/connection.ts",
    "java": CLIENTS / "java/src/main/java/userprofile/client",
}


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    return dict(Endpoint("localhost:1", tls=None, retries=DEFAULT_RETRIES, channel_options=()).balanced)


def source(language: str) -> str:
    """Returns the code of a client's connection, without what each language writes differently."""
    path = SOURCES[language]
    files = sorted(path.glob("*.java")) if path.is_dir() else [path]
    text = "\n".join(file.read_text() for file in files)
    return re.sub(r"(?<=\d)_(?=\d)", "", text).replace('"', "")


@pytest.mark.parametrize("language", SOURCES)
def test_policy(language: str, options: dict[str, Any]) -> None:
    config = json.loads(options["grpc.service_config"])
    policy = config["methodConfig"][0]["retryPolicy"]
    code = source(language)
    for key, value in [*policy.items(), *config["retryThrottling"].items()]:
        if isinstance(value, list):
            value = ", ".join(value)
        assert re.search(rf"\b{key}[:,]\s*(\[|List\.of\()?{re.escape(str(value))}(\.0)?[\]),}}\n ]", code), (key, value)
    assert "round_robin" in code
    # A switch, off by default: what a channel's health watch is worth stands in docs/architecture.md.
    assert "healthCheckConfig" not in config
    if language != "node":  # grpc-js has no health checks on the client's side
        assert "healthCheckConfig" in code


@pytest.mark.parametrize(
    ("language", "time", "timeout", "size"),
    [
        ("go", r"keepaliveTime = {} \* time\.Second", r"Timeout: +{} \* time\.Second", "maxResponseBytes = {}"),
        ("node", "KEEPALIVE_MS = {}000", r"grpc\.keepalive_timeout_ms: {}000", "MAX_RESPONSE_BYTES = {}"),
        ("java", r"KEEPALIVE = Duration\.ofSeconds\({}\)", r"keepAliveTimeout\({},", "MAX_RESPONSE_BYTES = {}"),
    ],
)
def test_channel(language: str, time: str, timeout: str, size: str, options: dict[str, Any]) -> None:
    code = source(language)
    mebibytes, rest = divmod(options["grpc.max_receive_message_length"], 1024 * 1024)
    assert rest == 0
    assert re.search(time.format(options["grpc.keepalive_time_ms"] // 1000), code)
    assert re.search(timeout.format(options["grpc.keepalive_timeout_ms"] // 1000), code)
    # A second at most between attempts to connect again, where a language can be told at all the first pause too.
    first, longest = (options[f"grpc.{name}_reconnect_backoff_ms"] for name in ("initial", "max"))
    for pattern in RECONNECT[language]:
        assert re.search(pattern.format(first=first, longest=longest), code), pattern
    assert re.search(WAITS[language], code)
    assert re.search(size.format(rf"{mebibytes} \* 1024 \* 1024"), code)
