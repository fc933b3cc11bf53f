"""What planning costs: CPU per call of `Plan`, `next`, `heard` and `report`, with 10 targets.

Run as `python -m bench.plan`. Nothing is sent; the clock is made up: 20 calls at a time, 1,000 a second.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import deque
from dataclasses import dataclass
from random import Random

from routing.fleet import Demand, Fleet
from routing.plan import Plan, Succeeded, Try
from routing.strategies import STRATEGIES
from routing.targets import NO_LIMITS, Facts, Limits, Resolved, Route, RouteTable, Target

TARGETS = 10
TARGET_US = 30.0
_AT_ONCE = 20
_EVERY_S = 0.001
_WIDE = Limits(rpm=10**9, tpm=10**12, concurrency=10**6)
_DONE = Succeeded(1_200)


@dataclass(frozen=True, slots=True)
class Case:
    """`runs`: how many agents' runs the calls belong to in turn, 0 for calls outside any."""

    name: str
    runs: int = 0
    limits: Limits = NO_LIMITS


_CASES = (
    Case("no run"),
    Case("100 runs", runs=100),
    Case("limits", limits=_WIDE),
    Case("limits, 100 runs", runs=100, limits=_WIDE),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    print(f"us of CPU a call, {TARGETS} targets, median of {chosen.rounds} rounds of {chosen.calls} calls")
    print(f"{'':16}" + "".join(f"{case.name:>18}" for case in _CASES))
    slowest = 0.0
    for strategy in STRATEGIES:
        taken = [_measure(strategy, case, chosen.calls, chosen.rounds) for case in _CASES]
        slowest = max(slowest, *taken)
        print(f"{strategy:16}" + "".join(f"{us:>18.1f}" for us in taken))
    verdict = "met" if slowest < TARGET_US else "missed"
    print(f"slowest: {slowest:.1f} us; the target of under {TARGET_US:.0f} us is {verdict}")


def _measure(strategy: str, case: Case, calls: int, rounds: int) -> float:
    resolved = _resolved(strategy, case.limits)
    run = _Run(
        resolved, [Demand(f"agent/run-{n}", 1_000) for n in range(case.runs)] or [Demand(tokens=1_000)]
    )
    run.calls(calls // 10)
    return statistics.median(run.calls(calls) for _ in range(rounds))


def _resolved(strategy: str, limits: Limits) -> Resolved:
    targets = (
        Target(f"target-{n}", "openai", "gpt", weight=1 + n % 3, limits=limits) for n in range(TARGETS)
    )
    table = RouteTable(
        [Route("m", tuple(targets), strategy)], lambda provider, model: Facts(128_000, 400_000)
    )
    resolved = table.resolve("m")
    assert resolved is not None
    return resolved


class _Run:
    """Calls that overlap: each answers as the twentieth after it is planned."""

    def __init__(self, resolved: Resolved, demands: list[Demand]) -> None:
        self._chain = resolved.chain
        self._demands = demands
        self._fleet = Fleet()
        self._random = Random(1).random
        self._now = 1_000.0
        self._underway: deque[tuple[Plan, Try]] = deque()

    def calls(self, count: int) -> float:
        """The microseconds of CPU that one of so many took."""
        began = time.process_time()
        for n in range(count):
            self._call(self._demands[n % len(self._demands)])
        return (time.process_time() - began) / count * 1e6

    def _call(self, demand: Demand) -> None:
        self._now += _EVERY_S
        plan = Plan(self._chain, self._fleet, now=self._now, random=self._random, demand=demand)
        step = plan.next(self._now)
        assert isinstance(step, Try)
        self._underway.append((plan, step))
        if len(self._underway) > _AT_ONCE:
            plan, step = self._underway.popleft()
            plan.heard(step, self._now)
            plan.report(step, _DONE, self._now)


if __name__ == "__main__":
    main()
