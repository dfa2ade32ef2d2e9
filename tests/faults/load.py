"""A steady load on a server, and what became of each call."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import grpc

from tests.support import CallError, GetUser

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
    """Threads that go on asking for one user after the other until `stop`."""

    def __init__(self, address: str, *, deadline: float, threads: int = 8) -> None:
        self.deadline = deadline
        self.calls: list[Call] = []
        self._address = address
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

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

    def flowing(self, calls: int = 40) -> bool:
        """Whether the last calls were all answered rightly."""
        recent = self.calls[-calls:]
        return len(recent) == calls and all(call.outcome == OK for call in recent)

    def check_deadlines(self) -> None:
        """Every call has ended by its deadline, give or take what a busy machine takes to notice."""
        late = [call for call in self.calls if call.seconds > self.deadline + 1]
        assert not late, late[:5]

    def _run(self, number: int) -> None:
        with grpc.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            get_user = GetUser(channel)
            turn = number * 7
            while not self._stopping.wait(0.003):
                turn += 1
                username = USERS[turn % len(USERS)]
                began = time.monotonic()
                outcome = self._ask(get_user, username)
                ended = time.monotonic()
                self.calls.append(Call(username, ended, ended - began, outcome))

    def _ask(self, get_user: GetUser, username: str) -> str:
        try:
            user = get_user(username, timeout=self.deadline)
        except grpc.RpcError as error:
            failed = CallError(error)
            return " ".join(filter(None, (failed.code.name, failed.reason)))
        right = (user.username, user.full_name) == (username, f"Name of {username}")
        return OK if right else "WRONG ANSWER"
