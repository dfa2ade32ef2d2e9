"""What a supervisor and its servers say to each other."""

import json
import os
import socket
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, cast

import pytest

from tests.support import WAIT, eventually, settings_for
from userprofile_server import signals
from userprofile_server.processes.channel import DRAIN, LISTENING, METRICS, PONG, Channel
from userprofile_server.processes.child import _Child
from userprofile_server.processes.spawned import Spawned
from userprofile_server.server import UserProfileServer
from userprofile_server.telemetry.snapshot import Snapshot


def test_a_message_may_be_larger_than_one_read_and_the_sender_gone() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(WAIT)
    received = Channel(ours)
    sender = Channel(theirs)
    large = ["x" * 1_000_000]

    def send() -> None:
        sender.send(METRICS, large)
        sender.send(PONG)
        sender.close()

    thread = threading.Thread(target=send)
    thread.start()
    messages = []
    while (some := received.receive()) is not None:
        assert some, "it waits for a whole one"
        messages += some
    thread.join()
    assert messages == [(METRICS, large), (PONG, None)]
    received.close()


def test_who_sends_without_an_end_is_gone() -> None:
    ours, theirs = socket.socketpair()
    received = Channel(ours)

    def send() -> None:
        with suppress(OSError):
            while True:
                theirs.sendall(b"x" * 65_536)

    with theirs:
        thread = threading.Thread(target=send)
        thread.start()
        assert received.receive() is None
        received.close()
        thread.join()


def test_what_has_not_come_as_a_whole_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    received = Channel(ours)
    with theirs:
        assert received.receive() == []
        theirs.sendall(b'["pong", nu')
        assert received.receive() == []
        theirs.sendall(b'll]\n["pon')
        assert received.receive() == [(PONG, None)]
    assert received.receive() is None
    received.close()


def test_a_command_that_follows_at_once_on_the_report_finds_the_server(
    user_store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise it would end without a drain."""
    ended = threading.Event()

    class Preempted(Channel):
        def send(self, kind: str, value: Any = None) -> None:
            super().send(kind, value)
            if kind == LISTENING:
                ended.wait(WAIT)

    class Events:
        def __init__(self) -> None:
            self._queue = SimpleQueue[None]()
            self.wait, self.wake = self._queue.get, lambda: self._queue.put(None)

    def supervise() -> None:
        supervisor = Channel(ours)
        while LISTENING not in dict(supervisor.receive() or [(LISTENING, None)]):
            pass
        supervisor.send(DRAIN)

    ours, theirs = socket.socketpair()
    with ours, theirs, caplog.at_level("INFO"):
        child = _Child(settings_for(user_store_url), Preempted(theirs), patient=False)
        threading.Thread(target=supervise).start()
        assert child.run([], cast("signals.Events", Events())) == 0
        ended.set()
    assert "draining: calls in progress finish" in caplog.text


def test_a_server_whose_metrics_cannot_be_read_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def snapshot(self) -> Snapshot:
            raise KeyError("a bug")

    ours, theirs = socket.socketpair()
    child = _Child(settings_for("sqlite:///unused.db"), Channel(theirs), patient=False)
    child._server = cast("UserProfileServer", Broken())
    child._send_metrics()
    assert Channel(ours).receive() == [(METRICS, None)]
    assert "the metrics can't be read" in caplog.text
    ours.close()
    theirs.close()


def test_metrics_that_cannot_be_read_leave_those_before() -> None:
    known = Snapshot()
    known.totals.counters["calls",] = 5
    reports = "".join(json.dumps([METRICS, value]) + "\n" for value in (known.to_plain(), None))
    says = f"import os, time; os.write(0, {reports.encode()!r}); time.sleep({WAIT})"
    server = Spawned(1, settings_for("sqlite:///unused.db"), command=[sys.executable, "-c", says])
    received = 0

    def both() -> bool:
        nonlocal received
        received += server.receive()
        return server.snapshot.totals.counters == {("calls",): 5} and received > 0

    eventually(both, "both reports")
    server.kill()
    server.ended(os.waitpid(server.pid, 0)[1])
    assert server.snapshot.totals.counters == {("calls",): 5}
