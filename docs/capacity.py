"""How many cores, how much memory and how many sockets a load takes, from what `python -m bench` has measured.

`make docs` writes the tables of docs/capacity.md, a test checks them. For your own figures:

    python docs/capacity.py --users 250000 --store Couchbase --batch 10 --nodes 6
"""

import json
import math
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from userprofile_server.settings import ServerSettings

HERE = Path(__file__).parent
PAGE = HERE / "capacity.md"
MEASURED = HERE / "performance"

UTILIZATION = 0.6
"""The share of a core that is planned for: the rest is for bursts and for processes that are being replaced."""

WORKERS = ServerSettings().workers
ZONES = 3


@dataclass(frozen=True)
class Cost:
    """What a call costs a process, on a core of its own."""

    cpu_us: float
    mib: float


def cost(store: str, batch: int) -> Cost:
    """Returns the median cost of a call for `batch` users: 1 is GetUser, others are BatchGetUsers."""
    kind = "GetUser" if batch == 1 else f"BatchGetUsers of {batch}"
    rounds: list[dict[str, Any]] = json.loads((MEASURED / "batches.json").read_text())[f"userprofile, {store}"][kind]
    return Cost(statistics.median(each["cpu_us"] for each in rounds), max(each["resident_mib"] for each in rounds))


@dataclass(frozen=True)
class Plan:
    """What a load takes."""

    calls: float
    """Calls a second."""
    processes: int
    """Each with a core of its own; so many that one of the zones may fail."""
    mib: float
    sockets: int
    """To Couchbase's nodes."""
    per_node: int
    """Of them, at each node."""


def plan(users: int, *, store: str, batch: int, nodes: int = 5) -> Plan:
    """Returns the plan for `users` a second, in calls for `batch` users each, on a cluster of `nodes`."""
    costs = cost(store, batch)
    calls = users / batch
    needed = calls * costs.cpu_us / 1e6 / UTILIZATION
    # With one zone gone, the others carry everything.
    in_each_zone = max(1, math.ceil(needed / (ZONES - 1)))
    processes = ZONES * in_each_zone
    per_node = processes * WORKERS if store == "Couchbase" else 0
    return Plan(calls, processes, processes * costs.mib, per_node * (nodes + 1) if per_node else 0, per_node)


def cost_table() -> str:
    """What each kind of call costs."""
    rows = ["| call | SQLite: CPU µs | µs a user | Couchbase: CPU µs | µs a user |", "| --- | --- | --- | --- | --- |"]
    for batch in (1, 10, 100):
        costs = [cost(store, batch).cpu_us for store in ("SQLite", "Couchbase")]
        name = "GetUser" if batch == 1 else f"BatchGetUsers of {batch}"
        rows.append(f"| {name} | " + " | ".join(f"{each:,.0f} | {each / batch:,.0f}" for each in costs) + " |")
    return "\n".join(rows)


def plan_table() -> str:
    """The plans for more and more users a second, on Couchbase."""
    rows = [
        "| users a second | by | calls a second | processes = cores | memory | sockets to Couchbase | a node |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for users in (1_000, 10_000, 100_000, 1_000_000):
        for batch in (1, 10, 100):
            found = plan(users, store="Couchbase", batch=batch)
            name = "GetUser" if batch == 1 else f"batches of {batch}"
            rows.append(
                f"| {users:,} | {name} | {found.calls:,.0f} | {found.processes:,} | {found.mib / 1024:,.1f} GiB |"
                f" {found.sockets:,} | {found.per_node:,} |"
            )
    return "\n".join(rows)


TABLES: dict[str, Callable[[], str]] = {"costs": cost_table, "plans": plan_table}


def updated(text: str) -> str:
    """Returns the page with its tables as they have to be."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        assert len(pattern.findall(text)) == 1, name
        text = pattern.sub(lambda _: f"{begin}\n{table()}\n{end}", text)  # noqa: B023, called at once
    return text


@click.command()
@click.option("--users", type=click.IntRange(1), help="Users a second; without it, the page is written anew.")
@click.option("--store", type=click.Choice(["SQLite", "Couchbase"]), default="Couchbase", show_default=True)
@click.option("--batch", type=click.Choice([1, 10, 100]), default=1, show_default=True, help="Users in each call.")
@click.option("--nodes", type=click.IntRange(1), default=5, show_default=True, help="Nodes of the cluster.")
def main(users: int | None, store: str, batch: int, nodes: int) -> None:
    """Print what a load takes."""
    if users is None:
        PAGE.write_text(updated(PAGE.read_text()))
        return
    found = plan(users, store=store, batch=batch, nodes=nodes)
    click.echo(f"{found.calls:,.0f} calls/s: {found.processes:,} processes, each with a core, in {ZONES} zones")
    click.echo(f"memory {found.mib / 1024:,.1f} GiB")
    click.echo(f"sockets to the store {found.sockets:,}, {found.per_node:,} at each node")


if __name__ == "__main__":
    main()
