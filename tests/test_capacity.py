"""The capacity page follows from what was measured."""

import pytest
from click.testing import CliRunner

from docs import capacity


def test_the_tables_are_what_the_figures_give() -> None:
    text = capacity.PAGE.read_text()
    assert capacity.updated(text) == text, "run: make docs"


@pytest.mark.parametrize("zones", [2, 3])
def test_with_one_zone_gone_the_others_can_carry_the_load(zones: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "ZONES", zones)
    users = 123_456
    found = capacity.plan(users, store="Couchbase", batch=10)
    left = found.processes * (zones - 1) / zones
    assert users / 10 * capacity.cost("Couchbase", 10).cpu_us / 1e6 <= left * capacity.UTILIZATION


def test_sockets_are_those_of_each_worker_to_each_node_and_one_more() -> None:
    found = capacity.plan(1000, store="Couchbase", batch=1, nodes=6)
    assert (found.processes, found.per_node, found.sockets) == (3, 3 * 4, 3 * 4 * 7)
    assert capacity.plan(1000, store="SQLite", batch=1).sockets == 0


def test_it_prints_a_plan_for_figures_of_ones_own() -> None:
    done = CliRunner().invoke(capacity.main, ["--users", "250000", "--batch", "10", "--nodes", "6"])
    assert done.exit_code == 0
    assert done.output.startswith("25,000 calls/s: 30 processes, each with a core, in 3 zones\n")
