"""Settings and secrets that come by the environment and in files: one rule for the callers' side and the server's.

Editors, shells and secret stores put line ends, spaces and byte order marks around a value; they are no part of it.
What is empty without them counts as not given. It imports nothing of ours, so that the server can use it too.
"""

import os
import re
from pathlib import Path

import click

_MAX_SECRET_BYTES = 64 * 1024
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")


def clean(value: str) -> str:
    """Returns `value` without the whitespace and byte order marks around it."""
    before = None
    while value != before:
        before, value = value, value.strip().strip("\ufeff")
    return value


def from_environment(variable: str) -> str | None:
    """Returns what the environment has for `variable`, None if that is nothing."""
    return clean(os.environ.get(variable, "")) or None


def problem_of_secret(secret: str) -> str | None:
    """Says in words why `secret`, which is clean, can't be one; None if it can. The words hold nothing of it."""
    if not secret:
        return "is empty"
    if "\x00" in secret:
        return "is no text: it holds zero bytes, as binary files and UTF-16 do"
    if "\n" in secret or "\r" in secret:
        return "has more than one line"
    if _CONTROL_CHARACTER.search(secret):
        return "has a control character in it"
    try:
        secret.encode()
    except UnicodeEncodeError:
        return "isn't valid UTF-8"
    return None


def read_secret(path: Path) -> str:
    """Returns the secret in the file at `path`, which is text in UTF-8.

    Raises:
        ValueError: it can't be read, or holds no secret; in words, with the path and nothing out of the file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror or error}") from None
    if len(content) > _MAX_SECRET_BYTES:
        raise ValueError(f"{path} is larger than any secret ({_MAX_SECRET_BYTES} bytes)")
    if content.startswith(_UTF16_MARKS):
        raise ValueError(f"{path} is in UTF-16, as PowerShell writes it: save it as UTF-8")
    try:
        secret = clean(content.decode())
    except UnicodeDecodeError:
        secret, problem = "", "is not a text file in UTF-8"
    else:
        problem = problem_of_secret(secret) or ""
    if problem:
        raise ValueError(f"{path} {problem}")
    return secret


class EnvironmentOption(click.Option):
    """An option of a command that takes its environment variable by this module's rule."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:  # noqa: ARG002, click's signature
        """Returns the variable's value, None if it is not given."""
        assert isinstance(self.envvar, str)
        return from_environment(self.envvar)
