"""Writes the README's tables anew, of settings from the code and of errors from the contract's comments.

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

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
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


TABLES: dict[str, Callable[[], str]] = {"settings": settings_table, "errors": errors_table}


def updated(text: str) -> str:
    """Returns the README with its tables as they have to be."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text, count = pattern.subn(lambda _: f"{begin}\n{table()}\n{end}", text)  # noqa: B023, called at once
        if count != 1:
            sys.exit(f"README.md has {count} places for the table of {name}")
    return text


if __name__ == "__main__":
    README.write_text(updated(README.read_text()))
