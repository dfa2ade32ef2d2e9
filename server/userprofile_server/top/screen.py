"""Shows the tables, in place on a terminal that can do that, elsewhere one after the other."""

import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live

from userprofile_server.listen import ListenAddress
from userprofile_server.top.figures import Figures
from userprofile_server.top.scrape import ScrapeError, scrape
from userprofile_server.top.view import view

_WIDTH = 120
"""Columns where there is no terminal."""


def show(address: ListenAddress, interval: float, *, once: bool) -> None:
    """Looks every `interval` seconds, for ever unless `once`.

    Raises:
        ScrapeError: the first two looks failed.
    """
    output = sys.stdout or sys.stderr  # None if it's closed
    console = Console(file=output, force_terminal=output.isatty(), width=None if output.isatty() else _WIDTH)
    if console.is_terminal and not console.is_dumb_terminal and not once:
        with Live(console=console, screen=True, auto_refresh=False) as screen:
            for figures, problem in _looks(address, interval):
                screen.update(view(str(address), figures, problem), refresh=True)
    for figures, problem in _looks(address, interval):
        console.print(view(str(address), figures, problem))
        if once:
            return
        console.print()


def _looks(address: ListenAddress, interval: float) -> Iterator[tuple[Figures, str | None]]:
    """Yields what happened between the last two looks, and why the present one has failed, if it has."""
    before, figures = scrape(address), None
    while True:
        time.sleep(interval)
        problem = None
        try:
            after = scrape(address)
        except ScrapeError as error:
            if figures is None:
                raise
            problem = str(error)
        else:
            before, figures = after, Figures(before, after)
        yield figures, problem
