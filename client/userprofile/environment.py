"""Settings and secrets from environment variables and files. The client and the server share these rules.

Editors, shells and secret stores add line ends, spaces and byte order marks around a value; they are removed. A value
that is empty then counts as not set. The server's variables begin with `USERPROFILE_SERVER_`; all others that begin
with `USERPROFILE_` are the client's.
"""

import os
import re
import select
import time
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from pathlib import Path

import click
from click.core import ParameterSource

from userprofile.printable import is_content, printable

CLIENT_VARIABLES = frozenset(
    f"USERPROFILE_{name}"
    for name in (
        "TARGET",
        "TIMEOUT",
        "RETRIES",
        "TOKEN",
        "TOKEN_FILE",
        "ALLOW_PLAINTEXT_TOKEN",
        "TLS",
        "TLS_CA",
        "TLS_CERTIFICATE",
        "TLS_KEY",
        "TLS_SERVER_NAME",
    )
)
"""The variables of the client's command. They are here because the server must not warn about them."""

SERVER_PREFIX = "USERPROFILE_SERVER_"
_PREFIX = "USERPROFILE_"

# Kubernetes sets such variables for each Service in every container. For a Service named `userprofile` they have our
# prefix. https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_KUBERNETES = re.compile(r"\w+_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_URL_OF_KUBERNETES = re.compile(r"(tcp|udp|sctp)://")

_NEAR = 0.6

_MAX_BYTES = 64 * 1024
_PIPE_SECONDS = 10.0
"""Seconds that a pipe may take to deliver all of its text: a shell may start its writer after this process."""

_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")


def clean(value: str) -> str:
    """Returns `value` without the whitespace and byte order marks around it."""
    before = None
    while value != before:
        before, value = value, value.strip().strip("\ufeff")
    return value


def from_environment(variable: str) -> str | None:
    """Returns the value of `variable`, None if it is unset or empty."""
    return clean(os.environ.get(variable, "")) or None


def unknown_variables(known: Iterable[str], *, foreign: str | None = None) -> list[str]:
    """Returns a warning for each variable that has our prefix but isn't a setting: it is probably a typo.

    Args:
        known: The variables that are settings.
        foreign: The prefix of another program's variables, which are ignored.
    """
    known = frozenset(known)
    lines = []
    for name in sorted(os.environ):
        value = from_environment(name)
        if not name.startswith(_PREFIX) or name in known or value is None:
            continue
        if foreign is not None and name.startswith(foreign):
            continue
        if _OF_KUBERNETES.fullmatch(name) or (name.endswith("_PORT") and _URL_OF_KUBERNETES.match(value)):
            continue
        prefix = SERVER_PREFIX if name.startswith(SERVER_PREFIX) else _PREFIX
        near = nearest(name, (each for each in known if each.startswith(prefix)), _without_prefix)
        hint = f"the nearest known one is {near}" if near else "--help lists the known ones"
        lines.append(f"the environment variable {printable(name)} is unknown and has no effect; {hint}")
    return lines


def _without_prefix(variable: str) -> str:
    return variable.removeprefix(_PREFIX).removeprefix("SERVER_")


def nearest(name: str, known: Iterable[str], short: Callable[[str], str]) -> str | None:
    """Returns the name in `known` that was probably meant by `name`, None if there is none.

    Compares the names shortened by `short`; the full names decide a tie.
    """

    def likeness(each: str) -> tuple[float, float]:
        return SequenceMatcher(None, short(name), short(each)).ratio(), SequenceMatcher(None, name, each).ratio()

    best = max(sorted(known), key=likeness, default=None)
    return best if best is not None and likeness(best)[0] > _NEAR else None


def problem_of_text(text: str) -> str | None:
    """Returns why `text`, which is stripped, can't be a secret or another setting; None if it can.

    The result contains nothing of `text`.
    """
    if not text:
        return "is empty"
    if "\x00" in text:
        return "is not text: it contains zero bytes, like binary files, UTF-16 and UTF-32"
    if "\n" in text or "\r" in text:
        return "has more than one line"
    if _CONTROL_CHARACTER.search(text):
        return "contains a control character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "isn't valid UTF-8"
    return None


def read_secret(path: Path) -> str:
    """Returns the secret in the UTF-8 file at `path`.

    Raises:
        ValueError: the file can't be read, or has no secret. The message names the path, and has no content of the
            file.
    """
    secret = clean(read_text(path, "secret"))
    if problem := problem_of_text(secret):
        raise ValueError(f"{path} {problem}")
    return secret


def read_text(path: Path, what: str, *, most: int = _MAX_BYTES) -> str:
    """Returns the text in the file at `path`: UTF-8, with or without a byte order mark, at most `most` bytes.

    Raises:
        ValueError: the file can't be read, is too large for a `what`, or is a pipe that nobody writes to. The message
            names the path, and has no content of the file.
    """
    if is_content(path):
        raise ValueError(f"the path of a file with the {what} is needed, not its content")
    try:
        content = _beginning(path, most + 1)
    except TimeoutError:
        raise ValueError(f"{path} is a pipe whose writer has not finished after {_PIPE_SECONDS:g} s") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror or error}") from None
    if len(content) > most:
        raise ValueError(f"{path} is larger than any {what} ({most} bytes)")
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"{path} is in {encoding}, as PowerShell can write it: save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file in UTF-8") from None


def _beginning(path: Path, most: int) -> bytes:
    """Returns the first `most` bytes of a file.

    Raises:
        TimeoutError: the file is a pipe, and its writer did not close it in time.
        OSError: the file can't be read.
    """
    content = b""
    deadline = time.monotonic() + _PIPE_SECONDS
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # otherwise this could wait forever for a pipe's writer
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while len(content) < most:
            if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            piece = os.read(descriptor, most - len(content))
            if not piece:
                break
            content += piece
    finally:
        os.close(descriptor)
    return content


class EnvironmentOption(click.Option):
    """An option whose environment variable is read by this module's rules."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:  # noqa: ARG002, click's signature
        """Returns the variable's value, None if it is not set."""
        assert isinstance(self.envvar, str)
        return from_environment(self.envvar)

    def value_from_envvar(self, ctx: click.Context) -> str | list[str] | None:
        """Returns the same; for an option that may be repeated, as one value. click would split it at spaces."""
        value = self.resolve_envvar_value(ctx)
        return [value] if self.multiple and value is not None else value

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Names the option, and the variable if the value comes from there."""
        source = None if ctx is None else ctx.get_parameter_source(self.name or "")
        return f"'{self.opts[0]}'" + (f" (from {self.envvar})" if source == ParameterSource.ENVIRONMENT else "")
