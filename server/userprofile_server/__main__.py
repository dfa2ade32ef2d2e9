"""Entry point of `userprofile-server` and of `python -m userprofile_server`."""

import os
import sys

from userprofile_server import signals, standard_streams
from userprofile_server.signals import EXIT_FAILED

GRPC_EXPERIMENTS = "-event_engine_listener"
"""Makes the thread that polls gRPC's completion queue read the sockets too, as before grpcio 1.80.

By default the event engine reads in its own threads, and the handover costs 40 µs of CPU per call on one core
(docs/performance.md). gRPC's maintainers name the switch in https://github.com/grpc/grpc/pull/34100 and plan to remove
it in https://github.com/grpc/grpc/pull/42150. Then grpcio will print "Unknown experiment" at the start, and
test_logs.py will fail: remove this line.
"""


def main() -> None:
    """Runs the operators' command line, or says what to install if only the client is installed."""
    signals.end_at_once_on_interrupt()
    standard_streams.prepare()
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)  # before grpc is imported, which reads it
    try:
        from userprofile_server.cli import cli

        cli(prog_name="userprofile-server")
    except standard_streams.OutputError as error:
        if not error.reader_has_left:
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_FAILED)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("userprofile", "userprofile_server"):
            raise  # a broken installation, not a missing extra
        sys.exit(
            f"userprofile-server: the package {error.name!r} is missing; the client alone doesn't need it.\n"
            "Install the server with: pip install 'userprofile[server]'"
        )


if __name__ == "__main__":
    main()
