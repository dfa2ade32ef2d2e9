"""`userprofile-server top`: what it shows, and what it says if there is nothing to show."""

import io
import os
import pty
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest
from rich.console import Console

from tests.canary import raises
from tests.fork_server import BIN
from tests.scraped import metrics_address
from tests.support import WAIT, GetUser, ServerProcess, eventually, run
from userprofile_server.listen import ListenAddress
from userprofile_server.telemetry import metrics
from userprofile_server.telemetry.page import Page
from userprofile_server.telemetry.recorder import Recorder, Totals
from userprofile_server.top.figures import Figures
from userprofile_server.top.scrape import Scrape, ScrapeError, parsed, scrape
from userprofile_server.top.screen import show
from userprofile_server.top.view import view

TOP = ("top", "--interval", "1", "--metrics")


def page(*totals: Totals, at: float, **gauges: list[Any]) -> Scrape:
    """A page as it would have been read at this time; `gauges` by process."""
    text, _ = Page(totals, {name.removeprefix("process"): values for name, values in gauges.items()}).render("")
    return parsed("HOST", text.decode(), at)


def shown(figures: Figures, problem: str | None = None, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(view("HOST", figures, problem))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def lines(text: str) -> list[str]:
    """Lines with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines()]


def recorded(seconds: list[float], errors: int = 0) -> Totals:
    recorder = Recorder()
    labels = ("unary", "userprofile.v1.UserProfileService", "GetUser")
    for each in seconds:
        recorder.count((metrics.STARTED.name, *labels))
        recorder.observe((metrics.HANDLED.name, *labels, "OK"), each)
    if errors:
        recorder.count((metrics.ERRORS.name, *labels[1:], "STORE_TIMEOUT"), errors)
    recorder.count((metrics.STORE_LOSSES.name,), 0)
    return recorder.totals()


def test_rates_and_durations_are_those_between_the_pages() -> None:
    old = recorded([9.0] * 1000, errors=7)
    new = recorded([*[0.0009] * 90, *[0.03] * 10], errors=20)
    figures = Figures(page(old, at=10), page(old, new, at=20))
    assert figures.rates(metrics.STARTED) == {(): 10}
    assert figures.now(metrics.STARTED) == {(): 1100}
    assert figures.quantile(0.5, metrics.HANDLING) == pytest.approx(0.0008 + 0.0002 * 50 / 90)
    assert figures.quantile(0.99, metrics.HANDLING) == pytest.approx(0.025 + 0.005 * 9 / 10)
    text = lines(shown(figures))
    assert "GetUser 10 2.0 0.91 ms 30 ms 1,100" in text
    assert "STORE_TIMEOUT 2.0 27" in text


def test_a_server_that_was_started_anew_has_no_negative_rates() -> None:
    figures = Figures(page(recorded([0.1] * 1000), at=0), page(recorded([0.1] * 50), at=10))
    assert figures.rates(metrics.STARTED) == {(): 5}


def test_beyond_the_last_bucket_and_without_calls_there_are_durations_too() -> None:
    nothing = page(recorded([]), at=0)
    assert Figures(nothing, page(recorded([1000.0]), at=1)).quantile(0.5, metrics.HANDLING) == 100
    assert Figures(nothing, nothing).quantile(0.5, metrics.HANDLING) is None


def test_what_is_wrong_is_said() -> None:
    gauges = [
        ((metrics.READY.name,), 0.0),
        ((metrics.STORE_CONNECTED.name, "1"), 0.0),
        ((metrics.STORE_CONNECTED.name, "2"), 1.0),
        ((metrics.CERTIFICATE.name, "/old.pem"), 1.0),
        ((metrics.FILE_VALID.name, "/policy\x1b[31m.json"), 0.0),
    ]
    before, after = page(at=0), page(recorded([]), at=1, process1=gauges)
    text = shown(Figures(before, after), "HOST does not respond")
    assert "\x1b" not in text
    said = lines(text)
    assert "1 NO 1 of 2 0 of 0 0 0 % 0 MiB 0" in said
    assert "/old.pem has expired" in said
    assert r"/policy\x1b[31m.json is invalid: what was read before stays in use" in said
    assert "HOST does not respond" in said
    assert "no process serves" in lines(shown(Figures(after, before)))


def test_everything_fits_into_eighty_columns() -> None:
    many = recorded([0.01] * 999, errors=99_999_999)
    gauges = [
        ((metrics.READY.name,), 1.0),
        *(((metrics.STORE_CONNECTED.name, str(number)), 1.0) for number in range(16)),
        ((metrics.RUNNING.name,), 16.0),
        ((metrics.WORKERS.name,), 272.0),
        ((metrics.QUEUE.name,), 10_000.0),
        ((metrics.MEMORY.name,), 12_345 * 2.0**20),
        ((metrics.DESCRIPTORS.name,), 11_000.0),
        ((metrics.START.name,), 1.0),
    ]
    figures = Figures(page(at=0), page(many, at=1, process1=gauges))
    # Without the first line, which has the time of day.
    assert lines(shown(figures, width=80))[1:] == lines(shown(figures, width=200))[1:]


def test_once_prints_the_tables_of_a_running_server(user_store_url: str) -> None:
    with ServerProcess(user_store_url, "--metrics-listen=127.0.0.1:0") as server:
        with grpc.insecure_channel(server.address) as channel:
            GetUser(channel)("johndoe")
            GetUser(channel).error("nobody")
        address = metrics_address(server)
        done = run("userprofile-server", *TOP, address, "--once")
        assert (done.returncode, done.stderr) == (0, "")
        said = lines(done.stdout)
        assert said[0].startswith(f"{address} ")
        assert "GetUser 0 0 - - 2" in said
        assert "USER_NOT_FOUND 0 1" in said
        assert any(line.startswith("1 yes 4 of 4 0 of 4 0 ") for line in said)
        assert "johndoe" not in done.stdout
        by_variable = run(
            "userprofile-server", "top", "--interval=1", "--once", USERPROFILE_SERVER_METRICS_LISTEN=address
        )
        assert by_variable.returncode == 0


@contextmanager
def responding(response: bytes) -> Iterator[str]:
    """A server that sends this to whoever connects. Yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def respond() -> None:
            try:
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(response)
            except OSError:
                pass

        thread = threading.Thread(target=respond)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (b"", "does not speak HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "responds with status 404"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "has no metrics of userprofile"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 3, "does not speak HTTP"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nup 1\n", "has closed the connection"),
        (b"HTTP/1.0 200 OK\r\n\r\nup 1\n", "has no metrics of userprofile"),
        (b"HTTP/1.0 200 OK\r\n\r\n\xff\xfe{=,\n", "has no metrics of userprofile"),
    ],
)
def test_an_address_of_something_else_is_an_error(response: bytes, said: str) -> None:
    with responding(response) as address:
        done = run("userprofile-server", *TOP, address, "--once")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert address in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(
    "line",
    [
        'userprofile_queue_seconds_bucket{le="long"} 1',
        "userprofile_queue_seconds_bucket 1",
        'userprofile_queue_seconds_bucket{le="+Inf"} -5',
        'userprofile_queue_seconds_bucket{le="NaN"} 5',
        "userprofile_queue_age_seconds +Inf",
        'process_start_time_seconds{process="1"} NaN',
    ],
)
def test_numbers_that_cannot_be_are_an_error(line: str) -> None:
    with raises(ScrapeError, match=f"a wrong value of {line[:20]}"):
        parsed("HOST", f"userprofile_ready 1\n{line}\n", 0)


def test_a_page_that_does_not_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("userprofile_server.top.scrape._SECONDS", 0.2)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def respond() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                while not ended.is_set():
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

        thread = threading.Thread(target=respond)
        thread.start()
        try:
            with raises(ScrapeError, match="does not respond within"):
                scrape(ListenAddress("127.0.0.1", listener.getsockname()[1]))
        finally:
            ended.set()
            thread.join()


def test_nobody_there_and_wrong_addresses_are_errors() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        done = run("userprofile-server", *TOP, address)
    assert (done.returncode, done.stderr) == (3, f"error: {address} does not respond: Connection refused\n")
    for wrong in ("unix:/tmp/x", "localhost", "127.0.0.1:0", "127.0.0.1:99999"):
        assert run("userprofile-server", *TOP, wrong).returncode == 2


def test_a_terminal_that_cannot_move_its_cursor_has_one_look_below_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    looks = iter([page(recorded([]), at=at, process1=[((metrics.READY.name,), 1.0)]) for at in range(3)])
    monkeypatch.setattr("userprofile_server.top.screen.scrape", lambda _: next(looks))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout", output := Terminal())
    with suppress(StopIteration, RuntimeError):  # there is no fourth
        show(ListenAddress("HOST", 1), 0, once=False)
    assert output.getvalue().count("PROCESSES") == 2
    assert "\x1b[?1049h" not in output.getvalue()


def test_on_a_terminal_it_goes_on_until_ctrl_c_and_leaves_the_terminal_as_it_was(user_store_url: str) -> None:
    ours, theirs = pty.openpty()
    seen = b""
    with ServerProcess(user_store_url, "--metrics-listen=127.0.0.1:0") as server:
        command = [str(BIN / "userprofile-server"), *TOP, metrics_address(server)]
        environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)

        def read() -> None:
            nonlocal seen
            try:
                while data := os.read(ours, 65_536):
                    seen += data
            except OSError:  # it has ended
                pass

        reader = threading.Thread(target=read)
        reader.start()
        try:
            eventually(lambda: seen.count(b"PROCESSES") >= 2, lambda: f"two looks: {seen[-500:]!r}")
            server.__exit__()
            eventually(lambda: b"does not respond: Connection refused" in seen, lambda: f"said: {seen[-500:]!r}")
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) == 0
        finally:
            process.kill()
            process.wait()
            reader.join()
            os.close(ours)
    assert b"\x1b[?1049h" in seen
    assert seen.rstrip().endswith((b"\x1b[?25h", b"\x1b[?1049l"))
    assert b"Traceback" not in seen
