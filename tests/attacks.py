"""Clients that take what they can of a server. Each goes on until it is told to stop, or for a minute.

python -m tests.attacks NAME HOST:PORT SCALE    until its stdin is closed
"""

import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    SETTINGS,
    Connection,
    block,
    call,
    frame,
    message,
    request_headers,
    reset,
    setting,
)  # fmt: skip
from userprofile.v1 import user_profile_service_pb2 as pb

GET_USER = b"/userprofile.v1.UserProfileService/GetUser"
BATCH = b"/userprofile.v1.UserProfileService/BatchGetUsers"
CHECK, WATCH = b"/grpc.health.v1.Health/Check", b"/grpc.health.v1.Health/Watch"
REFLECTION = b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
EVERY_METHOD = (GET_USER, BATCH, CHECK, WATCH, REFLECTION)

JOHNDOE = pb.GetUserRequest(username="johndoe").SerializeToString()
HALF_A_MESSAGE = b"\x00\x00\x00\x00\x09\x0a\x07john"
DEADLINE = (b"grpc-timeout", b"50S")
STREAMS = 100  # on a connection
_MAX_SECONDS = 60.0

Stop = threading.Event
Attack = Callable[[str, int, Stop], None]
"""Takes the address, a scale and what stops it. The scale is about the number of calls, frames or connections."""


def odd() -> Iterator[int]:
    """The numbers of a client's streams."""
    return itertools.count(1, 2)


def held(address: str, scale: int, stop: Stop, *, begin: Callable[[int], bytes], window: int | None = None) -> None:
    """Begins `scale` calls, 100 on a connection, and leaves them as they are; those that were ended are begun again."""
    opening = PREFACE + (frame(SETTINGS) if window is None else setting(INITIAL_WINDOW_SIZE, window))
    while not stop.is_set():
        with ExitStack() as stack:
            for first in range(0, scale, STREAMS):
                connection = stack.enter_context(Connection(address, opening=opening, reads=False))
                count = min(STREAMS, scale - first)
                connection.send(b"".join(begin(number) for number in itertools.islice(odd(), count)))
            stop.wait(5)


def half_sent(path: bytes, content: bytes, *more: tuple[bytes, bytes]) -> Attack:
    """Calls of which the headers and `content` are all that is sent."""

    def begin(number: int) -> bytes:
        return call(number, path, *more) + (frame(DATA, 0, number, content) if content else b"")

    return partial(held, begin=begin)


def half_sent_everywhere(address: str, scale: int, stop: Stop) -> None:
    """All methods at once, without and with deadlines, with nothing and half of a message sent."""
    kinds = itertools.cycle(itertools.product(EVERY_METHOD, (b"", HALF_A_MESSAGE), ((), (DEADLINE,))))

    def begin(number: int) -> bytes:
        path, content, more = next(kinds)
        return call(number, path, *more) + frame(DATA, 0, number, content)

    held(address, scale, stop, begin=begin)


def byte_by_byte(address: str, scale: int, stop: Stop) -> None:
    """Requests of which a byte comes from time to time."""
    with Connection(address) as connection:
        numbers = list(itertools.islice(odd(), scale))
        connection.send(b"".join(call(number, GET_USER) for number in numbers))
        for byte in itertools.chain(b"\x00\x00\x00\xff\xff", itertools.repeat(0x0A)):
            if stop.wait(0.5):
                return
            connection.send(b"".join(frame(DATA, 0, number, bytes([byte])) for number in numbers))


def sent_on_and_on(address: str, stop: Stop, parts: Callable[[], Iterable[bytes]]) -> None:
    """Sends what it is given as fast as it is taken, and connects again where the server has enough."""
    while not stop.is_set():
        with Connection(address) as connection:
            for part in parts():
                if stop.is_set() or not connection.send(part):
                    break


def rapid_reset(address: str, scale: int, stop: Stop) -> None:
    """Calls that are cancelled at once, in batches of `scale`."""

    def parts() -> Iterator[bytes]:
        numbers = odd()
        while (number := next(numbers)) < 2**30:
            batch = itertools.chain([number], itertools.islice(numbers, scale - 1))
            yield b"".join(call(each, GET_USER) + reset(each) for each in batch)

    sent_on_and_on(address, stop, parts)


def frames(one: bytes) -> Attack:
    """The same frame again and again, `scale` of them at a time."""

    def attack(address: str, scale: int, stop: Stop) -> None:
        sent_on_and_on(address, stop, lambda: itertools.repeat(one * scale))

    return attack


def endless_headers(address: str, scale: int, stop: Stop) -> None:
    """A call whose headers have no end."""
    more = frame(CONTINUATION, 0, 1, block([(b"x-%d" % number, b"x" * 100) for number in range(100)]))

    def parts() -> Iterator[bytes]:
        yield frame(HEADERS, 0, 1, block(request_headers(GET_USER)))
        yield from itertools.repeat(more * scale)

    sent_on_and_on(address, stop, parts)


def large_headers(address: str, scale: int, stop: Stop) -> None:
    """Calls with 60 KB of metadata, by a client that hasn't acknowledged the server's settings: they don't bind it."""
    large = [block([(b"x-%d" % number, b"x" * 1000) for number in range(part, part + 15)]) for part in range(0, 60, 15)]

    def begin(number: int) -> bytes:
        more = b"".join(frame(CONTINUATION, 0, number, part) for part in large)
        return (
            frame(HEADERS, 0, number, block(request_headers(GET_USER)))
            + more
            + frame(CONTINUATION, END_HEADERS, number)
        )

    held(address, scale, stop, begin=begin)


def connections(opening: bytes) -> Attack:
    """`scale` connections that send `opening` and are left open."""

    def attack(address: str, scale: int, stop: Stop) -> None:
        with ExitStack() as stack:
            for _ in range(scale):
                if stop.is_set():
                    return
                stack.enter_context(Connection(address, opening=opening, reads=False))
            stop.wait(_MAX_SECONDS)

    return attack


def garbage(address: str, scale: int, stop: Stop) -> None:
    """Connections of random bytes, some of which begin as HTTP/2 does."""
    while not stop.is_set():
        for begins in (b"", PREFACE, PREFACE + frame(SETTINGS)):
            with Connection(address, opening=begins) as connection:
                connection.send(os.urandom(scale))
                connection.closed.wait(0.1)


ATTACKS: dict[str, tuple[Attack, int, int]] = {
    # name: how, and on which scale in `make test` and in `make test-floods`
    "half-sent: 4 calls": (half_sent(GET_USER, b""), 4, 4),
    "half-sent: 64 health checks": (half_sent(CHECK, HALF_A_MESSAGE), 64, 64),
    "half-sent: all methods": (half_sent_everywhere, 500, 10_000),
    "half-sent: a byte at a time": (byte_by_byte, 50, 500),
    "half-sent: thousands of calls": (half_sent(GET_USER, b""), 2000, 10_000),
    "rapid reset": (rapid_reset, 50, 500),
    "pings": (frames(frame(PING, payload=bytes(8))), 100, 1000),
    "settings": (frames(frame(SETTINGS)), 100, 1000),
    "endless headers": (endless_headers, 1, 1),
    "large headers": (large_headers, 100, 2000),
    "responses that nobody reads": (
        partial(held, begin=lambda number: call(number, GET_USER) + message(number, JOHNDOE), window=0), 100, 5000,
    ),
    "idle connections": (connections(PREFACE + frame(SETTINGS)), 200, 9000),
    "garbage": (garbage, 1000, 100_000),
    "health watches": (partial(held, begin=lambda number: call(number, WATCH) + message(number, b"")), 500, 10_000),
    "reflection streams": (half_sent(REFLECTION, b""), 500, 5000),
}  # fmt: skip

STARVING = {"pings", "settings"}
"""Those that nothing of ours can bound. One thread of gRPC's core reads all sockets, and goes on with one as long as
more comes than it can read; others wait. docs/limits.md says what protects from it."""


@contextmanager
def attacking(name: str, address: str, scale: int) -> Iterator[None]:
    """Runs an attack as a process of its own while the block runs."""
    command = [sys.executable, "-m", "tests.attacks", name, address, str(scale)]
    folder = Path(__file__).parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"attacking\n"
            yield
        finally:
            process.kill()


def main() -> None:
    """Attacks until stdin is closed."""
    name, address, scale = sys.argv[1:]
    stop = Stop()

    def end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=end, daemon=True).start()
    threading.Timer(_MAX_SECONDS, os._exit, [1]).start()
    attack, _, _ = ATTACKS[name]
    print("attacking", flush=True)
    while not stop.is_set():
        try:
            attack(address, int(scale), stop)
        except OSError:
            stop.wait(0.1)  # the server has enough
    os._exit(0)


if __name__ == "__main__":
    main()
