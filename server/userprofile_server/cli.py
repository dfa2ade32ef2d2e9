"""The operators' command line: `userprofile-server serve`, `import` and `check`; see also callers_cli.py and top/."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, TypeVar

import click
from click.shell_completion import get_completion_class

from userprofile.text_input import TextInputError
from userprofile_server import callers_cli, process, signals
from userprofile_server.check import CheckSettings
from userprofile_server.check import check as check_all
from userprofile_server.errors import SecurityError, StoreError, StoreMisconfiguredError
from userprofile_server.importing import FORMATS, Importer
from userprofile_server.processes.plan import Plan, plan_for
from userprofile_server.settings import Settings
from userprofile_server.settings_cli import load, options
from userprofile_server.signals import EXIT_FAILED
from userprofile_server.stores import backend_of, check_url, open_store
from userprofile_server.stores.settings import StorageSettings
from userprofile_server.top.command import top

S = TypeVar("S", bound=StorageSettings)

EXIT_ROWS_REJECTED = 1


class _InputFile(click.File):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-" and sys.stdin is None:
            self.fail("standard input is closed", param, ctx)
        return super().convert(value, param, ctx)


def _settings(kind: type[S], values: dict[str, Any]) -> S:
    """Builds the settings. Raises click.UsageError for an invalid value or store URL, before anything is opened."""
    settings = load(kind, values)
    try:
        check_url(settings.store.url)
    except StoreMisconfiguredError as error:
        raise click.BadParameter(str(error), param_hint="'--store'") from None
    return settings


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="userprofile")
def cli() -> None:
    """User profiles over gRPC, and never the password hash.

    Every option can also be given by the environment variable that its help names, or in a file; see --config.

    \b
    Try it:
      echo '{"username":"johndoe","password":"secret"}' | userprofile-server import -
      userprofile-server serve
      userprofile get johndoe
    """


cli.add_command(callers_cli.token)
cli.add_command(callers_cli.policy)
cli.add_command(top)


class _Serve(click.Command):
    """A command that remembers its arguments, so that the settings can be reread."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["args"] = list(args)
        return super().parse_args(ctx, args)


@cli.command(cls=_Serve)
@options(Settings)
@click.pass_context
def serve(ctx: click.Context, /, **values: Any) -> None:
    """Serve the users of a store.

    Prints "listening on HOST:PORT" to standard output once it accepts calls. Logs go to standard
    error; if nobody reads them, lines are dropped and counted, and calls go on.

    SIGTERM, SIGINT, SIGHUP and SIGQUIT drain: no new calls, and calls in progress finish. Except after
    SIGINT, calls are accepted for --drain-delay before that, while health reports NOT_SERVING. A second
    signal other than SIGHUP cancels all calls. Before the server listens, a signal ends it at once.
    SIGUSR1 and similar signals are ignored. With several --processes SIGHUP reads the settings file
    again and replaces the processes, one after the other, while the others serve.

    Exit status: 0 if stopped by a signal, 2 for a wrong option, 3 if the store, the address or standard
    output can't be used, or if no process stays up.
    """
    plan = _plan(values)
    log = plan.settings.log
    # Imported here, because the supervisor must not import gRPC, which takes 25 MB.
    if plan.processes == 1:
        from userprofile_server.serve import serve

        process.run(partial(serve, plan.settings), log=log)
    else:
        from userprofile_server.processes.supervisor import supervise

        process.run(partial(supervise, plan, _reading_again(ctx)), log=log, name="supervisor")


def _plan(values: dict[str, Any]) -> Plan:
    """Returns the settings and the number of processes. Raises click.UsageError for invalid values."""
    try:
        return plan_for(_settings(Settings, values))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="'--processes'") from None


def _reading_again(ctx: click.Context) -> Callable[[], Plan]:
    """Returns a function that rereads the settings, with the original arguments and environment.

    The function raises click.UsageError for invalid values.
    """

    def read() -> Plan:
        with ctx.command.make_context(ctx.info_name, list(ctx.meta["args"]), ctx.parent) as again:
            return _plan(again.params)

    return read


@cli.command(short_help="Check that the store can be read, and files of certificates, tokens and rules.")
@options(CheckSettings)
@click.option("--full", is_flag=True, help="Check all of a SQLite file for damage, not only for 5 seconds.")
def check(full: bool, **values: Any) -> None:
    """Read the given files, connect to the store, read from it, and explain what is wrong.

    Of certificates it says how long they are valid.

    Changes nothing and creates nothing. Exit status: 0 if the store can be read, 2 for a wrong option, 3 if it can't.
    """
    settings = _settings(CheckSettings, values)
    try:
        for line in check_all(settings, full=full):
            click.echo(line)
    except (SecurityError, StoreError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)
    click.echo("ok")


@cli.command("import", short_help="Import users from a file of JSON lines.")
@click.argument("file", type=_InputFile("rb"))
@options(StorageSettings)
@click.option("--dry-run", is_flag=True, help="Check every row, store nothing.")
@click.option("--format", "format_", type=click.Choice(sorted(FORMATS)), help="The system that exported FILE.")
@click.option("--username-field", metavar="NAME", help="The field of a row to take the username from.")
def import_(file: BinaryIO, dry_run: bool, format_: str | None, username_field: str | None, **values: Any) -> None:
    """Import users from FILE, one JSON object per user; - is standard input.

    The objects may be one per line, one after the other, or in an array. UTF-8, UTF-16, UTF-32 and
    gzip are read.

    A row has a username, any of email, full_name and disabled, and either hashed_password, which
    is stored unchanged, or password, which is hashed with Argon2id and not stored. A user who signs
    in elsewhere has neither. Other fields are kept unchanged. A row is stored byte for byte, unless it
    has a password or is in the --format of another system. An existing user is replaced.

    \b
    {"username": "johndoe", "email": "johndoe@example.com", "password": "secret"}
    {"username": "alice", "full_name": "Alice", "disabled": false, "hashed_password": "$argon2id$…"}

    A bad row is reported with its line number and doesn't stop the others. Of many bad rows of one
    kind only the first few are reported; the summary counts all. Importing a file twice is safe.

    Exit status: 0 if every row was imported, 1 if some were rejected, 2 for a wrong option, 3 if the
    store failed or FILE can't be read, 130, 143 or 129 if ended by SIGINT, SIGTERM or SIGHUP. What
    the summary counts as imported is stored in every case.
    """
    settings = _settings(StorageSettings, values)
    progress = _Progress(file)
    job = Importer(
        report=progress.report,
        advance=progress.update,
        dry_run=dry_run,
        format_=format_,
        username_field=username_field,
    )
    with signals.raising() as stop_raising:
        try:
            with progress:
                status = _import(job, file, None if dry_run else settings, progress.report)
            stop_raising()
        except signals.Interrupted as interrupted:
            progress.report("interrupted")
            status = interrupted.exit_status
        click.echo(job.summary())
    if job.unsure:
        signals.end_process(status)  # a normal exit would wait for the store
    sys.exit(status)


def _import(job: Importer, file: BinaryIO, settings: StorageSettings | None, report: Callable[[str], None]) -> int:
    """Returns the exit status. Without `settings`, nothing is stored."""
    try:
        if settings is None:
            job.run(file, store=None)
        else:
            backend_of(settings.store.url).look_before_opening(settings)
            store = open_store(settings, writable=True)
            try:
                job.run(file, store)
            finally:
                if not job.unsure:
                    store.close()
    except StoreError as error:
        report(f"error: {error}")
    except TextInputError as error:
        report(f"error: {file.name} is {error}")
    except OSError as error:
        report(f"error: {file.name} can't be read: {error.strerror}")
    else:
        return EXIT_ROWS_REJECTED if job.rejected else 0
    return EXIT_FAILED


@cli.command(short_help="Print a script that completes commands in your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands and options in SHELL.

    \b
    For bash, put this into ~/.bashrc:
      eval "$(userprofile-server completion bash)"
    """
    complete = get_completion_class(shell)
    assert complete is not None  # click has one for each of the choices
    click.echo(complete(cli, {}, "userprofile-server", "_USERPROFILE_SERVER_COMPLETE").source())


class _Progress:
    """A progress bar by bytes read, if stderr is a terminal; nothing otherwise."""

    def __init__(self, file: BinaryIO) -> None:
        size = 0
        if sys.stderr.isatty() and file.seekable():
            size = file.seek(0, 2)
            file.seek(0)
        self._bar = click.progressbar(length=size, label="importing", file=sys.stderr) if size else None

    def __enter__(self) -> "_Progress":
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(*exc)

    def update(self, size: int) -> None:
        if self._bar is not None:
            self._bar.update(size)

    def report(self, message: str) -> None:
        """Prints a line, above the bar if there is one."""
        click.echo(f"\r\x1b[K{message}" if self._bar is not None else message, err=True)
