"""The page that Prometheus scrapes, made from the snapshots of all processes."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from userprofile_server.telemetry import metrics
from userprofile_server.telemetry.recorder import BOUNDS, Histogram, Key, Totals
from userprofile_server.telemetry.snapshot import Gauge

_LIMITS = [*map(str, BOUNDS), "+Inf"]


class Page(Collector):
    """One rendering."""

    def __init__(self, totals: Iterable[Totals], gauges: Mapping[str, Iterable[Gauge]]) -> None:
        """Takes the totals of all processes, which are added up, and the gauges of those that run, by their label."""
        self._totals = Totals()
        for each in totals:
            self._totals.add(each)
        self._by_process = [((*key, process), value) for process, own in gauges.items() for key, value in own]
        self._add_calls()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Returns the page and its content type, in the format that an `Accept` header asks for."""
        try:
            encode, content_type = choose_encoder(accept)
            return encode(self), content_type
        except (TypeError, ValueError):  # of a version that is no number
            encode, content_type = choose_encoder("")
            return encode(self), content_type

    def collect(self) -> Iterator[Metric]:
        """Yields each metric of the table that has values."""
        for metric in metrics.METRICS:
            if metric.kind == "histogram":
                histogram = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
                for labels, durations in _of(metric, self._totals.histograms.items()):
                    counts = accumulate(durations[:-1])
                    histogram.add_metric(labels, list(zip(_LIMITS, counts, strict=True)), sum_value=durations[-1])
                yield histogram
                continue
            family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            numbers = family(metric.name, metric.text, labels=metric.labels)
            for labels, value in _of(metric, (*self._totals.counters.items(), *self._by_process)):
                numbers.add_metric(labels, value)
            if numbers.samples:
                yield numbers

    def _add_calls(self) -> None:
        """Adds what follows from others: each call is recorded once, as HANDLED and by its duration."""
        counters, histograms = self._totals.counters, self._totals.histograms
        for key, number in list(counters.items()):
            if key[0] == metrics.STARTED.name:
                _, _, service, method = key
                counters[metrics.A66_STARTED.name, f"{service}/{method}"] = number
        for key, durations in list(histograms.items()):
            if key[0] == metrics.HANDLED.name:
                _, kind, service, method, code = key
                del histograms[key]
                counters[metrics.HANDLED.name, kind, service, method, _in_go(code)] = sum(durations[:-1])
                histograms[metrics.A66_DURATION.name, f"{service}/{method}", code] = durations
                total = Totals()
                total.histograms[metrics.HANDLING.name, kind, service, method] = durations
                self._totals.add(total)


def _in_go(code: str) -> str:
    """Returns the name of a status code in Go, which go-grpc-middleware's metrics have: NOT_FOUND is NotFound."""
    names = {"OK": "OK", "CANCELLED": "Canceled"}
    return names.get(code) or code.replace("_", " ").title().replace(" ", "")


def _of(metric: metrics.Metric, numbers: Iterable[tuple[Key, float | Histogram]]) -> Iterator[tuple[Key, Any]]:
    for key, value in numbers:
        if key[0] == metric.name:
            yield tuple(map(_in_utf_8, key[1:])), value


def _in_utf_8(label: str) -> str:
    """Returns a label's value with escapes for what isn't UTF-8, such as a file's name in another encoding."""
    return label if label.isascii() else label.encode(errors="backslashreplace").decode()
