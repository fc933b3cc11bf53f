"""What chance decides, over many calls: shares by weight, and how soon a slow target is left alone."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from routing.fleet import Demand, Fleet
from routing.plan import Plan, Succeeded, Try
from routing.strategies import strategy_named
from routing.targets import Resolved, Route, RouteTable, Target
from routing.traffic import Traffic

CALLS = 10_000
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 5.0, "d": 0.5}


def resolved(strategy: str, targets: list[Target]) -> Resolved:
    found = RouteTable([Route("m", tuple(targets), strategy)]).resolve("m")
    assert found is not None
    return found


def within_four_sigma(counts: Counter[str], shares: dict[str, float], calls: int) -> bool:
    """A binomial count strays further in 1 of 16,000 cases; the draws are always the same ones anyway."""
    return all(
        abs(counts[id_] - calls * share) <= 4 * math.sqrt(calls * share * (1 - share))
        for id_, share in shares.items()
    )


def firsts(runs: bool, seed: int = 0) -> Iterator[list[str]]:
    """The order of each call: drawn by chance, or from the name of a run of its own."""
    targets = [Target(id_, "p", "m", weight=weight) for id_, weight in WEIGHTS.items()]
    strategy, traffic, chance = strategy_named("weighted"), Traffic(), Random(seed).random
    for n in range(CALLS):
        demand = Demand(run=f"agent/run-{n}" if runs else "")
        yield [target.id for target in strategy.order(targets, traffic, demand, 0, chance)]


@pytest.mark.parametrize(("runs", "seed"), [(False, 1), (False, 2), (False, 3), (True, 0)])
def test_weights_hold(runs: bool, seed: int) -> None:
    orders = list(firsts(runs, seed))
    total = sum(WEIGHTS.values())
    shares = {id_: weight / total for id_, weight in WEIGHTS.items()}
    assert within_four_sigma(Counter(order[0] for order in orders), shares, CALLS)
    # Where the heaviest is out, the others have its calls by their weights.
    behind_c = [order[1] for order in orders if order[0] == "c"]
    left = {id_: weight / (total - WEIGHTS["c"]) for id_, weight in WEIGHTS.items() if id_ != "c"}
    assert within_four_sigma(Counter(behind_c), left, len(behind_c))


@pytest.mark.parametrize("seed", range(3))
def test_weights_hold_over_whole_calls(seed: int) -> None:
    found = resolved("weighted", [Target(id_, "p", "m", weight=weight) for id_, weight in WEIGHTS.items()])
    fleet, chance, counts = Fleet(), Random(seed).random, Counter[str]()
    for n in range(CALLS):
        plan = Plan(found.chain, fleet, now=n / 100, random=chance)
        step = plan.next(n / 100)
        assert isinstance(step, Try)
        counts[step.target.id] += 1
        plan.report(step, Succeeded(), n / 100)
    total = sum(WEIGHTS.values())
    assert within_four_sigma(counts, {id_: weight / total for id_, weight in WEIGHTS.items()}, CALLS)


@pytest.mark.parametrize("seed", range(3))
def test_a_draw_of_two_gives_each_rank_its_share(seed: int) -> None:
    """Of n targets, that of rank r (from 0) is the better one in n - 1 - r of the n (n - 1) / 2 pairs."""
    targets = [Target(id_, "p", "m") for id_ in "abcd"]
    traffic, chance = Traffic(), Random(seed).random
    for rank, target in enumerate(targets, 1):
        traffic.load(target.key).whole.heard(rank, 0)
    strategy = strategy_named("least-latency")
    counts = Counter(strategy.order(targets, traffic, Demand(), 0, chance)[0].id for _ in range(CALLS))
    assert counts["d"] == 0
    assert within_four_sigma(counts, {"a": 3 / 6, "b": 2 / 6, "c": 1 / 6}, CALLS)


class Simulation:
    """Callers that each wait for their reply, 10 ms, and call again. A target's reply takes its own time."""

    def __init__(self, latency: dict[str, float], callers: int, seed: int) -> None:
        self.latency = latency
        self._chain = resolved("least-latency", [Target(id_, "p", "m") for id_ in latency]).chain
        self._fleet = Fleet()
        self._random = Random(seed).random
        self._order = 0
        self._events: list[tuple[float, int, Plan | None, Try | None]] = []
        for caller in range(callers):
            self._at(1_000 + caller / 100, None, None)

    def calls(self, count: int) -> list[str]:
        """The targets to which the next so many calls go."""
        went: list[str] = []
        while len(went) < count:
            now, _, plan, step = heapq.heappop(self._events)
            if plan is not None and step is not None:
                plan.heard(step, now)
                plan.report(step, Succeeded(), now)
                self._at(now + 0.01, None, None)
            else:
                went.append(self._call(now))
        return went

    def _call(self, now: float) -> str:
        plan = Plan(self._chain, self._fleet, now=now, random=self._random)
        step = plan.next(now)
        assert isinstance(step, Try)
        self._at(now + self.latency[step.target.id], plan, step)
        return step.target.id

    def _at(self, now: float, plan: Plan | None, step: Try | None) -> None:
        self._order += 1
        heapq.heappush(self._events, (now, self._order, plan, step))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("callers", "most", "later"), [(1, 1, 0), (2, 1, 0), (4, 3, 1), (8, 5, 2)])
def test_a_target_made_ten_times_slower_is_left_within_twenty_calls(
    callers: int, most: int, later: int, seed: int
) -> None:
    """Of four targets the fastest becomes ten times slower. Before, it has over a quarter of the calls.

    Until its first slow reply comes, after 9 s, only the calls that wait there tell. With k of them it counts
    as 0.9 / e^0.3 x (k + 1) s at least, since its 0.9 s fade meanwhile; another one has all other callers at
    most, and counts as `callers` - k s. The dearest of all is never the better of two, so that no more go
    there once the former is more than the latter: that k is `most`. Then it counts as 9 s, and still as over
    2 s when these 60 calls are made, while the others share the calls at 1 s each. `later` of them may come
    behind the twentieth.
    """
    simulation = Simulation({"a": 0.9, "b": 1.0, "c": 1.0, "d": 1.0}, callers, seed)
    assert Counter(simulation.calls(400))["a"] > 100
    simulation.latency["a"] = 9.0
    within, after = Counter(simulation.calls(20)), Counter(simulation.calls(40))
    assert within["a"] + after["a"] <= most
    assert after["a"] <= later


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_target_that_is_fast_again_gets_its_calls_back(seed: int) -> None:
    simulation = Simulation({"a": 0.5, "b": 1.0, "c": 1.0, "d": 1.0}, 4, seed)
    fast = Counter(simulation.calls(400))["a"]
    simulation.latency["a"] = 5.0
    slow = Counter(simulation.calls(400))["a"]
    simulation.latency["a"] = 0.5
    simulation.calls(400)
    again = Counter(simulation.calls(400))["a"]
    assert fast > 130
    assert slow < 20
    assert again > 130
