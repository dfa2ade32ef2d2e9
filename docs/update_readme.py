"""Writes the README's tables of settings and errors anew from the code; `make docs` calls it, a test checks it."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from userprofile_server.rpc.error_table import ANSWERS, UNEXPECTED
from userprofile_server.settings import ServeSettings, environment_variable, flag

README = Path(__file__).parent.parent / "README.md"


def settings_table() -> str:
    """One row for each setting."""
    rows = ["| flag | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in ServeSettings.model_fields.items():
        option = f"`{flag(name)}`" if flag(name) else "none, it is a secret"
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| {option} | `{environment_variable(name)}` | {default} | {field.description} |")
    return "\n".join(rows)


def errors_table() -> str:
    """One row for each answer of the error table."""
    rows = ["| situation | status | reason |", "| --- | --- | --- |"]
    for answer in [*ANSWERS.values(), UNEXPECTED]:
        rows.append(f"| {answer.when} | {answer.status.name} | `{answer.reason}` |")  # noqa: PERF401, reads better
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
