"""The operators' command line: `userprofile-server serve`, `import` and `check`."""

import logging
import signal
import socket
import sys
import threading
from typing import Any, BinaryIO

import click

from userprofile_server import logs
from userprofile_server.check import check as check_store
from userprofile_server.errors import StoreError
from userprofile_server.importing import Import, bounded_lines
from userprofile_server.listen import ListenError
from userprofile_server.options import load, options
from userprofile_server.server import UserProfileServer
from userprofile_server.settings import ServeSettings, StoreSettings
from userprofile_server.stores import open_store

_log = logging.getLogger(__name__)

_DRAINED = b"\0"  # no signal has this number

EXIT_ROWS_REJECTED = 1
EXIT_FAILED = 3
EXIT_INTERRUPTED = 130


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
    standard error. SIGTERM and SIGINT let calls in progress finish; a second one cuts them off.

    Exit status: 0 after a drain, 2 for a wrong option, 3 if the store or the address can't be used.
    """
    settings = load(ServeSettings, values)
    logs.configure(settings.log_level)
    server = UserProfileServer(settings)
    # What the main thread waits for: signals, and the end of the drain that the first of them begins.
    # By a socket, because one that arrives just before a lock is waited for wouldn't end the waiting.
    events, tell = socket.socketpair()
    tell.setblocking(False)
    signal.set_wakeup_fd(tell.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        address = server.start()
    except (StoreError, ListenError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)
    try:
        click.echo(f"listening on {address}")
    except OSError as error:
        server.stop(grace=0)
        click.echo(f"error: standard output can't be written: {error.strerror}", err=True)
        sys.exit(EXIT_FAILED)

    def drain() -> None:
        server.stop()
        tell.send(_DRAINED)

    events.recv(1)
    threading.Thread(target=drain, name="drain").start()
    while events.recv(1) != _DRAINED:
        server.stop(grace=0)
    _log.info("stopped")


@cli.command()
@options(StoreSettings)
def check(**values: Any) -> None:
    """Connect to the store, read from it, and say in plain words what is wrong.

    Exit status: 0 if the store answers, 2 for a wrong option, 3 if it doesn't.
    """
    settings = load(StoreSettings, values)
    try:
        for line in check_store(settings):
            click.echo(line)
    except StoreError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)
    click.echo("ok")


@cli.command("import")
@click.argument("file", type=click.File("rb"))
@options(StoreSettings)
@click.option("--dry-run", is_flag=True, help="Check every row, store nothing.")
def import_(file: BinaryIO, dry_run: bool, **values: Any) -> None:
    """Import users from FILE, one JSON object a line; - is standard input.

    A row has a username, any of email, full_name and disabled, and either hashed_password, which
    is stored as it is, or password, which is hashed with Argon2id and not stored. Other fields are
    kept as they stand; only a row with a password is written anew as JSON. A user who is there already is replaced.

    \b
    {"username": "johndoe", "email": "johndoe@example.com", "password": "secret"}
    {"username": "alice", "full_name": "Alice", "disabled": false, "hashed_password": "$argon2id$…"}

    A bad row is reported with its line number and doesn't stop the others. Importing the same file
    again does no harm.

    Exit status: 0 if every row was imported, 1 if some were rejected, 2 for a wrong option, 3 if the
    store failed, 130 if interrupted; what the summary counts is stored in every case.
    """
    settings = load(StoreSettings, values)
    with _Progress(file) as progress:
        job = Import(report=progress.report, advance=progress.update, dry_run=dry_run)
        try:
            if dry_run:
                job.run(bounded_lines(file), store=None)
            else:
                store = open_store(settings)
                try:
                    job.run(bounded_lines(file), store)
                finally:
                    store.close()
            status = EXIT_ROWS_REJECTED if job.rejected else 0
        except StoreError as error:
            progress.report(f"error: {error}")
            status = EXIT_FAILED
        except OSError as error:
            progress.report(f"error: {file.name} can't be read: {error.strerror}")
            status = EXIT_FAILED
        except KeyboardInterrupt:
            progress.report("interrupted")
            status = EXIT_INTERRUPTED
    click.echo(job.summary())
    sys.exit(status)


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
