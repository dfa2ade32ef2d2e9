"""Clients that leave their calls open: one that grants the server no room to send, and one that sends no more."""

from tests.attacks import WATCH
from tests.http2 import DATA, HEADERS, INITIAL_WINDOW_SIZE, PREFACE, Connection, call, frame, message, setting
from tests.support import eventually


class SlowReader(Connection):
    """One connection with one health watch on it, from which nothing can be received."""

    def __init__(self, address: str) -> None:
        super().__init__(address, opening=PREFACE + setting(INITIAL_WINDOW_SIZE, 0), acknowledges=True)
        self.send(call(1, WATCH) + message(1, b""))
        # Response headers take no room; they tell that the watch is open.
        eventually(lambda: self.received[HEADERS], "the watch is open")

    @property
    def told_that_the_connection_closes(self) -> bool:
        return bool(self.goodbye)


class OpenStreams(Connection):
    """One connection with many calls on it, of which `sent` is all that is heard after their headers."""

    def __init__(self, address: str, path: bytes, count: int, sent: bytes = b"") -> None:
        super().__init__(address)
        for number in range(1, 2 * count, 2):
            self.send(call(number, path) + frame(DATA, 0, number, sent))
        self.ping()
        assert not self.closed.is_set()
