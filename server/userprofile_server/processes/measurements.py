"""The metrics of all servers of a supervisor, and its own."""

import time
from collections.abc import Iterable

from userprofile_server.processes.spawned import Spawned
from userprofile_server.telemetry import logs, metrics
from userprofile_server.telemetry.page import Page
from userprofile_server.telemetry.recorder import Totals
from userprofile_server.telemetry.snapshot import Gauge

SECONDS = 1.0
"""Seconds between two looks at the servers' metrics. What a killed one did since the last look is not counted."""


class Measurements:
    """Keeps the sum of the servers that have ended, so that no total falls when one does.

    The supervisor's thread calls everything but `page`.
    """

    def __init__(self) -> None:
        """Starts with nothing measured."""
        self.next_at = float("-inf")
        """When to look next, by the monotonic clock."""
        self._ended = Totals()
        self._published: tuple[list[Totals], dict[str, list[Gauge]]] = [], {}

    def measure(self, servers: Iterable[Spawned]) -> None:
        """Asks the servers for their metrics, once a second."""
        if time.monotonic() >= self.next_at:
            self.next_at = time.monotonic() + SECONDS
            for server in servers:
                server.measure()

    def ended(self, server: Spawned, *, restarted: bool) -> None:
        """Keeps what a server that has ended has counted, and whether another one is started for it."""
        ended = Totals()
        ended.add(self._ended)  # a copy, since a page may be made of the former sum at this moment
        ended.add(server.snapshot.totals)
        if restarted:
            ended.counters[_RESTARTS] = ended.counters.get(_RESTARTS, 0) + 1
        self._ended = ended

    def publish(self, servers: Iterable[Spawned], current: Iterable[Spawned]) -> None:
        """Publishes the totals of all servers, and the gauges of those that are not about to be replaced."""
        own = Totals()
        own.counters = {_RESTARTS: 0, _LOG_DROPPED: logs.lines_dropped()}
        serving = [server for server in current if server.address is not None]
        self._published = (
            [own, self._ended, *(server.snapshot.totals for server in servers)],
            {str(server.number): server.snapshot.gauges for server in serving},
        )

    def page(self) -> Page:
        """Returns a page with what was published last. Any thread may call it."""
        totals, gauges = self._published
        return Page(totals, gauges)


_RESTARTS, _LOG_DROPPED = (metrics.PROCESS_ENDS.name,), (metrics.LOG_DROPPED.name,)
