"""A steady load on a server, and what became of each call."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import grpc

from tests.support import CallError, GetUser
from tests.timing import judging

USERS = [f"user{number}" for number in range(60)]

OK = "OK"
UNAVAILABLE = "UNAVAILABLE STORE_UNAVAILABLE"
TIMEOUT = "UNAVAILABLE STORE_TIMEOUT"
MISCONFIGURED = "INTERNAL STORE_MISCONFIGURED"


@dataclass(frozen=True, slots=True)
class Call:
    username: str
    ended: float
    seconds: float
    outcome: str


class Load:
    """Threads that read one user after the other until the block ends."""

    def __init__(self, address: str, *, deadline: float, threads: int = 8) -> None:
        self.deadline = deadline
        self.calls: list[Call] = []
        self._address = address
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), name="load") for number in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def since(self, moment: float, username: Callable[[str], bool] = lambda _: True) -> Counter[str]:
        """How the calls ended that began after `moment`."""
        return Counter(
            call.outcome for call in self.calls if call.ended - call.seconds >= moment and username(call.username)
        )

    def recent(self, username: Callable[[str], bool] = lambda _: True) -> Counter[str]:
        """How the last 40 calls ended."""
        calls = (call.outcome for call in reversed(self.calls) if username(call.username))
        return Counter(itertools.islice(calls, 40))

    def flowing(self, username: Callable[[str], bool] = lambda _: True) -> bool:
        """Whether the last calls have all returned the right user."""
        return self.recent(username) == {OK: 40}

    def check_deadlines(self) -> None:
        """Every call has ended by its deadline, give or take a moment."""
        late = [call for call in self.calls if call.seconds > self.deadline + 0.5]
        assert not late, late[:5]

    def _run(self, number: int) -> None:
        with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            get_user = GetUser(channel)
            turn = number * 7
            while not self._stopping.wait(0.05 if judging() else 0.1):
                turn += 1
                username = USERS[turn % len(USERS)]
                began = time.monotonic()
                outcome = self._call(get_user, username)
                ended = time.monotonic()
                self.calls.append(Call(username, ended, ended - began, outcome))

    def _call(self, get_user: GetUser, username: str) -> str:
        try:
            user = get_user(username, timeout=self.deadline)
        except grpc.RpcError as error:
            failed = CallError(error)
            return " ".join(filter(None, (failed.code.name, failed.reason)))
        right = (user.username, user.full_name) == (username, f"Name of {username}")
        return OK if right else "WRONG RESPONSE"
