"""Scaling: over calls in flight, connections, processes, documents and their size, and a million calls."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from bench import report
from bench.contenders import OURS_COUCHBASE, OURS_SQLITE, Contender
from bench.load import ROOT, Load, Result, combined, drive
from bench.processes import Server, cores_apart
from bench.stores import running_stores

FIGURES = ROOT / "docs" / "performance"
_CONTENDERS = [OURS_SQLITE, OURS_COUCHBASE]

Points = dict[str, list[tuple[float, list[Result]]]]
"""By server: the value that grows, and the results of each round."""


KINDS = ("in-flight", "connections", "processes", "documents", "size", "memory")


@click.command()
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="Of all kinds, only these.")
@click.option("--rounds", default=3, show_default=True, help="Of each point; the median counts.")
@click.option("--seconds", default=1.5, show_default=True, help="Of each load in each round.")
@click.option("--documents", default=1_000_000, show_default=True, help="The most documents.")
@click.option("--calls", default=1_000_000, show_default=True, help="Over which memory is watched.")
def grow(only: Sequence[str], rounds: int, seconds: float, documents: int, calls: int) -> None:
    """Measure growth, and draw a plot for each kind."""
    in_flight = [(count, Load(seconds=seconds, in_flight=count)) for count in (1, 4, 16, 64, 256, 512)]
    connections = [  # longer, because connecting is part of the measurement
        (count, Load(seconds=4 * seconds, in_flight=max(16, count), connections=count))
        for count in (1, 4, 16, 64, 256, 1000)
    ]
    users = [(count, count, 300) for count in (1_000, 10_000, 100_000, 1_000_000) if count <= documents]
    sizes = [(size, 1000, size) for size in (200, 1_000, 10_000, 100_000)]
    series: dict[str, tuple[str, Callable[[], Points]]] = {
        "in-flight": ("calls in flight", lambda: _series(in_flight, rounds)),
        "connections": ("connections", lambda: _series(connections, rounds)),
        "processes": ("processes", lambda: _processes(Load(seconds=seconds), rounds)),
        "documents": ("documents", lambda: _sizes(users, seconds, rounds)),
        "size": ("bytes of a document", lambda: _sizes(sizes, seconds, rounds)),
    }
    for name, (label, measure) in series.items():
        if name in (only or KINDS):
            points = measure()
            _print(label, points)
            report.plot_growth(FIGURES / f"{name}.svg", label, points)
            report.write_json(FIGURES / f"{name}.json", {label: points})
    if "memory" in (only or KINDS):
        memory = _endurance(calls)
        report.plot_memory(FIGURES / "memory.svg", memory)
        report.write_json(FIGURES / "memory.json", {"MiB of memory after calls": memory})


@contextmanager
def _servers(
    contender: Contender, count: int = 1, *, apart: bool = True, users: int = 1000, size: int = 300
) -> Iterator[list[Server]]:
    """Runs `count` servers on one store, after warming them up."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="userprofile-bench-")))
        stores = stack.enter_context(running_stores(folder, users=users, size=size))
        servers = [stack.enter_context(contender.start(stores, folder / "servers.log")) for _ in range(count)]
        if apart:
            stack.enter_context(cores_apart(servers))
        for server in servers:
            drive(server, contender.kind, Load(seconds=1))
        yield servers


def _series(loads: Sequence[tuple[int, Load]], rounds: int) -> Points:
    points: Points = {}
    for contender in _CONTENDERS:
        with _servers(contender) as (server,):
            points[contender.name] = [(step, _rounds(server, contender, load, rounds)) for step, load in loads]
    return points


def _sizes(steps: Sequence[tuple[int, int, int]], seconds: float, rounds: int) -> Points:
    points: Points = {contender.name: [] for contender in _CONTENDERS}
    for step, count, size in steps:
        usernames = [f"user{number * max(1, count // 1000)}" for number in range(1, 1000)]
        load = Load(seconds=seconds, usernames=usernames)
        for contender in _CONTENDERS:
            with _servers(contender, users=count, size=size) as (server,):
                points[contender.name].append((step, _rounds(server, contender, load, rounds)))
    return points


def _processes(load: Load, rounds: int) -> Points:
    """Measures as many servers as processes, each with its own load, on all cores."""
    points: Points = {contender.name: [] for contender in _CONTENDERS}
    for contender in _CONTENDERS:
        for count in (1, 2):
            with _servers(contender, count, apart=False) as servers, ThreadPoolExecutor(count) as drivers:
                together = [
                    combined(list(drivers.map(drive, servers, [contender.kind] * count, [load] * count)))
                    for _ in range(rounds)
                ]
            points[contender.name].append((count, together))
    return points


def _rounds(server: Server, contender: Contender, load: Load, rounds: int) -> list[Result]:
    return [drive(server, contender.kind, load) for _ in range(rounds)]


def _endurance(calls: int) -> dict[str, list[tuple[int, float]]]:
    """Returns each server's memory in MiB by the number of calls served, from the end of the warm-up."""
    found: dict[str, list[tuple[int, float]]] = {}
    for contender in _CONTENDERS:
        with _servers(contender) as (server,):
            done = -drive(server, contender.kind, Load(seconds=10)).calls
            sizes = []
            while done < calls:
                sizes.append((max(done, 0), server.usage().resident_bytes / 2**20))
                done = max(done, 0) + drive(server, contender.kind, Load(seconds=15)).calls
            sizes.append((done, server.usage().resident_bytes / 2**20))
        first, last, most = sizes[0][1], sizes[-1][1], max(size for _, size in sizes)
        click.echo(f"{contender.name}: {first:.1f} MiB warm, {last:.1f} after {done:,} calls more, {most:.1f} at most")
        found[contender.name] = sizes
    return found


def _print(label: str, points: Points) -> None:
    click.echo(
        f"\n| {label} | " + " | ".join(f"{contender}, calls/s | CPU µs/call | p99 ms" for contender in points) + " |"
    )
    click.echo("| --- " * (1 + 3 * len(points)) + "|")
    for row in zip(*points.values(), strict=True):
        cells = [
            f"{report.median(results, 'rate'):,.0f} | {report.median(results, 'cpu_us'):.0f}"
            f" | {report.median(results, 'p99_ms'):.1f}"
            for _, results in row
        ]
        errors = sum(result.errors for _, results in row for result in results)
        click.echo(f"| {row[0][0]:,} | " + " | ".join(cells) + " |" + (f" {errors} errors" if errors else ""))
