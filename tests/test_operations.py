"""What the page for operators names exists: log lines, reasons, metrics, flags, sections of other pages."""

import ast
import logging
import re
from pathlib import Path

import pytest

from docs.update_readme import contract_reasons
from tests.test_quoted_log_lines import SAYS, table
from userprofile_server.rpc.error_table import ERROR_STATUSES
from userprofile_server.settings import Settings
from userprofile_server.settings_base import settings_in
from userprofile_server.telemetry.metrics import METRICS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "operations.md"
TEXT = PAGE.read_text()
REASONS = {reason.name for reason in contract_reasons()}


def texts_of_the_server() -> list[str]:
    """All texts in its code, with … for what is filled in."""
    texts = []
    for path in (ROOT / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%[a-z]", "…", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                texts.append("".join(parts))
    return texts


def quotes() -> list[str]:
    tables = [part for part in TEXT.split("\n\n") if part.startswith(f"| {SAYS}")]
    return [code for part in tables for row in table(part) for code in re.findall(r"`([^`]+)`", row[SAYS])]


@pytest.mark.parametrize("quote", quotes())
def test_the_server_writes_what_the_page_quotes(quote: str) -> None:
    texts = texts_of_the_server()
    for part in re.split(r"…|;|SIG[A-Z]+", quote):  # several texts of the code make one line
        part = part.strip(" :;,")
        assert part in REASONS or any(part in text for text in texts), part


def test_whatever_is_logged_of_a_failed_call_is_on_the_page() -> None:
    logged = {status.reason for status in ERROR_STATUSES.values() if status.log_level > logging.INFO}
    assert not {reason for reason in logged if reason not in TEXT}


def test_reasons_metrics_and_flags_exist() -> None:
    names = {metric.name for metric in METRICS}
    flags = {setting.flag for setting in settings_in(Settings)}
    for code in re.findall(r"`([^`\n]+)`", TEXT):
        for name in re.findall(r"\b(?:grpc_server|userprofile|process)_[a-z_]+", code):
            assert name in names, name
        if code.startswith("--"):
            assert code.split()[0] in flags, code
    words = set(re.findall(r"\b[A-Z]{3,}(?:_[A-Z]+)+\b", TEXT))
    codes = {"NOT_FOUND", "INVALID_ARGUMENT", "DATA_LOSS", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}
    assert words - codes - {"PERMISSION_DENIED", "NOT_SERVING"} <= REASONS


def test_the_sections_that_it_refers_to_exist() -> None:
    for target, anchor in re.findall(r"\]\(([\w./]*)(?:#([\w-]+))?\)", TEXT):
        path = PAGE if not target else (PAGE.parent / target).resolve()
        assert path.exists(), target
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}, (
            target,
            anchor,
        )


def test_every_alert_has_a_section() -> None:
    rules = (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text()
    alerts = set(re.findall(r"alert: (\w+)", rules))
    assert alerts
    assert set(re.findall(r"^### (Userprofile\w+)$", TEXT, re.MULTILINE)) == alerts
