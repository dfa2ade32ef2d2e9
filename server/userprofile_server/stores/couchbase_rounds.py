"""How many documents of a batch are read at once. The SDK holds all of them, and tells no sizes beforehand."""

import threading
from collections.abc import Collection

_ROUND_BYTES = 16 * 1024 * 1024
"""What the documents of one round may have together, going by the last ones: a hundred of 160 KB."""

_FIRST_ROUND = 4
"""Documents in the first round, when nothing is known of their size."""


class Rounds:
    """What is known of the documents of one bucket. All workers of a process share it, without a lock.

    A batch of documents that are known to be small is one round.
    """

    def __init__(self) -> None:
        """Begins carefully."""
        self.names = _FIRST_ROUND
        """How many documents may be read at once."""
        self.turn = threading.Semaphore()
        """Held while documents are read that are known to be large, so that one worker at a time does."""

    @property
    def are_large(self) -> bool:
        """Whether the documents seen last have 4 MiB and more each."""
        return self.names < _FIRST_ROUND

    def learn(self, documents: Collection[bytes]) -> None:
        """Takes what a round has read. After few documents the next round is never of many, which may be other ones."""
        if documents:
            affordable = _ROUND_BYTES * len(documents) // max(1, sum(map(len, documents)))
            self.names = max(1, min(affordable, max(self.names, 2 * len(documents))))


_known: dict[str, Rounds] = {}


def rounds_of(url: str) -> Rounds:
    """Returns what this process knows of the bucket at `url`. It outlives connections."""
    return _known.setdefault(url, Rounds())
