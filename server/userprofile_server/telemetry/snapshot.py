"""What one process says of itself, and the sum of several."""

import functools
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from userprofile_server.telemetry import metrics
from userprofile_server.telemetry.recorder import Key, Totals

Gauge = tuple[Key, float]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Snapshot:
    """The metrics of one process at one moment."""

    totals: Totals = field(default_factory=Totals)
    gauges: list[Gauge] = field(default_factory=list)

    def to_plain(self) -> list[Any]:
        """Returns it as JSON types."""
        return [self.totals.to_plain(), [[list(key), value] for key, value in self.gauges]]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> "Snapshot":
        """Returns the snapshot that `to_plain` has described."""
        totals, gauges = plain
        return cls(Totals.from_plain(totals), [(tuple(key), value) for key, value in gauges])


def process_gauges() -> Iterable[Gauge]:
    """Yields what the system knows of this process (proc(5)). Nothing on systems without /proc."""
    with suppress(OSError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        yield (metrics.CPU.name,), (int(fields[11]) + int(fields[12])) / _TICKS
        yield (metrics.MEMORY.name,), int(fields[21]) * _PAGE
        yield (metrics.START.name,), _started_at(int(fields[19]))
        yield (metrics.DESCRIPTORS.name,), len(os.listdir("/proc/self/fd"))  # noqa: PTH208, a tenth of the time


@functools.cache  # both clocks are read a little later each time, and whoever sees another start sees a restart
def _started_at(ticks: int) -> float:
    """Returns the Unix time at which a process started so many ticks after the system."""
    booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    return round(booted + ticks / _TICKS, 2)
