"""`python -m bench`: see `make bench`, `make bench-quick` and `make bench-compare`."""

import dataclasses
import resource
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import click

from bench import callers, operators, report
from bench.client import client_ratios
from bench.contenders import (
    CONTENDERS,
    EMPTY,
    FASTAPI,
    FASTAPI_TWICE,
    OURS_COUCHBASE,
    OURS_SQLITE,
    Contender,
    ours_of,
)
from bench.growth import FIGURES, grow
from bench.load import ROOT, Load, Result, drive
from bench.processes import Server, cores_apart
from bench.stores import running_stores

WARM_UP = Load(seconds=1.5)


@contextmanager
def running(
    contenders: Sequence[Contender], loads: Mapping[Contender, Load] | None = None
) -> Iterator[dict[Contender, Server]]:
    """Starts all contenders and warms them up. They run at once, but only the measured one has load."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="userprofile-bench-")))
        stores = stack.enter_context(running_stores(folder))
        servers = {
            contender: stack.enter_context(contender.start(stores, folder / "servers.log")) for contender in contenders
        }
        for contender, server in servers.items():
            options = loads[contender].options if loads else WARM_UP.options
            drive(server, contender.kind, dataclasses.replace(WARM_UP, options=options))
        yield servers


def interleaved(
    servers: Mapping[Contender, Server], loads: Mapping[Contender, Load], rounds: int, *, apart: bool = True
) -> dict[str, list[Result]]:
    """Measures one server after the other, round by round: A B C, A B C. With `apart`, the server has its own core."""
    found: dict[str, list[Result]] = {contender.name: [] for contender in servers}
    with (
        cores_apart(servers.values()) if apart else nullcontext(),
        click.progressbar(length=rounds * len(servers), label="measuring", show_eta=True) as bar,
    ):
        for _ in range(rounds):
            for contender, server in servers.items():
                found[contender.name].append(drive(server, contender.kind, loads[contender]))
                bar.update(1)
    return found


@click.group()
def main() -> None:
    """Compare the service with alternatives, by the server's CPU per call."""


@main.command("contenders")
@click.option("--rounds", default=9, show_default=True)
@click.option("--seconds", default=1.5, show_default=True, help="Of each load in each round.")
@click.option("--quick", is_flag=True, help="Four servers and closed loop alone: a minute.")
def compare_contenders(rounds: int, seconds: float, quick: bool) -> None:
    """Compare all servers: closed loop, open loop at half of what they can do, the Python client, start-up."""
    chosen = [contender for contender in CONTENDERS if (contender.quick or not quick) and not contender.alone]
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
                contender: dataclasses.replace(
                    load, rate=max(1, int(statistics.median(result.rate for result in closed[contender.name]) / 2))
                )
                for contender in servers
            }
            sections["open loop, half of saturation"] = interleaved(servers, half, rounds)
            extra["Python client"] = client_ratios(servers[OURS_SQLITE].address, rounds)
    if not quick:
        for contender in (contender for contender in CONTENDERS if contender.alone):
            with running([EMPTY, FASTAPI, contender]) as servers:
                same = dict.fromkeys(servers, load)
                sections[f"closed loop, 16 in flight, {contender.name}"] = interleaved(servers, same, rounds)
        extra["seconds to listen"] = start_up([EMPTY, OURS_SQLITE, OURS_COUCHBASE], rounds)
    for title, found in sections.items():
        click.echo(f"\n{title}\n\n{report.table(found, [EMPTY.name, FASTAPI.name])}")
    for title, value in extra.items():
        click.echo(f"{title}: {value}")
    folder = ROOT / "build" / "bench" if quick else FIGURES
    report.write_json(folder / "contenders.json", extra | sections)
    report.plot_contenders(folder / "contenders.svg", closed)


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
        for contender, server in servers.items():
            found: dict[str, list[Result]] = {name: [] for name in loads}
            for _ in range(rounds):
                for name, each in loads.items():
                    found[name].append(drive(server, contender.kind, each))
            sections[contender.name] = found
            click.echo(f"\n{contender.name}\n\n{report.table(found, ['GetUser'])}\n")
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


@main.command()
@click.option("--rounds", default=25, show_default=True)
@click.option("--seconds", default=0.7, show_default=True, help="Of each load in each round.")
def identity(rounds: int, seconds: float) -> None:
    """Compare what knowing the callers costs: TLS, certificates, tokens and the policy, beside plaintext."""
    with tempfile.TemporaryDirectory(prefix="userprofile-bench-") as folder:
        loads = callers.contenders(Path(folder), Load(seconds=seconds))
        with running(list(loads), loads) as servers:
            found = interleaved(servers, loads, rounds)
    click.echo(f"\nSQLite, one core\n\n{report.table(found, [callers.PLAINTEXT])}")


@main.command()
@click.option("--rounds", default=25, show_default=True)
@click.option("--seconds", default=0.7, show_default=True, help="Of each load in each round.")
def telemetry(rounds: int, seconds: float) -> None:
    """Compare what seeing the calls costs: metrics, the log of calls, trace ids and spans, beside none of it."""
    loads = operators.contenders(Load(seconds=seconds))
    with running(list(loads), loads) as servers:
        found = interleaved(servers, loads, rounds)
    click.echo(f"\nSQLite, one core\n\n{report.table(found, [operators.OFF])}")


_ROUNDS = click.option("--rounds", default=9, show_default=True)
_SECONDS = click.option("--seconds", default=1.0, show_default=True, help="Of each load in each round.")
_STORES = click.option(
    "--store", "stores", multiple=True, default=("sqlite", "couchbase"), show_default=True, help="Of the service."
)


@main.command()
@_ROUNDS
@_SECONDS
@_STORES
def workers(rounds: int, seconds: float, stores: Sequence[str]) -> None:
    """Measure what the default number of workers rests on."""
    for store in stores:
        contenders = [ours_of(ROOT, f"{count} workers", store, "--workers", str(count)) for count in (1, 2, 4, 8, 16)]
        with running(contenders) as servers:
            for apart in (True, False):
                found = interleaved(servers, dict.fromkeys(servers, Load(seconds=seconds)), rounds, apart=apart)
                title = "on its own core" if apart else "on all cores"
                click.echo(f"\n{store}, {title}\n\n{report.table(found, ['4 workers'])}")


@main.command()
@_ROUNDS
@_SECONDS
@_STORES
def processes(rounds: int, seconds: float, stores: Sequence[str]) -> None:
    """Compare two processes with one, on all cores, and on Couchbase with FastAPI on two workers."""
    for store in stores:
        flags = ("--processes", "1"), ("--processes", "2"), ("--processes", "2", "--pinning", "auto")
        contenders = [ours_of(ROOT, " ".join(each), store, *each) for each in flags]
        if store == FASTAPI_TWICE.store:
            contenders.append(FASTAPI_TWICE)
        rows: dict[str, list[tuple[float, float, float]]] = {each.name: [] for each in contenders}
        with running(contenders) as servers:
            for _ in range(rounds):
                for contender, server in servers.items():
                    before = resource.getrusage(resource.RUSAGE_CHILDREN)  # only ended children: the load, no servers
                    result = drive(server, contender.kind, Load(seconds=seconds, in_flight=32, connections=16))
                    after = resource.getrusage(resource.RUSAGE_CHILDREN)
                    of_load = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                    rows[contender.name].append((result.rate, result.cpu_us, of_load / result.calls * 1e6))
        click.echo(f"\n{store}, on all cores, 32 calls in flight on 16 connections, medians")
        for name, measured in rows.items():
            rate, ours, loads = map(statistics.median, zip(*measured, strict=True))
            click.echo(f"{name}: {rate:,.0f} calls/s, CPU of the server {ours:.0f} µs/call, of the load {loads:.0f}")


def start_up(contenders: Sequence[Contender], rounds: int) -> dict[str, float]:
    """Returns the median seconds from the start of a process to its `listening on` line."""
    found: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    with tempfile.TemporaryDirectory(prefix="userprofile-bench-") as folder, running_stores(Path(folder)) as stores:
        for _ in range(rounds):
            for contender in contenders:
                with contender.start(stores, Path(folder) / "servers.log") as server:
                    found[contender.name].append(server.seconds_to_listen)
    return {name: round(statistics.median(seconds), 3) for name, seconds in found.items()}


main.add_command(grow)

if __name__ == "__main__":
    main()
