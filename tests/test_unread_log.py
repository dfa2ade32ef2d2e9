"""A log that nobody reads, or that can't be written, holds up no call, no drain and not the end."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.attacks import GET_USER, JOHNDOE
from tests.canary import look
from tests.fork_server import BIN
from tests.http2 import Connection, call, message
from tests.support import WAIT, CallError, GetUser, ServerProcess, bare_call, bare_stream, documents_in, eventually
from userprofile.v1 import user_profile_service_pb2 as pb
from userprofile.v1 import user_profile_service_pb2_grpc as pb_grpc

GARBAGE = b"\xff"
LONG_ID = (("x-request-id", "x" * 128),)
HEALTH = "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


@contextmanager
def serving(url: str, stderr: object, *args: str, stdout: object = subprocess.PIPE) -> "Iterator[Serving]":
    """A server whose stderr nobody reads."""
    command = [
        BIN / "userprofile-server",
        "serve",
        "--store",
        url,
        "--listen",
        "127.0.0.1:0",
        "--drain-delay",
        "0",
        "--log-format",
        "text",
        *args,
    ]
    process = subprocess.Popen(command, stdout=stdout, stderr=stderr)  # type: ignore[call-overload]
    try:
        yield Serving(process)
    finally:
        process.kill()
        process.wait(WAIT)
        if process.stdout is not None:
            process.stdout.close()


class Serving:
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        assert process.stdout is not None
        self.address = process.stdout.readline().decode().removeprefix("listening on ").strip()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT)


@contextmanager
def pipe_that_is_full() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writing, True)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


def not_found(channel: grpc.Channel) -> object:
    return CallError.of(lambda: GetUser(channel)("nobody", metadata=LONG_ID)).reason


def corrupt(channel: grpc.Channel) -> object:
    return CallError.of(lambda: GetUser(channel)("broken")).reason


def malformed(channel: grpc.Channel) -> object:
    return CallError.of(lambda: GetUser(channel).raw(GARBAGE)).reason


def garbage_to_check(channel: grpc.Channel) -> object:
    return CallError.of(lambda: bare_call(channel, f"{HEALTH}Check")(GARBAGE, timeout=WAIT)).code


def garbage_to_watch(channel: grpc.Channel) -> object:
    return CallError.of(lambda: list(bare_stream(channel, f"{HEALTH}Watch")(iter([GARBAGE]), timeout=WAIT))).code


def garbage_to_reflection(channel: grpc.Channel) -> object:
    return CallError.of(lambda: list(bare_stream(channel, REFLECTION)(iter([GARBAGE]), timeout=WAIT))).code


CALLS: list[tuple[Callable[[grpc.Channel], object], object]] = [
    (not_found, "USER_NOT_FOUND"),
    (corrupt, "CORRUPT_DOCUMENT"),
    (malformed, "MALFORMED_REQUEST"),
    (garbage_to_check, grpc.StatusCode.INVALID_ARGUMENT),
    (garbage_to_watch, grpc.StatusCode.INVALID_ARGUMENT),
    (garbage_to_reflection, grpc.StatusCode.INVALID_ARGUMENT),
]


@pytest.mark.parametrize("level", ["debug", "info"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_calls_that_fail_get_their_errors_and_the_drain_ends(store_url: str, level: str, form: str) -> None:
    documents_in(store_url, {"broken": {"disabled": "yes"}})
    flags = ["--log-level", level, "--log-format", form, "--log-calls", "1"]
    with pipe_that_is_full() as (_, full), serving(store_url, full, *flags) as server:
        with grpc.insecure_channel(server.address) as channel:
            for call, outcome in CALLS:
                assert [call(channel) for _ in range(50)] == [outcome] * 50, call.__name__
        assert server.stop() == 0


def test_dropped_lines_are_counted_and_reported_once_stderr_is_read(store_url: str) -> None:
    documents_in(store_url, {})
    users = 8000  # two megabytes of lines, of which the log keeps one
    with pipe_that_is_full() as (reading, full), serving(store_url, full, "--log-level", "debug") as server:
        with grpc.insecure_channel(server.address) as channel:
            batch = pb.BatchGetUsersRequest(usernames=[f"nobody-{number}" for number in range(100)])
            for _ in range(users // 100):
                pb_grpc.UserProfileServiceStub(channel).BatchGetUsers(batch, timeout=WAIT, metadata=LONG_ID)
        read = b""
        ended = threading.Event()

        def read_all() -> None:
            nonlocal read
            while (ready := select.select([reading], [], [], 0.01)[0]) or not ended.is_set():
                read += os.read(reading, 65536) if ready else b""

        reader = threading.Thread(target=read_all)
        reader.start()
        assert server.stop() == 0
        ended.set()
        reader.join()
    look("an unread log", read)
    dropped = re.findall(rb"WARNING userprofile_server.telemetry.logs \[-\] (\d+) log lines were dropped", read)
    assert dropped
    # A few lines belong to no call: the one about the signal, for example.
    assert users <= read.count(b"USER_NOT_FOUND") + sum(map(int, dropped)) <= users + 10


@pytest.mark.parametrize("level", ["debug", "info"])
def test_a_log_that_cannot_be_written(store_url: str, level: str) -> None:
    documents_in(store_url, {"broken": {"disabled": "yes"}})
    reading, writing = os.pipe()
    os.close(reading)
    with Path("/dev/full").open("wb") as full:
        for stderr in (full.fileno(), writing):
            with serving(store_url, stderr, "--log-level", level) as server:
                with grpc.insecure_channel(server.address) as channel:
                    for call, outcome in CALLS:
                        assert [call(channel) for _ in range(20)] == [outcome] * 20, call.__name__
                assert server.stop() == 0
    os.close(writing)


def test_a_pipe_that_another_process_has_made_non_blocking_loses_no_line(store_url: str) -> None:
    documents_in(store_url, {"johndoe": {}})
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with serving(store_url, writing, "--log-level", "debug") as server:
        os.close(writing)
        with grpc.insecure_channel(server.address) as channel:
            for _ in range(600):  # twice what fits into a pipe
                not_found(channel)
            server.process.send_signal(signal.SIGTERM)
            with os.fdopen(reading, "rb") as stream:
                read = stream.read()
            assert server.process.wait(WAIT) == 0
    assert read.count(b"USER_NOT_FOUND") == 600
    assert b"dropped" not in read


def test_ours_is_no_flag_of_others(store_url: str) -> None:
    """The flag for writing without waiting belongs to what is open, and so to all who share it."""
    documents_in(store_url, {})
    reading, writing = os.pipe()
    with serving(store_url, writing) as server:
        assert os.get_blocking(writing)
        assert server.stop() == 0
    os.close(reading)
    os.close(writing)


def test_what_others_write_behind_the_logs_back_does_not_wait_either(store_url: str) -> None:
    """gRPC's C++ code writes to the descriptor itself: a full pipe must lose its lines, and not hold it up."""
    reading, writing = os.pipe()
    with serving(store_url, writing) as server:
        flags = re.search(r"flags:\s+(\d+)", Path(f"/proc/{server.process.pid}/fdinfo/2").read_text())
        assert flags is not None
        assert int(flags[1], 8) & os.O_NONBLOCK
        assert server.stop() == 0
    os.close(reading)
    os.close(writing)


def test_a_server_whose_stdout_is_not_read_serves_and_ends(store_url: str) -> None:
    documents_in(store_url, {"johndoe": {}})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pipe_that_is_full() as (_, full):
        command = [str(BIN / "userprofile-server"), "serve", "--store", store_url, "--listen", f"127.0.0.1:{port}"]
        command += ["--drain-delay", "0"]
        process = subprocess.Popen(command, stdout=full, stderr=full)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                assert GetUser(channel)("johndoe", timeout=WAIT, wait_for_ready=True).username == "johndoe"
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT) == 0
        finally:
            process.kill()
            process.wait(WAIT)


@pytest.mark.parametrize("call", [garbage_to_check, garbage_to_watch, garbage_to_reflection, malformed])
def test_garbage_leaves_no_line_at_info(store_url: str, call: Callable[[grpc.Channel], object]) -> None:
    documents_in(store_url, {})
    with ServerProcess(store_url) as server:
        with grpc.insecure_channel(server.address) as channel:
            for _ in range(10):
                call(channel)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert all(" INFO " in line for line in server.stderr.splitlines()), server.stderr


def test_metadata_that_is_no_text_stays_out_of_the_log(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--log-level", "debug") as server:
        send_call(server.address, (b"authorization", b"Bearer secret-token-\xff\xfe"))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert "secret-token" not in server.stderr
    assert "Traceback" not in server.stderr


def test_metadata_that_is_no_text_costs_no_log_record() -> None:
    """On gRPC's own thread, for each of the hundreds of values that a call may have."""
    program = """import logging
from userprofile_server.telemetry import logs
logs.configure(logs.LogSettings())
print(logging.getLogger("grpc._cython.cygrpc").isEnabledFor(logging.ERROR))"""
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"


def send_call(address: str, *headers: tuple[bytes, bytes]) -> None:
    """A call with headers that no client library would send; returns once there is a response."""
    with Connection(address) as connection:
        connection.send(call(1, GET_USER, *headers) + message(1, JOHNDOE))
        eventually(lambda: 1 in connection.ended, "there is a response")
