"""The dashboard and the alerts know all metrics, and only those that exist."""

import re
from pathlib import Path

from deploy.prometheus.update_dashboard import DASHBOARD, LEFT_OUT, ROWS, dashboard
from userprofile import reasons
from userprofile_server.telemetry.metrics import METRICS, Metric

RULES = DASHBOARD.with_name("rules.yaml")
OPERATIONS = Path(__file__).parent.parent / "docs" / "operations.md"

SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}
NAMES = {metric.name + suffix: metric for metric in METRICS for suffix in SUFFIXES[metric.kind]}
OTHERS = {"job", "instance", "le"}
"""Labels that Prometheus adds, and that of buckets."""

_SELECTOR = re.compile(r"\b((?:grpc_server|userprofile|process)_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|=)\s*"([^"]*)"')


def used(text: str) -> list[tuple[Metric, dict[str, str]]]:
    """The metrics that expressions of PromQL select, with the values that they select labels by."""
    return [
        (NAMES[name], {label: value for label, _, value in _MATCHER.findall(matchers)})
        for name, matchers in _SELECTOR.findall(text)
        if name not in {label for metric in METRICS for label in metric.labels}
    ]


def expressions() -> list[str]:
    return [query.expression for panels in ROWS.values() for panel in panels for query in panel.queries]


def rules() -> str:
    """The rules without comments and annotations."""
    text = re.sub(r"^ *(#|summary:|runbook:|- name:).*$", "", RULES.read_text(), flags=re.MULTILINE)
    return re.sub(r"userprofile\.v1\.\w+|userprofile:\w+:\w+", "", text)


def test_the_dashboard_is_the_tables_own() -> None:
    assert DASHBOARD.read_text() == dashboard(), "run: make docs"


def test_every_metric_is_on_the_dashboard_or_left_out_for_a_reason() -> None:
    shown = {metric for panels in ROWS.values() for panel in panels for metric in panel.metrics}
    assert shown | set(LEFT_OUT) == set(METRICS)
    assert not shown & set(LEFT_OUT)


def test_dashboard_and_alerts_use_labels_and_reasons_that_exist() -> None:
    known = {name for name in vars(reasons) if name.isupper()}
    selected = [each for text in (*expressions(), rules()) for each in used(text)]
    assert len(selected) > 40
    for metric, matchers in selected:
        assert set(matchers) <= {*metric.labels, *OTHERS}, metric.name
        for pattern in matchers.get("reason", "").split("|"):
            assert not pattern or any(re.fullmatch(pattern, reason) for reason in known), pattern
    by = {
        label.strip()
        for text in (*expressions(), rules())
        for labels in re.findall(r"(?:by|on) \(([^)]*)\)", text)
        for label in labels.split(",")
    }
    assert by <= {label for metric in METRICS for label in metric.labels} | OTHERS


def test_every_alert_has_a_summary_and_a_section_in_the_operators_guide() -> None:
    alerts = RULES.read_text().split("- alert: ")[1:]
    assert len(alerts) > 10
    for text in alerts:
        name = text.split()[0]
        assert re.search(r"^ +severity: (critical|warning)$", text, re.MULTILINE), name
        assert re.search(r'^ +summary: "[^"]+"$', text, re.MULTILINE), name
        assert f"runbook: docs/operations.md#{name.lower()}\n" in text, name


def test_the_operators_guide_names_the_reasons_that_count_as_failures() -> None:
    counted = re.search(r'reason=~"(STORE[^"]*)"', RULES.read_text())
    section = re.search(r"^### UserprofileErrors\n(.*?)^### ", OPERATIONS.read_text(), re.DOTALL | re.MULTILINE)
    assert counted
    assert section
    known = {value for name, value in vars(reasons).items() if name.isupper()}
    assert set(re.findall(r"\b[A-Z_]{8,}\b", section[1])) == {each for each in known if re.fullmatch(counted[1], each)}
