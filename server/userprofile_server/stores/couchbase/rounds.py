"""How many documents of a batch are read at once: the SDK keeps all of them in memory, and reports no sizes before."""

import threading
from collections.abc import Collection

_ROUND_BYTES = 16 * 1024 * 1024
"""The maximum size of one round in bytes, estimated from the last documents: a hundred documents of 160 KB."""

_FIRST_ROUND = 4
"""Documents in the first round, when their sizes are unknown."""


class Rounds:
    """The estimated size of the documents of one bucket. All workers of a process share it, without a lock.

    A batch of documents that are known to be small is read in one round.
    """

    def __init__(self) -> None:
        """Starts with small rounds."""
        self.keys = _FIRST_ROUND
        """How many documents may be read at once."""
        self.turn = threading.Semaphore()
        """Held while large documents are read, so that only one worker at a time reads them."""

    @property
    def are_large(self) -> bool:
        """Whether the last documents had 4 MiB or more each."""
        return self.keys < _FIRST_ROUND

    def learn(self, documents: Collection[bytes]) -> None:
        """Updates the limit with the documents of a round. It grows to at most twice their number."""
        if documents:
            affordable = _ROUND_BYTES * len(documents) // max(1, sum(map(len, documents)))
            self.keys = max(1, min(affordable, max(self.keys, 2 * len(documents))))


_known: dict[str, Rounds] = {}


def rounds_of(url: str) -> Rounds:
    """Returns this process's estimate for the bucket at `url`. It outlives connections."""
    return _known.setdefault(url, Rounds())
