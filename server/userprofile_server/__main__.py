"""Entry point of `userprofile-server` and of `python -m userprofile_server`."""

import os
import sys

from userprofile_server import signals, standard_streams

EXIT_FAILED = 3

GRPC_EXPERIMENTS = "-event_engine_listener"
"""Lets the thread that waits for gRPC's events read the sockets too, as it did before grpcio 1.80.

Its event engine does so in threads of its own, and handing over what they have read takes 40 µs of CPU a call on
one core (docs/performance.md). gRPC's maintainers name the switch in https://github.com/grpc/grpc/pull/34100 and
mean to remove it, https://github.com/grpc/grpc/pull/42150: then grpcio says "Unknown experiment" at the start,
test_logs.py fails, and this line goes.
"""


def main() -> None:
    """Runs the operators' command line, or says what to install when only the client is here."""
    signals.end_at_once_on_interrupt()
    standard_streams.prepare()
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)  # before grpc is imported, which reads it
    try:
        from userprofile_server.cli import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("userprofile", "userprofile_server"):
            raise  # a broken installation of our own, not a missing extra
        sys.exit(
            f"userprofile-server: the package {error.name!r} is missing; the client alone doesn't need it.\n"
            "Install the server with: pip install 'userprofile[server]'"
        )
    try:
        cli(prog_name="userprofile-server")
    except standard_streams.OutputError as error:
        if not error.reader_has_left:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
