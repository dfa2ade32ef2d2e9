"""The backlog by itself, on a clock of the test's own: who may wait, for how long, and whose turn it is."""

from collections import Counter
from dataclasses import dataclass, field

from userprofile_server.rpc.backlog import Backlog

TARGET, BURST = 0.02, 0.1
FOREVER = 1e18


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Seen:
    """What a caller has seen."""

    admitted: int = 0
    refused: int = 0
    waits: list[float] = field(default_factory=list)
    """Of the calls that were served, in the order in which they were."""


class Simulation:
    """Callers at steady rates, and one worker that takes a call every `interval` seconds."""

    def __init__(self, *, interval: float, target: float = TARGET, burst: float = BURST, most: int = 10_000) -> None:
        self.clock = Clock()
        self.interval = interval
        self.backlog: Backlog[tuple[str, float]] = Backlog(
            target=target, burst=burst, least=4, most=most, most_bytes=1 << 30, clock=self.clock
        )
        self._next_take = self.clock.now
        self._due: Counter[str] = Counter()

    def run(self, seconds: float, rates: dict[str, float]) -> dict[str, Seen]:
        seen = {caller: Seen() for caller in rates}
        step = self.interval / 8
        due = {caller: number / len(rates) for number, caller in enumerate(rates)}  # not all at once
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now += step
            for caller, rate in rates.items():
                due[caller] += rate * step
                while due[caller] >= 1:
                    due[caller] -= 1
                    if self.backlog.put(caller, (caller, self.clock.now)):
                        seen[caller].admitted += 1
                    else:
                        seen[caller].refused += 1
            if self.clock.now >= self._next_take and (taken := self.backlog.take()) is not None:
                caller, put_in = taken
                if caller in seen:
                    seen[caller].waits.append(self.clock.now - put_in)
                self._next_take = self.clock.now + self.interval
        return seen


def p99(waits: list[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.99)]


def test_below_its_capacity_nobody_is_refused() -> None:
    seen = Simulation(interval=0.001).run(5, {"one": 900})["one"]
    assert seen.refused == 0
    assert max(seen.waits) < TARGET


def test_a_burst_is_let_wait() -> None:
    """A queue that goes away by itself does no harm: 80 calls at once take 80 ms."""
    simulation = Simulation(interval=0.001)
    assert all(simulation.backlog.put("one", ("one", simulation.clock.now)) for _ in range(80))
    seen = simulation.run(1, {"one": 100})["one"]
    assert seen.refused == 0


def test_at_five_times_its_capacity_it_serves_as_many_as_ever_and_those_in_time() -> None:
    simulation = Simulation(interval=0.001)
    simulation.run(1, {"one": 5000})
    seen = simulation.run(5, {"one": 5000})["one"]
    assert len(seen.waits) >= 4950
    assert seen.refused >= 19_500
    assert p99(seen.waits) <= TARGET * 1.5


def test_it_is_as_before_once_the_load_has_ended() -> None:
    simulation = Simulation(interval=0.001)
    simulation.run(3, {"one": 5000})
    simulation.run(BURST, {"one": 500})
    seen = simulation.run(1, {"one": 500})["one"]
    assert seen.refused == 0
    assert max(seen.waits) <= TARGET


def test_a_store_that_becomes_slow_shortens_the_queue() -> None:
    simulation = Simulation(interval=0.001)
    simulation.run(2, {"one": 2000})
    simulation.interval = 0.01
    simulation.run(2, {"one": 2000})
    seen = simulation.run(5, {"one": 2000})["one"]
    assert len(seen.waits) >= 490
    assert p99(seen.waits) <= 0.05  # of four calls in line, the least that may wait


def test_one_callers_flood_is_his_own_affair() -> None:
    simulation = Simulation(interval=0.001)
    rates = {"flood": 20_000.0, "one": 200.0, "two": 200.0}
    simulation.run(0.5, rates)
    seen = simulation.run(2, rates)
    for caller in ("one", "two"):
        assert seen[caller].refused == 0
        assert max(seen[caller].waits) <= 0.005
    assert len(seen["flood"].waits) >= 1160  # what the others leave


def test_callers_who_all_want_too_much_get_the_same() -> None:
    simulation = Simulation(interval=0.001)
    rates = dict.fromkeys("abcde", 2000.0) | {"greedy": 20_000.0}
    simulation.run(0.5, rates)
    seen = simulation.run(1.2, rates)
    assert all(190 <= len(seen[caller].waits) <= 210 for caller in rates)


def test_a_call_that_would_not_be_served_in_time_is_not_begun() -> None:
    simulation = Simulation(interval=0.001)
    simulation.run(1, {"one": 1500})
    waiting = simulation.backlog.waiting
    assert waiting > 4
    assert simulation.backlog.admits("one", remaining=FOREVER) or simulation.backlog.admits("two", remaining=FOREVER)
    assert not simulation.backlog.admits("one", remaining=0.003)
    assert simulation.backlog.admits("two", remaining=0.003), "its turn is next"


def test_a_call_whose_deadline_passes_before_its_turn_is_not_put_in() -> None:
    simulation = Simulation(interval=0.001)
    simulation.run(0.1, {"one": 1500})
    assert simulation.backlog.waiting > 20
    assert not simulation.backlog.put("one", ("one", 0.0), remaining=0.02)
    assert simulation.backlog.put("one", ("one", 0.0), remaining=FOREVER)


def test_behind_calls_that_nobody_takes_none_is_put_in() -> None:
    """When the store hangs, no call is taken that could show how slow it is."""
    simulation = Simulation(interval=0.001)
    simulation.run(1, {"one": 1500})
    simulation.interval = 60
    seen = simulation.run(10, {"one": 1500, "two": 1500})
    assert seen["one"].admitted + seen["two"].admitted <= 1500 * 2 * BURST * 1.5


def test_so_many_calls_may_wait_and_so_many_bytes() -> None:
    clock = Clock()
    backlog: Backlog[int] = Backlog(target=9, burst=9, least=1, most=3, most_bytes=100, clock=clock)
    assert [backlog.put("one", number) for number in range(5)] == [True, True, True, False, False]
    assert not backlog.admits("another", FOREVER)
    assert [backlog.take() for _ in range(4)] == [0, 1, 2, None]
    assert backlog.put("one", 1, size=100)
    assert not backlog.put("another", 2, size=1)
    backlog.take()
    assert backlog.put("another", 2, size=1)


def test_callers_take_turns_each_in_his_own_order() -> None:
    backlog: Backlog[str] = Backlog(target=9, burst=9, least=1, most=9, most_bytes=9)
    for call in ("a1", "a2", "a3", "b1", "c1", "c2"):
        backlog.put(call[0], call)
    assert backlog.waiting == 6
    assert [backlog.take() for _ in range(7)] == ["a1", "b1", "c1", "a2", "c2", "a3", None]
    assert not backlog.waiting


def test_many_callers_with_a_call_each_do_not_wait_for_longer_either() -> None:
    simulation = Simulation(interval=0.012)
    rates = {f"caller {number}": 2.0 for number in range(240)}
    simulation.run(1, rates)
    seen = simulation.run(3, rates)
    assert sum(len(each.waits) for each in seen.values()) >= 200
    assert max(wait for each in seen.values() for wait in each.waits) <= BURST * 1.5


def test_after_a_pause_what_was_slow_before_counts_no_more() -> None:
    simulation = Simulation(interval=0.075)
    simulation.run(3, {"one": 100})
    simulation.clock.now += 20
    while simulation.backlog.take() is not None:
        pass
    simulation.clock.now += 6
    simulation.interval = 0.0005
    assert all(simulation.backlog.put("one", ("one", simulation.clock.now)) for _ in range(60))
