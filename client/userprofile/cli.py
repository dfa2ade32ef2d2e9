"""The callers' command line: `userprofile get johndoe`."""

import dataclasses
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import NoReturn

import click
from click.shell_completion import get_completion_class

from userprofile.batches import BATCH_SIZE
from userprofile.cli_options import connection_options
from userprofile.client import UserProfileClient
from userprofile.diagnosis import problems_by_address
from userprofile.errors import (
    UNREACHABLE,
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

# The first that fits counts.
_EXIT_STATUSES: dict[type[UserProfileError], int] = {
    InvalidUsernameError: _INVALID,
    UserNotFoundError: _NOT_FOUND,
    ServiceUnavailableError: _UNAVAILABLE,
    DeadlineExceededError: _UNAVAILABLE,
    UserProfileError: _FAILED,
}


# What gRPC says where nothing was there to answer. A gateway's HTTP status, an end of the connection or a handshake
# that failed come from something that runs.
_NOBODY = re.compile(
    r"refused|resolution failed|not known|no such file|unreachable|no route to host|timed? ?out|not set or invalid",
    re.IGNORECASE,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="userprofile", message="userprofile, version %(version)s")
def main() -> None:
    """Ask a userprofile service about users.

    Exit status: 0 if all is well, 2 for a wrong option or an invalid username, 3 if there is no such user,
    4 if the service can't be reached or takes too long, 1 for anything else.
    """


@main.command()
@click.argument("username")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, null where a field is unset.")
@connection_options
def get(client: UserProfileClient, username: str, as_json: bool) -> None:
    """Show the public profile of USERNAME."""
    try:
        user = client.get_user(username)
    except UserProfileError as error:
        _fail(error, client)
    click.echo(json.dumps(dataclasses.asdict(user)) if as_json else _render(user))


@main.command(short_help="Print the profiles of many users as JSON lines.")
@click.argument("usernames", nargs=-1)
@connection_options
def batch(client: UserProfileClient, usernames: tuple[str, ...]) -> None:
    """Print what there is to say of each of USERNAMES, as JSON lines in their order.

    Without USERNAMES it reads them from stdin, one a line and any number of them; blank lines are skipped. UTF-8,
    UTF-16, UTF-32 and gzip are read, with any line ends. Names are asked for by the hundred, four hundred ahead: the
    first answer comes once so many are there, or the input ends.

    Each name gets a line: {"username": …, "user": {…}}, with null as the user if nobody has the name, or
    {"username": …, "error": {"code": …, "reason": …, "message": …, "request_id": …}}. The exit status is that of the
    worst outcome.
    """
    statuses: Counter[int] = Counter()
    stdin = _NamesOfStdin()
    for username, outcome in client.iter_users(usernames or stdin):
        line: dict[str, object] = {"username": username}
        if isinstance(outcome, User):
            statuses[_FOUND] += 1
            line["user"] = dataclasses.asdict(outcome)
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
    _tell(f"{statuses[_FOUND]} found, {statuses[_NOT_FOUND]} not found, {failed} failed")
    if stdin.problem is not None:
        _tell(f"error: {stdin.problem}")
        statuses[_FAILED] += 1
    sys.exit(next((status for status in _BY_SEVERITY if statuses[status]), _FOUND))


@main.command(short_help="Say whether a server is serving.")
@connection_options
def health(client: UserProfileClient) -> None:
    """Say whether a server is SERVING, with exit status 0, or NOT_SERVING, with 4."""
    try:
        serving = client.check_health()
    except UserProfileError as error:
        _fail(error, client)
    click.echo("SERVING" if serving else "NOT_SERVING")
    sys.exit(_FOUND if serving else _UNAVAILABLE)


@main.command(short_help="Print a script that completes commands in your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in SHELL.

    For bash, put this into ~/.bashrc:

    \b
      eval "$(userprofile completion bash)"
    """
    complete = get_completion_class(shell)
    assert complete is not None  # click has one for each of the choices
    click.echo(complete(main, {}, "userprofile", "_USERPROFILE_COMPLETE").source())


def _tell(message: str) -> None:
    """Writes a line to stderr. Where nobody can read it, that is no reason to stop."""
    with suppress(OSError):
        click.echo(message, err=True)


class _NamesOfStdin:
    """The usernames that stdin lists. What ends them early is its `problem`: the names before it are asked for."""

    def __init__(self) -> None:
        self.problem: str | None = None

    def __iter__(self) -> Iterator[str]:
        if sys.stdin.isatty():
            _tell("usernames, one a line; end with Ctrl-D:")
        try:
            for number, line in enumerate(read_lines(sys.stdin.buffer), start=1):
                if BYTE_ORDER_MARK in line:
                    _tell(f"warning: line {number} has a byte order mark inside: are these two files?")
                if line.strip(" \t"):
                    yield line  # what isn't text is refused by its name
        except TextInputError as error:
            self.problem = f"standard input is {error}"
        except OSError as error:
            self.problem = f"standard input can't be read: {error.strerror}"


def _exit_status(error: UserProfileError) -> int:
    return next(status for kind, status in _EXIT_STATUSES.items() if isinstance(error, kind))


def _fail(error: UserProfileError, client: UserProfileClient) -> NoReturn:
    message = str(error)
    if error.reason == UNREACHABLE:
        cause = error.message
        if _NOBODY.search(cause):  # at this address; another one of the name may have more to say
            problems = problems_by_address(client._endpoint)
            cause = next((problem for problem in problems if not _NOBODY.search(problem)), cause)
        question = "; is it running?" if _NOBODY.search(cause) else ""
        message = f"no userprofile server answers at {client.target}{question} ({cause})"
    _tell(f"error: {message}")
    sys.exit(_exit_status(error))


def _render(user: User) -> str:
    rows = [(field.name.replace("_", " "), getattr(user, field.name)) for field in dataclasses.fields(user)]
    return "\n".join(f"{name:<10} {_printable(value)}" for name, value in rows)


def _printable(value: str | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # A profile's text must not steer the terminal that it is shown on.
    return printable(value)
