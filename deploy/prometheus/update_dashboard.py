"""Writes dashboard.json, for Grafana, from the table of metrics. `make docs` calls it, a test checks it."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from userprofile_server.telemetry import metrics
from userprofile_server.telemetry.metrics import METRICS, Metric

DASHBOARD = Path(__file__).parent / "dashboard.json"

LEFT_OUT = {
    metrics.A66_STARTED: "the same numbers as grpc_server_started_total, under the coming standard's name",
    metrics.A66_DURATION: "the same numbers as grpc_server_handling_seconds, likewise",
}
"""Metrics without a panel, and why."""

_SUFFIX = {"histogram": "_bucket", "counter": "", "gauge": ""}
_WIDTH = 24  # Grafana's grid


@dataclass(frozen=True)
class Query:
    """An expression of PromQL, and the name of its lines."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel; its description is made of the texts of its metrics."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    thresholds: Sequence[tuple[str, float | None]] = (("text", None),)
    """Colours, each from a value on."""

    @property
    def metrics(self) -> list[Metric]:
        """The metrics that it shows."""
        return [metric for metric in METRICS if any(_uses(query.expression, metric) for query in self.queries)]


def _uses(expression: str, metric: Metric) -> bool:
    return re.search(rf"\b{metric.name}{_SUFFIX[metric.kind]}\b", expression) is not None


def _of(metric: Metric, **labels: str) -> str:
    """Returns the selector of a metric for the chosen servers."""
    chosen = {"job": '="$job"', "instance": '=~"$instance"'} | labels
    return f"{metric.name}{_SUFFIX[metric.kind]}{{{', '.join(name + value for name, value in chosen.items())}}}"


def _rate(metric: Metric, *by: str, **labels: str) -> str:
    return f"sum by ({', '.join(by)}) (rate({_of(metric, **labels)}[$__rate_interval]))"


def _total(metric: Metric, **labels: str) -> str:
    return f"sum(rate({_of(metric, **labels)}[$__rate_interval]))"


def _quantiles(metric: Metric, *by: str, **labels: str) -> list[Query]:
    named = " ".join(f"{{{{{label}}}}}" for label in by)
    return [
        Query(f"histogram_quantile({q:g}, {_rate(metric, 'le', *by, **labels)})", f"{named} p{100 * q:g}".strip())
        for q in (0.5, 0.99)
    ]


def _by(metric: Metric, *by: str, what: str = "") -> Query:
    named = " ".join(f"{{{{{label}}}}}" for label in by)
    return Query(f"sum by ({', '.join(by)}) ({_of(metric)})", f"{named} {what}".strip())


_FAILURES = '=~"STORE_.*|CORRUPT_DOCUMENT|PROFILE_TOO_LARGE|OVERLOADED|INTERNAL"'  # as in rules.yaml
_UNARY = {"grpc_type": '="unary"'}
_PROCESS = ("instance", "process")
_GOOD_BELOW, _GOOD_ABOVE = ("green", None), ("red", None)

ROWS: dict[str, list[Panel]] = {
    "At a glance": [
        Panel("Calls per second", [Query(_total(metrics.STARTED), "")], "reqps", "stat"),
        Panel(
            "Calls that fail because of the service",
            [Query(f"(({_total(metrics.ERRORS, reason=_FAILURES)}) or vector(0)) / {_total(metrics.HANDLED)}", "")],
            "percentunit",
            "stat",
            [_GOOD_BELOW, ("orange", 0.001), ("red", 0.0144)],
        ),
        Panel(
            "99 % of calls take at most",
            [Query(f"histogram_quantile(0.99, {_rate(metrics.HANDLING, 'le', **_UNARY)})", "")],
            "s",
            "stat",
            [_GOOD_BELOW, ("orange", 0.1), ("red", 0.5)],
        ),
        Panel(
            "Processes that are ready",
            [Query(f"avg({_of(metrics.READY)})", "")],
            "percentunit",
            "stat",
            [_GOOD_ABOVE, ("orange", 0.01), ("green", 1)],
        ),
        Panel(
            "Connections to the store",
            [Query(f"avg({_of(metrics.STORE_CONNECTED)})", "")],
            "percentunit",
            "stat",
            [_GOOD_ABOVE, ("orange", 0.01), ("green", 1)],
        ),
        Panel(
            "The next certificate expires in",
            [Query(f"min({_of(metrics.CERTIFICATE)}) - time()", "")],
            "s",
            "stat",
            [_GOOD_ABOVE, ("orange", 3 * 86_400), ("green", 14 * 86_400)],
        ),
    ],
    "Calls": [
        Panel(
            "By method",
            [Query(_rate(metrics.STARTED, "grpc_service", "grpc_method"), "{{grpc_service}}/{{grpc_method}}")],
            "reqps",
        ),
        Panel("By status", [Query(_rate(metrics.HANDLED, "grpc_code"), "{{grpc_code}}")], "reqps"),
        Panel(
            "Errors by reason",
            [Query(_rate(metrics.ERRORS, "grpc_method", "reason"), "{{grpc_method}} {{reason}}")],
            "reqps",
        ),
        Panel("Duration", _quantiles(metrics.HANDLING, "grpc_method", **_UNARY), "s"),
    ],
    "Queue": [
        Panel("Time in the queue", _quantiles(metrics.QUEUED), "s"),
        Panel(
            "Calls that wait, and that are served",
            [
                _by(metrics.QUEUE, *_PROCESS, what="wait"),
                _by(metrics.RUNNING, *_PROCESS, what="served"),
                _by(metrics.WORKERS, *_PROCESS, what="workers"),
            ],
        ),
        Panel("Age of the first call in the queue", [_by(metrics.QUEUE_AGE, *_PROCESS)], "s"),
        Panel(
            "Calls that hold no worker",
            [
                _by(metrics.HALF_SENT, *_PROCESS, what="half-sent requests"),
                _by(metrics.WATCHES, *_PROCESS, what="health watches"),
            ],
        ),
    ],
    "Store": [
        Panel(
            "Operations",
            [Query(_rate(metrics.STORE, "operation", "outcome", le='="+Inf"'), "{{operation}} {{outcome}}")],
            "ops",
        ),
        Panel("Duration of operations", _quantiles(metrics.STORE, "operation"), "s"),
        Panel("Connections that respond", [_by(metrics.STORE_CONNECTED, *_PROCESS)]),
        Panel(
            "Connections made and lost",
            [
                Query(_rate(metrics.STORE_CONNECTS, "instance"), "{{instance}} made"),
                Query(_rate(metrics.STORE_LOSSES, "instance"), "{{instance}} lost"),
            ],
            "ops",
        ),
    ],
    "Processes": [
        Panel("Ready", [_by(metrics.READY, *_PROCESS)]),
        Panel(
            "Started again",
            [
                Query(f"increase({_of(metrics.PROCESS_ENDS)}[$__rate_interval])", "{{instance}}"),
                Query(f"changes({_of(metrics.START)}[$__rate_interval])", "{{instance}} {{process}} began"),
            ],
        ),
        Panel("CPU", [Query(_rate(metrics.CPU, *_PROCESS), "{{instance}} {{process}}")], "percentunit"),
        Panel("Resident memory", [_by(metrics.MEMORY, *_PROCESS)], "bytes"),
        Panel("Open files and sockets", [_by(metrics.DESCRIPTORS, *_PROCESS)]),
        Panel("Lines lost of the log", [Query(_rate(metrics.LOG_DROPPED, "instance"), "{{instance}}")], "cps"),
        Panel(
            "Versions",
            [
                Query(
                    f"count by (instance, version, python, grpcio, store) ({_of(metrics.BUILD)})",
                    "{{instance}}: {{version}}, Python {{python}}, grpcio {{grpcio}}, {{store}}",
                )
            ],
        ),
    ],
    "Files": [
        Panel(
            "Certificates: time left",
            [
                Query(
                    f"min by (instance, certificate) ({_of(metrics.CERTIFICATE)}) - time()",
                    "{{instance}} {{certificate}}",
                )
            ],
            "s",
        ),
        Panel(
            "Valid (0: what was read before is in use)",
            [Query(f"min by (instance, file) ({_of(metrics.FILE_VALID)})", "{{instance}} {{file}}")],
        ),
        Panel(
            "Read again",
            [Query(f"increase({_of(metrics.FILE_CHANGES)}[$__rate_interval])", "{{instance}} {{file}} {{result}}")],
        ),
    ],
}
"""The panels of each row."""


def dashboard() -> str:
    """Returns the dashboard as Grafana's JSON."""
    content = {
        "title": "userprofile",
        "uid": "userprofile",
        "tags": ["userprofile", "grpc"],
        "description": "Made from the table of metrics by deploy/prometheus/update_dashboard.py.",
        "editable": True,
        "graphTooltip": 1,  # one crosshair for all panels
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                _variable("job", f"label_values({metrics.BUILD.name}, job)"),
                _variable("instance", f'label_values({metrics.BUILD.name}{{job="$job"}}, instance)', several=True),
            ]
        },
        "panels": list(_panels()),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _variable(name: str, query: str, *, several: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name},
        "refresh": 2,  # with the time range
        "multi": several,
        "includeAll": several,
    }


def _panels() -> Iterator[dict[str, Any]]:
    number = top = 0
    for title, panels in ROWS.items():
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1},
        }
        top += 1
        stats = panels[0].kind == "stat"
        width, height = (
            (_WIDTH // len(panels), 4) if stats else (_WIDTH // 4 if len(panels) % 4 == 0 else _WIDTH // 3, 8)
        )
        for place, panel in enumerate(panels):
            number += 1
            line, column = divmod(place * width, _WIDTH)
            yield _panel(panel, number, {"x": column, "y": top + line * height, "w": width, "h": height})
        top += height * -(-len(panels) * width // _WIDTH)


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps = [{"color": color, "value": value} for color, value in panel.thresholds]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": "\n\n".join(f"{metric.name}: {metric.text}" for metric in panel.metrics),
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [],
        },
        "options": {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
        if panel.kind == "stat"
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query.expression, "legendFormat": query.legend or "__auto"}
            for place, query in enumerate(panel.queries)
        ],
    }


if __name__ == "__main__":
    DASHBOARD.write_text(dashboard(), encoding="utf-8")
