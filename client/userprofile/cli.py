"""The callers' command line: `userprofile get johndoe`."""

import dataclasses
import json
import sys

import click

from userprofile.client import DEFAULT_TARGET, DEFAULT_TIMEOUT, UserProfileClient
from userprofile.errors import (
    DeadlineExceededError,
    InvalidUsernameError,
    ServiceUnavailableError,
    UserNotFoundError,
    UserProfileError,
)
from userprofile.user import User

# The first that fits counts. Anything else exits with 1.
_EXIT_STATUSES: dict[type[UserProfileError], int] = {
    InvalidUsernameError: 2,
    UserNotFoundError: 3,
    ServiceUnavailableError: 4,
    DeadlineExceededError: 4,
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="userprofile")
def main() -> None:
    """Ask a userprofile service about users."""


@main.command()
@click.argument("username")
@click.option(
    "--target",
    default=DEFAULT_TARGET,
    envvar="USERPROFILE_TARGET",
    show_default=True,
    show_envvar=True,
    help="The server: host:port, or unix:path.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_TIMEOUT,
    envvar="USERPROFILE_TIMEOUT",
    show_default=True,
    show_envvar=True,
    help="Seconds to wait for the answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, null where a field is unset.")
def get(username: str, target: str, timeout: float, as_json: bool) -> None:
    """Show the public profile of USERNAME.

    Exit status: 0 if found, 2 for a wrong option or an invalid username, 3 if there is no such user,
    4 if the service can't be reached or takes too long, 1 for anything else.
    """
    if not target:
        raise click.BadParameter("must not be empty", param_hint="--target")
    with UserProfileClient(target, timeout=timeout) as client:
        try:
            user = client.get_user(username)
        except UserProfileError as error:
            click.echo(f"error: {_explain(error, target)}", err=True)
            sys.exit(next((status for kind, status in _EXIT_STATUSES.items() if isinstance(error, kind)), 1))
    click.echo(json.dumps(dataclasses.asdict(user)) if as_json else _render(user))


def _explain(error: UserProfileError, target: str) -> str:
    if isinstance(error, ServiceUnavailableError) and error.reason is None:
        return f"no userprofile server answers at {target}; is it running? ({error.message})"
    return str(error)


def _render(user: User) -> str:
    rows = [(field.name.replace("_", " "), getattr(user, field.name)) for field in dataclasses.fields(user)]
    return "\n".join(f"{name:<10} {_printable(value)}" for name, value in rows)


def _printable(value: str | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # A profile's text must not steer the terminal that it is shown on.
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in value)
