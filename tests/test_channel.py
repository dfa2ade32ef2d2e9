"""What a supervisor and its servers say to each other."""

import socket
import threading
from contextlib import suppress

from tests.support import WAIT
from userprofile_server.processes.channel import METRICS, PONG, Channel


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
