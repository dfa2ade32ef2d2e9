"""The server process of a fake supervisor (fake_supervisor.py). It says what servers say, and starts at once."""

import os
import signal
import socket
import time

from userprofile_server.processes.channel import LISTENING, PING, PONG, READY, Channel, Message


def main() -> None:
    """What it does is the name of its store: `sqlite:///well`."""
    channel = Channel(socket.socket(fileno=0))
    messages = channel.receive()
    if messages is None:  # the supervisor is gone
        return
    (_, order), *others = messages
    does = order["settings"]["store"]["url"].removeprefix("sqlite:///")
    if does == "crash" or (does == "second crashes" and order["number"] == 2):
        os._exit(7)
    if does == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if does != "silent":
        channel.send(LISTENING, order["settings"]["server"]["listen"])
    if does not in ("silent", "unready"):
        channel.send(READY)
    if does in ("crash later", "crash when proven"):
        time.sleep(0.05)
        os._exit(7)
    if does == "leaves a child" and os.fork() == 0:
        time.sleep(0.2)
        os._exit(0)
    while does == "deaf":
        time.sleep(1)
    if does == "first hangs" and order["number"] == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    while does == "loops":
        pass
    if does == "closes its channel":
        channel.close()
        supervisor = os.getppid()
        while os.getppid() == supervisor:
            time.sleep(0.1)
    received: list[Message] | None = others
    while received is not None and all(kind == PING for kind, _ in received):  # other words are that it is to end
        for _ in received:
            channel.send(PONG)
        received = channel.receive()
