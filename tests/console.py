"""The ```console blocks of a document: what a reader is to type, and what is printed then."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.canary import look

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Command:
    """One command, and the output that stands below it. None means: it has to succeed, whatever it prints."""

    line: int
    text: str
    output: str | None


def commands(document: str) -> list[Command]:
    """All commands of all console blocks."""
    return [command for number, lines in _blocks(document, "console") for command in _commands(number, lines)]


def log_lines(document: str) -> list[str]:
    """All lines of all ```log blocks: each has to stand in the server's log."""
    return [line for _, lines in _blocks(document, "log") for line in lines]


def matches(expected: str, printed: str) -> bool:
    """Compares exactly, but for `…`, which stands for any characters within a line, and for newlines at the end."""
    pattern = re.escape(expected.rstrip("\n")).replace("…", ".*")
    return re.fullmatch(pattern, printed.rstrip("\n")) is not None


def problem(command: Command, env: Mapping[str, str], timeout: float = 100) -> str | None:
    """Runs the command as a terminal would, in the repository's root. Says what is wrong with it or its output."""
    status, printed = _run(command.text, env, timeout)
    where = f"line {command.line}: $ {command.text}"
    if command.output is None:
        return None if status == 0 else f"{where}\nfails with status {status}:\n{printed}"
    if matches(command.output, printed):
        return None
    return f"{where}\nshould print:\n{command.output}\nbut prints:\n{printed}"


def _blocks(document: str, language: str) -> Iterator[tuple[int, list[str]]]:
    """The blocks of a language: the number of the first line in each, and its lines."""
    lines = document.splitlines()
    for number, line in enumerate(lines):
        if line.strip() == f"```{language}":
            assert line == line.strip(), f"line {number + 1}: a block has to begin at the line's begin"
            yield number + 2, lines[number + 1 : lines.index("```", number)]


def _commands(number: int, lines: list[str]) -> Iterator[Command]:
    while lines:
        assert lines[0].startswith("$ "), f"line {number}: a console block begins with a command"
        typed = 1
        while lines[typed - 1].endswith("\\"):  # the command goes on in the next line
            typed += 1
        end = next((n for n in range(typed, len(lines)) if lines[n].startswith("$ ")), len(lines))
        text = "\n".join(lines[:typed]).removeprefix("$ ")
        yield Command(number, text, "\n".join(lines[typed:end]) if end > typed else None)
        number, lines = number + end, lines[end:]


def _run(command: str, env: Mapping[str, str], timeout: float) -> tuple[int, str]:
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env=os.environ | env,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the shell, and what it has started
            printed, _ = process.communicate()
            printed += f"\n(still running after {timeout} s)"
    look(f"output of {command}", printed)
    return process.returncode, printed
