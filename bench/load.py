"""Load generators: ghz for gRPC, vegeta for HTTP. Both are Go programs outside of the measured process."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import Server

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / ".tools" / "bin"
SERVICE = "userprofile.v1.UserProfileService"


@dataclass(frozen=True, kw_only=True)
class Load:
    """The calls to make, and their rate."""

    seconds: float = 4.0
    in_flight: int = 16
    connections: int = 4
    """The number of gRPC connections. HTTP/1.1 has one for each call in flight."""
    rate: int | None = None
    """Calls per second (open loop); None sends the next call after a response (closed loop)."""
    usernames: Sequence[str] = ("johndoe",)
    batch: int | None = None
    """Usernames per BatchGetUsers; None means GetUser."""
    options: Sequence[str] = ("--insecure",)
    """Further options of ghz: plaintext or TLS, and credentials."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The measurements of one load on one server."""

    calls: int
    rate: float
    """Completed calls per second."""
    cpu_us: float
    """The server's CPU per call, in microseconds."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    resident_mib: float
    threads: int
    switches: float
    """The server's context switches per call."""
    errors: int


def drive(server: Server, kind: str, load: Load) -> Result:
    """Runs `load` on a server of this kind, "grpc" or "http".

    Raises:
        RuntimeError: the load couldn't be run, or no call succeeded, because failed calls would look cheap.
    """
    before = server.usage()
    found = (_vegeta if kind == "http" else _ghz)(server.address, load)
    after = server.usage()
    calls = found["calls"]
    if found["errors"] == calls:
        raise RuntimeError(f"{server.address}: none of {calls} calls succeeded")
    return Result(
        cpu_us=(after.cpu_seconds - before.cpu_seconds) / calls * 1e6,
        resident_mib=after.resident_bytes / 2**20,
        threads=after.threads,
        switches=(after.context_switches - before.context_switches) / calls,
        **found,
    )


def combined(results: Sequence[Result]) -> Result:
    """Returns the combined results of servers that ran at once, with the worst of their latencies."""
    calls = sum(result.calls for result in results)
    return Result(
        calls=calls,
        rate=sum(result.rate for result in results),
        cpu_us=sum(result.cpu_us * result.calls for result in results) / calls,
        p50_ms=max(result.p50_ms for result in results),
        p95_ms=max(result.p95_ms for result in results),
        p99_ms=max(result.p99_ms for result in results),
        resident_mib=sum(result.resident_mib for result in results),
        threads=sum(result.threads for result in results),
        switches=sum(result.switches * result.calls for result in results) / calls,
        errors=sum(result.errors for result in results),
    )


def _ghz(address: str, load: Load) -> dict[str, Any]:
    if load.batch is None:
        data: Any = [{"username": name} for name in load.usernames]
    else:
        names = [load.usernames[number % len(load.usernames)] for number in range(load.batch)]
        data = [{"usernames": names}]
    command = [
        TOOLS / "ghz", *load.options, "--format", "json",
        "--proto", "protos/userprofile/v1/user_profile_service.proto", "--import-paths", "protos,build/googleapis",
        "--call", f"{SERVICE}/{'GetUser' if load.batch is None else 'BatchGetUsers'}",
        "--data", json.dumps(data if len(data) > 1 else data[0]),
        "--concurrency", load.in_flight, "--connections", min(load.connections, load.in_flight),
        "--duration", f"{load.seconds}s", "--duration-stop", "wait", "--timeout", "20s",
        *(["--rps", load.rate, "--async"] if load.rate is not None else []),
        address.rpartition("://")[2],
    ]  # fmt: skip
    report = json.loads(_run(command))
    latencies = {entry["percentage"]: entry["latency"] / 1e6 for entry in report["latencyDistribution"] or ()}
    return {
        "calls": report["count"],
        "rate": report["rps"],
        "p50_ms": latencies.get(50, 0.0),
        "p95_ms": latencies.get(95, 0.0),
        "p99_ms": latencies.get(99, 0.0),
        "errors": report["count"] - report["statusCodeDistribution"].get("OK", 0),
    }


def _vegeta(address: str, load: Load) -> dict[str, Any]:
    targets = "".join(f"GET http://{address}/users/{name}\n" for name in load.usernames)
    attack = [
        TOOLS / "vegeta", "attack", "-duration", f"{load.seconds}s", "-keepalive", "-timeout", "20s",
        *(["-rate", f"{load.rate}/s"] if load.rate is not None else ["-rate", "0", "-workers", load.in_flight]),
        "-max-workers", load.in_flight if load.rate is None else 1000,
        "-connections", max(load.in_flight, 1),
    ]  # fmt: skip
    report = json.loads(_run([TOOLS / "vegeta", "report", "-type", "json"], _run(attack, targets.encode())))
    latencies = report["latencies"]
    return {
        "calls": report["requests"],
        "rate": report["throughput"],
        "p50_ms": latencies["50th"] / 1e6,
        "p95_ms": latencies["95th"] / 1e6,
        "p99_ms": latencies["99th"] / 1e6,
        "errors": report["requests"] - report["status_codes"].get("200", 0),
    }


def _run(command: Sequence[object], stdin: bytes | None = None) -> bytes:
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, input=stdin, capture_output=True, timeout=900, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.decode()[-2000:]}")
    return done.stdout
