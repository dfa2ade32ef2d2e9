"""Retries that gRPC doesn't make: after a gateway's HTTP error page."""

import random
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

import grpc

from userprofile.gateways import is_outage
from userprofile.service_config import JITTER

BURST = 500
"""Retry tokens: as many retries in a burst as gRPC makes before its own throttling stops them."""

PER_SECOND = 50
"""Retry tokens that are returned per second."""

_random = random.SystemRandom()  # not the global generator, which the application may have seeded


class Retries:
    """Decides whether to retry a call, with the pauses and the maximum of gRPC's own retry policy.

    gRPC's core treats the headers of an error page as the beginning of a response, and doesn't retry after that. It
    retries only if the whole page arrives at once. Its own retries show only in the duration of the attempt, so a long
    attempt uses up pauses. The last pause always remains, because the attempt may just have waited for the gateway.
    """

    def __init__(self, pauses: Mapping[str, Sequence[float]]) -> None:
        """Takes the seconds before each retry, by method."""
        self._pauses = pauses
        self._lock = threading.Lock()
        self._tokens = float(BURST)
        self._refilled = time.monotonic()

    def pauses(self, method: str) -> deque[float]:
        """Returns the seconds before each retry of a call, for `next_pause` to consume."""
        return deque(self._pauses.get(method, ()))

    def next_pause(self, pauses: deque[float], error: grpc.RpcError, *, took: float, left: float) -> float | None:
        """Returns the seconds to wait before the next attempt, None if there must be none.

        Args:
            pauses: The remaining pauses of the call.
            error: The error of the last attempt.
            took: Seconds that this attempt took.
            left: Seconds until the call's deadline.
        """
        if not is_outage(error):
            return None
        while len(pauses) > 1 and took >= (least := pauses[0] * (1 - JITTER)):
            took -= least
            pauses.popleft()
        if not pauses:
            return None
        pause = pauses.popleft() * _random.uniform(1 - JITTER, 1 + JITTER)
        return pause if pause < left and self._take_token() else None

    def _take_token(self) -> bool:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(BURST, self._tokens + (now - self._refilled) * PER_SECOND)
            self._refilled = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
