"""A page of metrics, as Prometheus reads it."""

import http.client
import re
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.canary import look
from tests.support import ServerProcess, eventually

TEXT = "text/plain"
Series = tuple[str, frozenset[tuple[str, str]]]
"""The name of a sample, and its labels."""


class Response(NamedTuple):
    """What the metrics server has sent."""

    status: int
    content_type: str
    content: str


def metrics_address(server: ServerProcess) -> str:
    """Where a server that was started with `--metrics-listen` serves its page."""

    def found() -> "re.Match[str] | None":
        return re.search(r"metrics on http://(\S+)/metrics", server.stderr)

    eventually(found, "the address is in the log")
    match = found()
    assert match is not None
    return match[1]


def request(address: str, method: str = "GET", path: str = "/metrics", accept: str = TEXT) -> Response:
    """Makes one request."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, headers={"Accept": accept})
        response = connection.getresponse()
        content = response.read().decode()
    finally:
        connection.close()
    look("the metrics", content)
    return Response(response.status, response.getheader("Content-Type", ""), content)


class Scraped:
    """The samples of a page."""

    def __init__(self, address: str) -> None:
        self.text = request(address).content
        families = list(text_string_to_metric_families(self.text))
        self.kinds = {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}
        """The type of each metric."""
        self.series: dict[Series, float] = {}
        for sample in (sample for family in families for sample in family.samples):
            series = sample.name, frozenset(sample.labels.items())
            assert series not in self.series, f"twice: {series}"
            self.series[series] = sample.value

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all series of this name with these labels."""
        return sum(value for (found, its), value in self.series.items() if found == name and labels.items() <= set(its))

    def labels(self, name: str) -> list[set[str]]:
        """The names of the labels of each series of this name."""
        return [{label for label, _ in its} for found, its in self.series if found == name]

    def totals(self) -> dict[Series, float]:
        """The series that must never fall: all but gauges and those of single processes."""
        totals = ("_total", "_bucket", "_count", "_sum")
        return {
            series: value
            for series, value in self.series.items()
            if series[0].endswith(totals) and "process" not in dict(series[1])
        }
