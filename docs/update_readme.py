"""Writes tables of the documentation anew: settings and metrics from the code, errors from the contract's comments.

`make docs` calls it, a test checks it.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from userprofile_server.settings import Settings
from userprofile_server.settings_base import settings_in
from userprofile_server.settings_cli import CONFIG_FLAG, CONFIG_HELP, CONFIG_VARIABLE
from userprofile_server.telemetry.metrics import METRICS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
METRICS_PAGE = ROOT / "docs" / "metrics.md"
ERROR_REASONS = ROOT / "protos" / "userprofile" / "v1" / "error_reason.proto"


def settings_table() -> str:
    """One row for each setting."""
    rows = [
        "| flag | environment | file | default | meaning |",
        "| --- | --- | --- | --- | --- |",
        f"| `{CONFIG_FLAG}` | `{CONFIG_VARIABLE}` | | | {CONFIG_HELP} |",
    ]
    for setting in settings_in(Settings):
        flag, key = ("none", "none: a secret") if setting.is_secret else (f"`{setting.flag}`", f"`{setting.path}`")
        default = "" if setting.field.default is None else f"`{setting.field.default}`".replace("False", "false")
        meaning = setting.field.description
        rows.append(f"| {flag} | `{setting.variable}` | {key} | {default} | {meaning} |")
    return "\n".join(rows)


class Reason(NamedTuple):
    """A value of the contract's ErrorReason, as its comment describes it."""

    name: str
    """Without its prefix."""
    number: int
    status: str
    """The name of the status code, or of several."""
    meaning: str


def contract_reasons() -> list[Reason]:
    """Returns the reasons that the contract knows, but for the one that is never sent."""
    text = ERROR_REASONS.read_text()
    values = re.findall(r"((?:^ *//.*\n)+) *ERROR_REASON_(\w+) = (\d+);", text, re.MULTILINE)
    found = []
    for comment, name, number in values:
        status, _, meaning = " ".join(re.sub(r"^ *//", "", comment, flags=re.MULTILINE).split()).partition(": ")
        found.append(Reason(name, int(number), status, meaning))
    return [reason for reason in found if reason.number != 0]


def errors_table() -> str:
    """One row for each reason."""
    rows = ["| reason | status | meaning |", "| --- | --- | --- |"]
    for reason in contract_reasons():
        rows.append(f"| `{reason.name}` | {reason.status} | {reason.meaning} |")  # noqa: PERF401, reads better
    return "\n".join(rows)


def metrics_table() -> str:
    """One row for each metric."""
    rows = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |")
    return "\n".join(rows)


TABLES: dict[Path, dict[str, Callable[[], str]]] = {
    README: {"settings": settings_table, "errors": errors_table},
    METRICS_PAGE: {"metrics": metrics_table},
}
"""The tables of each page, by their names there."""


def updated(page: Path) -> str:
    """Returns the text of a page with its tables as they have to be."""
    text = page.read_text()
    for name, table in TABLES[page].items():
        begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text, count = pattern.subn(lambda _: f"{begin}\n{table()}\n{end}", text)  # noqa: B023, called at once
        if count != 1:
            sys.exit(f"{page.name} has {count} places for the table of {name}")
    return text


if __name__ == "__main__":
    for page in TABLES:
        page.write_text(updated(page))
