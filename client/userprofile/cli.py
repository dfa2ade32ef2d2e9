"""The callers' command line: `userprofile get johndoe`."""

import dataclasses
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NoReturn

import click
from click.shell_completion import get_completion_class

from userprofile import reasons
from userprofile.batches import BATCH_SIZE
from userprofile.cli_options import connection_options
from userprofile.client import UserProfileClient
from userprofile.diagnosis import problems_by_address
from userprofile.errors import (
    DeadlineExceededError,
    InvalidUsernameError,
    ServiceUnavailableError,
    UserNotFoundError,
    UserProfileError,
)
from userprofile.printable import printable
from userprofile.text_input import BYTE_ORDER_MARK, TextInputError, read_lines
from userprofile.user import User

_FOUND, _FAILED, _INVALID, _NOT_FOUND, _UNAVAILABLE = range(5)
"""The exit statuses."""

_BY_SEVERITY = [_UNAVAILABLE, _FAILED, _INVALID, _NOT_FOUND, _FOUND]

# The first matching class counts.
_EXIT_STATUSES: dict[type[UserProfileError], int] = {
    InvalidUsernameError: _INVALID,
    UserNotFoundError: _NOT_FOUND,
    ServiceUnavailableError: _UNAVAILABLE,
    DeadlineExceededError: _UNAVAILABLE,
    UserProfileError: _FAILED,
}


# gRPC's messages if no server was there. Not those for a gateway's HTTP status, a closed connection or a failed
# handshake: there something is running.
_NOBODY = re.compile(
    r"refused|resolution failed|not known|no such file|unreachable|no route to host|timed? ?out|not set or invalid",
    re.IGNORECASE,
)


_FIELDS = [field.name for field in dataclasses.fields(User)]
_ALL_FIELDS = "*"


def _parse_fields(_context: click.Context, _option: click.Parameter, text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    unknown = next((name for name in names if name not in (*_FIELDS, _ALL_FIELDS)), None)
    if unknown is not None:
        raise click.BadParameter(f"{printable(unknown)!r} is not a field; the fields are {', '.join(_FIELDS)}.")
    return None if _ALL_FIELDS in names else names


_fields_option: Callable[..., Callable[..., None]] = click.option(
    "--fields",
    metavar="NAME,…",
    callback=_parse_fields,
    help=f"Request only these of {', '.join(_FIELDS)}, or * for all; the username is always returned.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="userprofile", message="userprofile, version %(version)s")
def main() -> None:
    """Look up user profiles.

    Exit status: 0 on success, 2 for a usage error or an invalid username, 3 if there is no such user,
    4 if the service is unavailable or too slow, 1 for any other error.
    """


@main.command()
@click.argument("username")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object; fields without a value are null.")
@_fields_option
@connection_options
def get(client: UserProfileClient, username: str, as_json: bool, fields: list[str] | None) -> None:
    """Show the public profile of USERNAME."""
    try:
        user = client.get_user(username, fields=fields)
    except UserProfileError as error:
        _fail(error, client)
    shown = _shown(user, fields)
    click.echo(json.dumps(shown) if as_json else _render(shown))


@main.command(short_help="Print the profiles of many users as JSON lines.")
@click.argument("usernames", nargs=-1)
@_fields_option
@connection_options
def batch(client: UserProfileClient, usernames: tuple[str, ...], fields: list[str] | None) -> None:
    """Print the public profiles of USERNAMES as JSON lines, in order.

    Without USERNAMES, reads any number of them from stdin, one per line. Blank lines are skipped. The input may be
    UTF-8, UTF-16 or UTF-32, compressed by gzip or not, with any line endings. Each call requests 100 users, and four
    calls are in flight: output starts after 400 usernames, or at the end of the input.

    The output has one line per username: {"username": …, "user": {…}}, with null if there is no user,
    or {"username": …, "error": {"code": …, "reason": …, "message": …, "request_id": …}}. The exit status is that
    of the worst outcome.
    """
    statuses: Counter[int] = Counter()
    stdin = _NamesOfStdin()
    for username, outcome in client.iter_users(usernames or stdin, fields=fields):
        line: dict[str, object] = {"username": username}
        if isinstance(outcome, User):
            statuses[_FOUND] += 1
            line["user"] = _shown(outcome, fields)
        else:
            statuses[_exit_status(outcome)] += 1
            if isinstance(outcome, UserNotFoundError):
                line["user"] = None
            else:
                line["error"] = {
                    "code": outcome.code.name,
                    "reason": outcome.reason,
                    "message": outcome.message,
                    "request_id": outcome.request_id,
                }
        sys.stdout.write(json.dumps(line) + "\n")
        if statuses.total() % BATCH_SIZE == 0:
            sys.stdout.flush()
    sys.stdout.flush()
    failed = statuses.total() - statuses[_FOUND] - statuses[_NOT_FOUND]
    _print_stderr(f"{statuses[_FOUND]} found, {statuses[_NOT_FOUND]} not found, {failed} failed")
    if stdin.problem is not None:
        _print_stderr(f"error: {stdin.problem}")
        statuses[_FAILED] += 1
    sys.exit(next((status for status in _BY_SEVERITY if statuses[status]), _FOUND))


@main.command(short_help="Check whether a server is serving.")
@connection_options
def health(client: UserProfileClient) -> None:
    """Print the health of a server: SERVING (exit status 0) or NOT_SERVING (exit status 4)."""
    try:
        serving = client.check_health()
    except UserProfileError as error:
        _fail(error, client)
    click.echo("SERVING" if serving else "NOT_SERVING")
    sys.exit(_FOUND if serving else _UNAVAILABLE)


@main.command(short_help="Print a shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script for SHELL.

    For bash, add this to ~/.bashrc:

    \b
      eval "$(userprofile completion bash)"
    """
    complete = get_completion_class(shell)
    assert complete is not None  # click has one for each of the choices
    click.echo(complete(main, {}, "userprofile", "_USERPROFILE_COMPLETE").source())


def _print_stderr(message: str) -> None:
    """Writes a line to stderr. Ignores errors: an unreadable stderr is no reason to stop."""
    with suppress(OSError):
        click.echo(message, err=True)


class _NamesOfStdin:
    """The usernames from stdin. `problem` is the error that ended them early; the users before it are requested."""

    def __init__(self) -> None:
        self.problem: str | None = None

    def __iter__(self) -> Iterator[str]:
        if sys.stdin.isatty():
            _print_stderr("enter usernames, one per line; end with Ctrl-D:")
        try:
            for number, line in enumerate(read_lines(sys.stdin.buffer), start=1):
                if BYTE_ORDER_MARK in line:
                    _print_stderr(f"warning: line {number} contains a byte order mark: is the input two files joined?")
                if line.strip(" \t"):
                    yield line  # a line that isn't valid text gets an error of its own
        except TextInputError as error:
            self.problem = f"standard input is {error}"
        except OSError as error:
            self.problem = f"standard input can't be read: {error.strerror}"


def _exit_status(error: UserProfileError) -> int:
    return next(status for kind, status in _EXIT_STATUSES.items() if isinstance(error, kind))


def _fail(error: UserProfileError, client: UserProfileClient) -> NoReturn:
    message = str(error)
    if error.reason == reasons.SERVICE_UNREACHABLE:
        cause = error.message
        if _NOBODY.search(cause):  # at this address; the name's other addresses may have another problem
            problems = problems_by_address(client._channel_config)
            cause = next((problem for problem in problems if not _NOBODY.search(problem)), cause)
        question = "; is it running?" if _NOBODY.search(cause) else ""
        message = f"no userprofile server reachable at {client.target}{question} ({cause})"
    _print_stderr(f"error: {message}")
    sys.exit(_exit_status(error))


def _shown(user: User, fields: list[str] | None) -> dict[str, str | bool | None]:
    """Returns the requested fields of `user`; whether the others are set is unknown."""
    return {name: getattr(user, name) for name in _FIELDS if fields is None or name in ("username", *fields)}


def _render(shown: dict[str, str | bool | None]) -> str:
    return "\n".join(f"{name.replace('_', ' '):<10} {_printable(value)}" for name, value in shown.items())


def _printable(value: str | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # A profile's text must not control the terminal.
    return printable(value)
