"""The operators' command line: `userprofile-server serve`, `import` and `check`."""

import logging
import signal
import sys
import threading
from typing import Any, BinaryIO, TypeVar

import click
from click.shell_completion import get_completion_class

from userprofile.text_input import TextInputError
from userprofile_server import logs, signals
from userprofile_server.check import check as check_store
from userprofile_server.errors import StoreError, StoreMisconfiguredError
from userprofile_server.importing import FORMATS, Importer
from userprofile_server.listen import ListenError
from userprofile_server.options import load, options
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import ServeSettings, StoreSettings
from userprofile_server.standard_streams import OutputError
from userprofile_server.stores import check_url, open_store

_log = logging.getLogger(__name__)

_STDOUT = 1

S = TypeVar("S", bound=StoreSettings)

EXIT_ROWS_REJECTED = 1
EXIT_FAILED = 3


class _InputFile(click.File):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-" and sys.stdin is None:
            self.fail("standard input is closed", param, ctx)
        return super().convert(value, param, ctx)


def _settings(kind: type[S], values: dict[str, Any]) -> S:
    """Raises click.UsageError for a value that can't be right, a store's URL too, before anything is opened."""
    settings = load(kind, values)
    try:
        check_url(settings.store)
    except StoreMisconfiguredError as error:
        raise click.BadParameter(str(error), param_hint="'--store'") from None
    return settings


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="userprofile")
def cli() -> None:
    """User profiles over gRPC, and never the password hash.

    Every option can also be given by the environment variable that its help names.

    \b
    Try it:
      echo '{"username":"johndoe","password":"secret"}' | userprofile-server import -
      userprofile-server serve
      userprofile get johndoe
    """


@cli.command()
@options(ServeSettings)
def serve(**values: Any) -> None:
    """Serve the users of a store.

    Prints "listening on HOST:PORT" to standard output as soon as calls are answered; logs go to
    standard error; if nobody reads them, lines are dropped and counted, and calls go on.

    SIGTERM, SIGINT, SIGHUP and SIGQUIT let calls in progress finish; a second one but SIGHUP cuts them
    off. Before it listens, they end it at once. SIGUSR1 and the like are ignored.

    Exit status: 0 if stopped by a signal, 2 for a wrong option, 3 if the store, the address or standard
    output can't be used.
    """
    settings = _settings(ServeSettings, values)
    events = signals.Events()
    log = logs.configure(settings.log_level)
    try:
        status = _serve(settings, events)
    except Exception:  # noqa: BLE001, a bug, and the last chance to tell it
        _log.exception("the server failed")
        status = EXIT_FAILED
    log.close()
    signals.end_process(status)


def _serve(settings: ServeSettings, events: signals.Events) -> int:
    server = UserProfileServer(settings)
    started: list[str | Exception] = []

    # In another thread, because a signal ends it wherever it is: in the SDK, or in a name server that doesn't answer.
    def start() -> None:
        try:
            started.append(server.start())
        except Exception as error:  # noqa: BLE001, told below
            started.append(error)
        events.tell()

    def drain() -> None:
        server.stop()
        events.tell()

    threading.Thread(target=start, name="start", daemon=True).start()
    stopped_by = events.wait()
    if stopped_by is not None:
        _log.info("%s: stopped before it served", stopped_by.name)
        return 0
    (result,) = started
    if isinstance(result, StoreError | ListenError):
        click.echo(f"error: {result}", err=True)
        return EXIT_FAILED
    if isinstance(result, Exception):
        raise result
    if events.wait_writable(_STDOUT):  # else a signal came first: nobody reads what we print
        try:
            click.echo(f"listening on {result}")
        except OutputError as error:
            server.stop(grace=0)
            click.echo(f"error: {error}", err=True)
            return EXIT_FAILED
    stopped_by = events.wait()
    assert stopped_by is not None  # nobody else has anything to tell yet
    _log.info("%s: finishing the calls in progress", stopped_by.name)
    threading.Thread(target=drain, name="drain", daemon=True).start()
    while (again := events.wait()) is not None:
        if again != signal.SIGHUP:  # a terminal that closes may send several
            server.stop(grace=0)
    _log.info("stopped")
    return 0


@cli.command(short_help="Say in plain words whether the store can be read.")
@options(StoreSettings)
@click.option("--full", is_flag=True, help="Look for damage in all of a SQLite file, not for 5 seconds at most.")
def check(full: bool, **values: Any) -> None:
    """Connect to the store, read from it, and say in plain words what is wrong.

    Changes nothing and creates nothing. Exit status: 0 if the store answers, 2 for a wrong option, 3 if it doesn't.
    """
    settings = _settings(StoreSettings, values)
    try:
        for line in check_store(settings, full=full):
            click.echo(line)
    except StoreError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)
    click.echo("ok")


@cli.command("import", short_help="Import users from a file of JSON lines.")
@click.argument("file", type=_InputFile("rb"))
@options(StoreSettings)
@click.option("--dry-run", is_flag=True, help="Check every row, store nothing.")
@click.option("--format", "format_", type=click.Choice(sorted(FORMATS)), help="The system that has exported FILE.")
@click.option("--username-field", metavar="NAME", help="The field of a row that becomes its username.")
def import_(file: BinaryIO, dry_run: bool, format_: str | None, username_field: str | None, **values: Any) -> None:
    """Import users from FILE, a JSON object for each; - is standard input.

    The objects stand one a line, one after the other, or in an array. UTF-8, UTF-16, UTF-32 and gzip are read.

    A row has a username, any of email, full_name and disabled, and either hashed_password, which
    is stored as it is, or password, which is hashed with Argon2id and not stored; a user who signs
    in elsewhere has neither. Other fields are kept as they stand; only a row with a password, or in
    the --format of another system, is written anew as JSON. A user who is there already is replaced.

    \b
    {"username": "johndoe", "email": "johndoe@example.com", "password": "secret"}
    {"username": "alice", "full_name": "Alice", "disabled": false, "hashed_password": "$argon2id$…"}

    A bad row is reported with its line number and doesn't stop the others; of many of a kind the
    first few are, and the summary counts them. Importing the same file again does no harm.

    Exit status: 0 if every row was imported, 1 if some were rejected, 2 for a wrong option, 3 if the
    store failed or FILE can't be read, 130, 143 or 129 if ended by SIGINT, SIGTERM or SIGHUP; what
    the summary counts is stored in every case.
    """
    settings = _settings(StoreSettings, values)
    with signals.raising(), _Progress(file) as progress:
        job = Importer(
            report=progress.report,
            advance=progress.update,
            dry_run=dry_run,
            format_=format_,
            username_field=username_field,
        )
        try:
            if dry_run:
                job.run(file, store=None)
            else:
                store = open_store(settings, writable=True)
                try:
                    job.run(file, store)
                finally:
                    store.close()
            status = EXIT_ROWS_REJECTED if job.rejected else 0
        except StoreError as error:
            progress.report(f"error: {error}")
            status = EXIT_FAILED
        except TextInputError as error:
            progress.report(f"error: {file.name} is {error}")
            status = EXIT_FAILED
        except OSError as error:
            progress.report(f"error: {file.name} can't be read: {error.strerror}")
            status = EXIT_FAILED
        except signals.Interrupted as interrupted:
            progress.report("interrupted")
            status = interrupted.exit_status
    click.echo(job.summary())
    sys.exit(status)


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
    """A progress bar on a terminal, by bytes read; nothing where stderr goes elsewhere."""

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
        """Prints a line, above the bar where there is one."""
        click.echo(f"\r\x1b[K{message}" if self._bar is not None else message, err=True)
