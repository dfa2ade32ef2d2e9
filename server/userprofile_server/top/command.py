"""The command `top`."""

import signal
import sys

import click

from userprofile.environment import SERVER_PREFIX
from userprofile_server import signals
from userprofile_server.listen import ListenAddress
from userprofile_server.signals import EXIT_FAILED


class _Address(click.ParamType[ListenAddress]):
    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ListenAddress:
        if isinstance(value, ListenAddress):
            return value
        try:
            address = ListenAddress.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not address.port:
            self.fail("has to be HOST:PORT, with the port that the server listens on", param, ctx)
        return address


@click.command(short_help="Show what a running server does, live.")
@click.option(
    "--metrics",
    "address",
    type=_Address(),
    required=True,
    envvar=f"{SERVER_PREFIX}METRICS_LISTEN",
    show_envvar=True,
    help="The address of its metrics: the server's --metrics-listen.",
)
@click.option(
    "--interval",
    type=click.FloatRange(1, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two looks, over which rates and durations are taken.",
)
@click.option("--once", is_flag=True, help="Look twice, print the tables once, and end.")
def top(address: ListenAddress, interval: float, once: bool) -> None:
    """Show rate, duration and errors of calls, the store, the queue, processes and certificates.

    The numbers are those of the server's metrics since the last look, which it gives to everybody who
    can connect to --metrics-listen. Durations are read off histograms: they are as exact as those.
    Ctrl-C ends it. If standard output isn't a terminal, the tables are printed one after the other.

    Exit status: 0, 2 for a wrong option, 3 if the address doesn't respond at the start.
    """
    # Imported here, because no other command needs rich.
    from userprofile_server.top.scrape import ScrapeError
    from userprofile_server.top.screen import show

    try:
        with signals.raising():
            show(address, interval, once=once)
    except signals.Interrupted as interrupted:
        ended = interrupted.exit_status == 128 + signal.SIGINT
        sys.exit(0 if ended else interrupted.exit_status)
    except ScrapeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)
