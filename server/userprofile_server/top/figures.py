"""What happened between two pages of metrics."""

from collections.abc import Iterator
from itertools import pairwise

from userprofile_server.telemetry.metrics import Metric
from userprofile_server.top.scrape import Labels, Scrape

Values = tuple[str, ...]
"""The values of some labels."""


class Figures:
    """Rates and quantiles between two pages, and the values of the later one."""

    def __init__(self, before: Scrape, after: Scrape) -> None:
        """Takes two pages of the same server."""
        self._before, self._after = before.samples, after.samples
        self._seconds = max(after.at - before.at, 1e-3)

    def now(self, metric: Metric, *by: str, **labels: str) -> dict[Values, float]:
        """Returns the sums of the values of the later page, by the values of the labels `by`."""
        sums: dict[Values, float] = {}
        for values, (_, value) in self._select(_counted(metric), by, labels):
            sums[values] = sums.get(values, 0) + value
        return sums

    def rates(self, metric: Metric, *by: str, **labels: str) -> dict[Values, float]:
        """Returns the increases per second of a counter, or of the number of a histogram's observations."""
        sums: dict[Values, float] = {}
        for values, (before, value) in self._select(_counted(metric), by, labels):
            sums[values] = sums.get(values, 0) + _increase(before, value) / self._seconds
        return sums

    def quantile(self, quantile: float, metric: Metric, **labels: str) -> float | None:
        """Returns a quantile of a histogram's observations between the pages; None if there were none.

        Like Prometheus, it takes observations as evenly spread within a bucket, and no bucket beyond the last bound.
        """
        buckets: dict[float, float] = {0.0: 0.0}
        for (bound,), (before, value) in self._select(f"{metric.name}_bucket", ("le",), labels):
            buckets[float(bound)] = buckets.get(float(bound), 0) + _increase(before, value)
        bounds = sorted(buckets.items())
        wanted = quantile * bounds[-1][1]
        if not wanted:
            return None
        for (lower, below), (upper, up_to) in pairwise(bounds):
            if up_to >= wanted:
                return lower if upper == float("inf") else lower + (upper - lower) * (wanted - below) / (up_to - below)
        return None

    def _select(
        self, name: str, by: tuple[str, ...], labels: dict[str, str]
    ) -> Iterator[tuple[Values, tuple[float, float]]]:
        """Yields the values of the labels `by`, and the former and the present value, of each series that matches."""
        for (found, its), value in self._after.items():
            if found == name and labels.items() <= set(its):
                named = dict(its)
                yield tuple(named.get(label, "") for label in by), (self._before_of(found, its), value)

    def _before_of(self, name: str, labels: Labels) -> float:
        return self._before.get((name, labels), 0.0)


def _counted(metric: Metric) -> str:
    return f"{metric.name}_count" if metric.kind == "histogram" else metric.name


def _increase(before: float, value: float) -> float:
    """Returns how much a counter has grown. A smaller value is that of a server that was started meanwhile."""
    return value - before if value >= before else value
