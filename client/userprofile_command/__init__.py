"""The command `userprofile` from its start to its end: streams, encodings, Ctrl-C, exit status.

A package of its own because it has to be there before `userprofile` is: what that imports takes a good while, in which
Ctrl-C may be pressed, and gRPC reads its environment then.
"""

import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import click

_INTERRUPTED = 128 + signal.SIGINT
_FAILED = 1


def main() -> NoReturn:
    """Runs the callers' command line."""
    # gRPC's own log is for those who look into gRPC; what a caller can use of it stands in the errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    run(_client)


def _client() -> "click.Command":
    from userprofile.cli import main

    return main


def run(load: Callable[[], "click.Command"]) -> NoReturn:
    """Runs the command that `load` imports, and ends the process, without a traceback whatever its surroundings are.

    Exits by the command's own status, by 1 if its output can't be written, by 130 after Ctrl-C.
    """
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored, as by nohup
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing has begun that would have to be ended in order
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal's encoding lacks is shown by its number
    command = load()
    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = _status_of(command)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_end_output(status))


def _open_missing_streams() -> None:
    """Gives the process all three streams: gRPC's first socket would take the number of one that was closed.

    Whoever reads or writes a closed one gets EBADF, and not silence; only what would go to stderr is lost.
    """
    for number, name, missing in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, missing)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def _status_of(command: "click.Command") -> int:
    import click

    try:
        result = command.main(standalone_mode=False)
    except click.Abort:  # Ctrl-C
        with suppress(OSError):
            click.echo("interrupted", err=True)
        return _INTERRUPTED
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else _FAILED if end.code else 0
    except OSError as error:
        return _unwritable(error)
    return result if isinstance(result, int) else 0


def _end_output(status: int) -> int:
    """Writes what is still held back. Returns the status to exit by."""
    try:
        sys.stdout.flush()
    except OSError as error:
        status = _unwritable(error)
    try:
        sys.stderr.flush()
    except OSError:
        _send_to_nowhere(2)
    return status


def _unwritable(error: OSError) -> int:
    _send_to_nowhere(1)
    if not isinstance(error, BrokenPipeError):  # whoever read it, as `head` does, has had enough
        with suppress(OSError):
            sys.stderr.write(f"error: the output can't be written: {error.strerror}\n")
    return _FAILED


def _send_to_nowhere(stream: int) -> None:
    """Keeps Python from trying again at its end, where it would print that it fails, and exit by 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)
