"""`python -m bench`: see `make bench`, `make bench-quick` and `make bench-compare`."""

import dataclasses
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import click

from bench import report
from bench.client import client_ratios
from bench.growth import FIGURES, grow
from bench.load import ROOT, Load, Result, drive
from bench.peers import EMPTY, FASTAPI, OURS_COUCHBASE, OURS_SQLITE, PEERS, Peer, ours_of
from bench.processes import Server, cores_apart
from bench.stores import running_stores

WARM_UP = Load(seconds=1.5)


@contextmanager
def running(peers: Sequence[Peer]) -> Iterator[dict[Peer, Server]]:
    """Runs all peers at once, warm: those that aren't driven do nothing."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="userprofile-bench-")))
        stores = stack.enter_context(running_stores(folder))
        servers = {peer: stack.enter_context(peer.start(stores, folder / "servers.log")) for peer in peers}
        for peer, server in servers.items():
            drive(server, peer.kind, WARM_UP)
        yield servers


def interleaved(
    servers: Mapping[Peer, Server], loads: Mapping[Peer, Load], rounds: int, *, apart: bool = True
) -> dict[str, list[Result]]:
    """Drives one server after the other, round by round: A B C, A B C. Each has a core to itself if `apart`."""
    found: dict[str, list[Result]] = {peer.name: [] for peer in servers}
    with (
        cores_apart(servers.values()) if apart else nullcontext(),
        click.progressbar(length=rounds * len(servers), label="measuring", show_eta=True) as bar,
    ):
        for _ in range(rounds):
            for peer, server in servers.items():
                found[peer.name].append(drive(server, peer.kind, loads[peer]))
                bar.update(1)
    return found


@click.group()
def main() -> None:
    """Measure the service beside what its users would take instead."""


@main.command()
@click.option("--rounds", default=9, show_default=True)
@click.option("--seconds", default=1.5, show_default=True, help="Of each load in each round.")
@click.option("--quick", is_flag=True, help="Four servers and closed loop alone: a minute.")
def peers(rounds: int, seconds: float, quick: bool) -> None:
    """Compare all servers: closed loop, open loop at half of what they can do, the Python client, start-up."""
    chosen = [peer for peer in PEERS if (peer.quick or not quick) and not peer.alone]
    sections: dict[str, dict[str, list[Result]]] = {}
    extra: dict[str, object] = {}
    with running(chosen) as servers:
        load = Load(seconds=seconds)
        same = dict.fromkeys(servers, load)
        closed = sections["closed loop, 16 in flight"] = interleaved(servers, same, rounds)
        if not quick:
            shared = interleaved(servers, same, rounds, apart=False)
            sections["closed loop, 16 in flight, all cores shared with the load"] = shared
            half = {
                peer: dataclasses.replace(
                    load, rate=max(1, int(statistics.median(result.rate for result in closed[peer.name]) / 2))
                )
                for peer in servers
            }
            sections["open loop, half of saturation"] = interleaved(servers, half, rounds)
            extra["Python client"] = client_ratios(servers[OURS_SQLITE].address, rounds)
    if not quick:
        for peer in (peer for peer in PEERS if peer.alone):
            with running([EMPTY, FASTAPI, peer]) as servers:
                same = dict.fromkeys(servers, load)
                sections[f"closed loop, 16 in flight, {peer.name}"] = interleaved(servers, same, rounds)
        extra["seconds to listen"] = start_up([EMPTY, OURS_SQLITE, OURS_COUCHBASE], rounds)
    for title, found in sections.items():
        click.echo(f"\n{title}\n\n{report.table(found, [EMPTY.name, FASTAPI.name])}")
    for title, value in extra.items():
        click.echo(f"{title}: {value}")
    folder = ROOT / "build" / "bench" if quick else FIGURES
    report.write_json(folder / "peers.json", extra | sections)
    report.plot_peers(folder / "peers.svg", closed)


@main.command()
@click.option("--rounds", default=9, show_default=True)
@click.option("--seconds", default=1.5, show_default=True, help="Of each load in each round.")
def batches(rounds: int, seconds: float) -> None:
    """Compare what a user costs in a batch of 1, 10 and 100 with what it costs alone."""
    names = ["johndoe", *(f"user{number}" for number in range(1, 100))]
    load = Load(seconds=seconds, usernames=names)
    loads = {"GetUser": load} | {
        f"BatchGetUsers of {size}": dataclasses.replace(load, batch=size) for size in (1, 10, 100)
    }
    sections: dict[str, dict[str, list[Result]]] = {}
    with running([OURS_SQLITE, OURS_COUCHBASE]) as servers, cores_apart(servers.values()):
        for peer, server in servers.items():
            found: dict[str, list[Result]] = {name: [] for name in loads}
            for _ in range(rounds):
                for name, each in loads.items():
                    found[name].append(drive(server, peer.kind, each))
            sections[peer.name] = found
            click.echo(f"\n{peer.name}\n\n{report.table(found, ['GetUser'])}\n")
            for name, each in loads.items():
                if each.batch is not None:
                    share = report.ratio(found, name, "GetUser") or 0
                    click.echo(f"{name}: a user costs {share / each.batch:.3f} of a GetUser")
    report.write_json(FIGURES / "batches.json", sections)


@main.command()
@click.argument("base", type=click.Path(exists=True, path_type=Path))
@click.option("--rounds", default=25, show_default=True)
@click.option("--seconds", default=0.7, show_default=True, help="Of each load in each round.")
def compare(base: Path, rounds: int, seconds: float) -> None:
    """Compare the working tree with another one, BASE, that has been set up."""
    for store in ("sqlite", "couchbase"):
        theirs, ours = ours_of(base, "base", store), ours_of(ROOT, "working tree", store)
        with running([EMPTY, theirs, ours]) as servers:
            found = interleaved(servers, dict.fromkeys(servers, Load(seconds=seconds)), rounds)
        click.echo(f"\n{store}\n\n{report.table(found, [EMPTY.name, theirs.name])}")


def start_up(peers: Sequence[Peer], rounds: int) -> dict[str, float]:
    """Returns the median seconds from starting a process to its `listening on`."""
    found: dict[str, list[float]] = {peer.name: [] for peer in peers}
    with tempfile.TemporaryDirectory(prefix="userprofile-bench-") as folder, running_stores(Path(folder)) as stores:
        for _ in range(rounds):
            for peer in peers:
                with peer.start(stores, Path(folder) / "servers.log") as server:
                    found[peer.name].append(server.seconds_to_listen)
    return {name: round(statistics.median(seconds), 3) for name, seconds in found.items()}


main.add_command(grow)

if __name__ == "__main__":
    main()
