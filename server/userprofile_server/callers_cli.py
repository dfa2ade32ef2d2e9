"""The commands about callers: `token new` and `policy check`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from userprofile.printable import printable
from userprofile_server.security.tokens import TokenNameError, new_token
from userprofile_server.signals import EXIT_FAILED

if TYPE_CHECKING:
    from userprofile_server.security.policy import Policy

EXIT_DENIED = 1

ANONYMOUS = "anonymous"


@click.group(short_help="Make tokens for callers.")
def token() -> None:
    """Make tokens for callers."""


@token.command()
@click.argument("name")
@click.option("--tokens", "file", required=True, metavar="FILE", help="The file to add it to; created if need be.")
def new(name: str, file: str) -> None:
    """Make a token for the caller NAME, and print it.

    FILE gets a line with the name and the token's SHA-256. The token itself is nowhere else: give it to
    the caller at once. Running servers accept it within seconds. To replace a token, make a new one
    under the same name, and delete the line of the old one once nobody uses it.

    Exit status: 0 if the token is in the file, 2 for a wrong name, 3 if the file can't be written or isn't one of
    tokens, or if the token can't be printed: then the file stays as it was.
    """
    try:
        new_token(name, Path(file), _print)
    except TokenNameError as error:
        raise click.BadParameter(str(error), param_hint="'NAME'") from None
    except ValueError as error:
        _fail(str(error))


def _print(token: str) -> None:
    if sys.stdout is None:
        raise ValueError("standard output is closed, so nobody would get the token")
    click.echo(token)


@click.group(short_help="Check who may call what.")
def policy() -> None:
    """Check who may call what."""


@policy.command()
@click.argument("file")
@click.option("--as", "principal", metavar="PRINCIPAL", help=f"Show what this caller may; or: {ANONYMOUS}.")
@click.option("--method", metavar="METHOD", help="Only for this method: GetUser or /userprofile.v1.…/GetUser.")
def check(file: str, principal: str | None, method: str | None) -> None:
    """Check the policy in FILE, and show what a caller may call and see.

    \b
    PRINCIPAL is what a policy calls a caller:
      spiffe://example.org/web   the SPIFFE URI of a client certificate
      dns:web.example.org        its DNS name, if it has no such URI
      token:NAME                 the name of a token
      jwt:SUBJECT                the sub of a JSON Web Token
      anonymous                  a caller without an identity

    Health checks are for everybody, whatever the policy says.

    What is right and can't be meant so, as a path that no method of this server has, is a warning.

    Exit status: 0 if the policy can be used, and the caller, if given with a method, may call it; 1 if the
    caller may not; 2 for a wrong option; 3 if the policy can't be used.
    """
    # Imported here, because the supervisor of `serve` must not import protobuf.
    from userprofile_server.rpc.decided import METHODS  # gRPC takes a third of a second
    from userprofile_server.security.policy import KINDS, read_policy

    paths = list(METHODS)
    if principal is not None and principal != ANONYMOUS and not principal.startswith(KINDS):
        raise click.BadParameter(
            f"begins with {', '.join(KINDS[:-1])} or {KINDS[-1]}, or is {ANONYMOUS}", param_hint="'--as'"
        )
    if method is not None:
        if principal is None:
            raise click.UsageError("--method needs --as")
        paths = [path for path in paths if path == method or path.rpartition("/")[2] == method]
        if not paths:
            names = ", ".join(dict.fromkeys(path.rpartition("/")[2] for path in METHODS))
            raise click.BadParameter(f"a policy decides about {names}", param_hint="'--method'")
    try:
        checked = read_policy(Path(file))
    except ValueError as error:
        _fail(str(error))
    for doubt in checked.doubts(METHODS):
        click.echo(f"warning: {file}: {doubt}", err=True)
    if principal is None:
        click.echo("ok")
        return
    allowed = _show(checked, None if principal == ANONYMOUS else principal, paths)
    sys.exit(EXIT_DENIED if method is not None and not allowed else 0)


def _show(checked: "Policy", principal: str | None, paths: Iterable[str]) -> bool:
    """Prints a table, and returns whether everything in it is allowed."""
    from userprofile_server.security.policy import FIELDS

    rows = [("METHOD", "MAY CALL", "SEES", "BY")]
    for path in paths:
        decision = checked.decide(principal, path)
        if decision is None:
            rows.append((path, "no", "", ""))
        else:
            shown = [name for name in FIELDS if decision.fields is None or name in decision.fields]
            sees = ", ".join(shown) if path.startswith("/userprofile.") else ""
            rows.append((path, "yes", sees, printable(", ".join(decision.rules))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return all(may == "yes" for _, may, _, _ in rows[1:])


def _fail(problem: str) -> None:
    click.echo(f"error: {problem}", err=True)
    sys.exit(EXIT_FAILED)
