"""Counts events and durations, for the metrics.

Every thread counts in numbers of its own, so that recording takes no lock: prometheus_client takes one for each number
of each call. A snapshot adds them up.
"""

import threading
from bisect import bisect_left
from typing import Any

Key = tuple[str, ...]
"""The name of a metric, and the values of its labels."""

BOUNDS = (
    0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.013,
    0.016, 0.02, 0.025, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 2.0,
    5.0, 10.0, 20.0, 50.0, 100.0,
)  # fmt: skip
"""Upper bounds of the buckets of durations, in seconds: those of gRFC A66, so that other servers' can be added to them.

https://github.com/grpc/proposal/blob/master/A66-otel-stats.md
"""

Histogram = list[float]
"""The number of durations in each bucket, then that of longer ones, then the sum of all in seconds."""


class Totals:
    """Counters and histograms by key. They only grow."""

    def __init__(self) -> None:
        """Starts with no numbers."""
        self.counters: dict[Key, float] = {}
        self.histograms: dict[Key, Histogram] = {}

    def add(self, other: "Totals") -> None:
        """Adds all numbers of `other`, which another thread may be changing."""
        for key, number in list(other.counters.items()):
            self.counters[key] = self.counters.get(key, 0) + number
        for key, theirs in list(other.histograms.items()):
            ours = self.histograms.get(key)
            self.histograms[key] = theirs.copy() if ours is None else [a + b for a, b in zip(ours, theirs, strict=True)]

    def to_plain(self) -> list[list[list[Any]]]:
        """Returns the numbers as JSON types."""
        return [[[list(key), value] for key, value in numbers.items()] for numbers in (self.counters, self.histograms)]

    @classmethod
    def from_plain(cls, plain: list[list[list[Any]]]) -> "Totals":
        """Returns the numbers that `to_plain` has described."""
        totals = cls()
        totals.counters, totals.histograms = ({tuple(key): value for key, value in numbers} for numbers in plain)
        return totals


class Recorder:
    """Counts in the calling thread's own numbers."""

    def __init__(self) -> None:
        """Starts with no numbers."""
        self._own = threading.local()
        self._lock = threading.Lock()  # not for counting
        self._threads: list[tuple[threading.Thread, Totals]] = []
        self._ended = Totals()
        """The numbers of threads that have ended."""

    def count(self, key: Key, amount: float = 1) -> None:
        """Adds `amount` to a counter. An amount of 0 makes the counter appear."""
        counters = self._numbers().counters
        counters[key] = counters.get(key, 0) + amount

    def observe(self, key: Key, seconds: float) -> None:
        """Adds a duration to a histogram."""
        histograms = self._numbers().histograms
        try:
            histogram = histograms[key]
        except KeyError:
            histogram = histograms[key] = [0] * (len(BOUNDS) + 1) + [0.0]
        histogram[bisect_left(BOUNDS, seconds)] += 1
        histogram[-1] += seconds

    def totals(self) -> Totals:
        """Returns the numbers of all threads, added up."""
        totals = Totals()
        with self._lock:
            self._bury()
            totals.add(self._ended)
            for _, numbers in self._threads:
                totals.add(numbers)
        return totals

    def _numbers(self) -> Totals:
        try:
            return self._own.numbers  # type: ignore[no-any-return]
        except AttributeError:
            numbers = self._own.numbers = Totals()
            with self._lock:
                self._bury()
                self._threads.append((threading.current_thread(), numbers))
            return numbers

    def _bury(self) -> None:
        """Keeps only the sum of the numbers of threads that have ended: spare threads come and go."""
        running = []
        for thread, numbers in self._threads:
            if thread.is_alive():
                running.append((thread, numbers))
            else:
                self._ended.add(numbers)
        self._threads = running
