"""How it grows: over calls in flight, connections, documents, their size, and a million calls."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from bench import report
from bench.load import ROOT, Load, Result, drive
from bench.peers import OURS_COUCHBASE, OURS_SQLITE
from bench.stores import running_stores

_FIGURES = ROOT / "docs" / "performance"
_PEERS = [OURS_SQLITE, OURS_COUCHBASE]


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="Of each point.")
@click.option("--documents", default=1_000_000, show_default=True, help="The most documents.")
@click.option("--calls", default=1_000_000, show_default=True, help="Over which memory is watched.")
def grow(seconds: float, documents: int, calls: int) -> None:
    """Measure growth, and draw a plot for each kind."""
    in_flight = [(count, Load(seconds=seconds, in_flight=count)) for count in (1, 4, 16, 64, 256, 512)]
    _series("calls in flight", "in-flight", in_flight)
    connections = [
        (count, Load(seconds=seconds, in_flight=max(16, count), connections=count))
        for count in (1, 4, 16, 64, 256, 1000)
    ]
    _series("connections", "connections", connections)
    users = [count for count in (1_000, 10_000, 100_000, 1_000_000) if count <= documents]
    _sizes("documents", "documents", [(count, count, 300) for count in users], seconds)
    _sizes("bytes of a document", "size", [(size, 1000, size) for size in (300, 1_000, 10_000, 100_000)], seconds)
    _endurance(calls)


def _series(label: str, name: str, loads: Sequence[tuple[int, Load]]) -> None:
    points: dict[str, list[tuple[float, Result]]] = {peer.name: [] for peer in _PEERS}
    with tempfile.TemporaryDirectory(prefix="userprofile-bench-") as folder, running_stores(Path(folder)) as stores:
        for peer in _PEERS:
            with peer.start(stores, Path(folder) / "servers.log") as server:
                drive(server, peer.kind, Load(seconds=1))
                for step, load in loads:
                    points[peer.name].append((step, drive(server, peer.kind, load)))
    _show(label, name, points)


def _sizes(label: str, name: str, steps: Sequence[tuple[int, int, int]], seconds: float) -> None:
    points: dict[str, list[tuple[float, Result]]] = {peer.name: [] for peer in _PEERS}
    for step, count, size in steps:
        usernames = [f"user{number * max(1, count // 1000)}" for number in range(1, 1000)]
        with tempfile.TemporaryDirectory(prefix="userprofile-bench-") as folder:
            with running_stores(Path(folder), users=count, size=size) as stores:
                for peer in _PEERS:
                    with peer.start(stores, Path(folder) / "servers.log") as server:
                        drive(server, peer.kind, Load(seconds=1))
                        result = drive(server, peer.kind, Load(seconds=seconds, usernames=usernames))
                        points[peer.name].append((step, result))
    _show(label, name, points)


def _endurance(calls: int) -> None:
    """Memory after each tenth of the calls."""
    with tempfile.TemporaryDirectory(prefix="userprofile-bench-") as folder, running_stores(Path(folder)) as stores:
        for peer in _PEERS:
            with peer.start(stores, Path(folder) / "servers.log") as server:
                drive(server, peer.kind, Load(seconds=10))
                sizes = [server.usage().resident_bytes]
                done = 0
                while done < calls:
                    done += drive(server, peer.kind, Load(seconds=15)).calls
                    sizes.append(server.usage().resident_bytes)
                first = sizes[0] / 2**20
                click.echo(
                    f"{peer.name}: {first:.1f} MiB after warming up, {sizes[-1] / 2**20:.1f} after {done:,} calls more,"
                    f" at most {max(sizes) / 2**20:.1f}"
                )


def _show(label: str, name: str, points: dict[str, list[tuple[float, Result]]]) -> None:
    click.echo(f"\n| {label} | " + " | ".join(f"{peer}, calls/s | CPU µs/call | p99 ms" for peer in points) + " |")
    click.echo("| --- " * (1 + 3 * len(points)) + "|")
    for row in zip(*points.values(), strict=True):
        cells = [f"{result.rate:,.0f} | {result.cpu_us:.0f} | {result.p99_ms:.1f}" for _, result in row]
        errors = sum(result.errors for _, result in row)
        click.echo(f"| {row[0][0]:,} | " + " | ".join(cells) + " |" + (f" {errors} errors" if errors else ""))
    _FIGURES.mkdir(parents=True, exist_ok=True)
    report.plot_growth(_FIGURES / f"{name}.svg", label, points)
