"""In which order a route's targets are tried: one small class per strategy, and their registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

from routing.fleet import Demand
from routing.targets import Target
from routing.traffic import Traffic

Random = Callable[[], float]
"""Gives [0, 1)."""


class Strategy(Protocol):
    """Orders targets for one call. It leaves none out: skipping open ones is the plan's work. Stateless."""

    def order(
        self, targets: Sequence[Target], traffic: Traffic, demand: Demand, now: float, random: Random
    ) -> Sequence[Target]: ...

    def stays(
        self, target: Target, targets: Sequence[Target], traffic: Traffic, demand: Demand, now: float
    ) -> bool:
        """Whether a run may stay with the target that answered it last, though it isn't the first choice."""
        ...


class _Staying:
    def stays(
        self, target: Target, targets: Sequence[Target], traffic: Traffic, demand: Demand, now: float
    ) -> bool:
        return True


class Ordered(_Staying):
    """As written: the first target that is not open, then the next."""

    def order(
        self, targets: Sequence[Target], traffic: Traffic, demand: Demand, now: float, random: Random
    ) -> Sequence[Target]:
        return targets


class Weighted(_Staying):
    """By chance, in proportion to the weights. The calls of one run have the same order in every process.

    A random key of exponential distribution for each target, with its weight as rate, and the least first:
    Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006). For a run the keys come
    from its name: weighted rendezvous hashing.
    """

    def order(
        self, targets: Sequence[Target], traffic: Traffic, demand: Demand, now: float, random: Random
    ) -> Sequence[Target]:
        chances = _drawn(demand.run, targets) if demand.run else [random() for _ in targets]
        keys = {
            target.key: -math.log(1.0 - chance) / target.weight
            for target, chance in zip(targets, chances, strict=True)
        }
        return sorted(targets, key=lambda target: keys[target.key])


class LeastBusy:
    """The fewest calls in flight for its weight; of equals the first."""

    def order(
        self, targets: Sequence[Target], traffic: Traffic, demand: Demand, now: float, random: Random
    ) -> Sequence[Target]:
        return sorted(targets, key=lambda target: traffic.in_flight(target.key) / target.weight)

    def stays(
        self, target: Target, targets: Sequence[Target], traffic: Traffic, demand: Demand, now: float
    ) -> bool:
        """Until it has over twice the calls of the least busy one."""
        least = min(traffic.in_flight(other.key) / other.weight for other in targets)
        return traffic.in_flight(target.key) / target.weight <= 2 * least + 4


class LeastLatency:
    """The better one of two that are drawn by chance, then the others, the fastest first.

    Better is the lower peak-EWMA of the time to the first event, times the calls in flight. Two choices,
    since all calls at once to the fastest would make it the slowest (Mitzenmacher, 2001).
    """

    def order(
        self, targets: Sequence[Target], traffic: Traffic, demand: Demand, now: float, random: Random
    ) -> Sequence[Target]:
        if len(targets) < 2:
            return targets
        ranked = sorted(targets, key=lambda target: _latency(target, traffic, demand, now))
        first = int(random() * len(ranked))
        second = int(random() * (len(ranked) - 1))
        second += second >= first
        best = ranked.pop(min(first, second))
        return [best, *ranked]

    def stays(
        self, target: Target, targets: Sequence[Target], traffic: Traffic, demand: Demand, now: float
    ) -> bool:
        """Until it is over three times as slow as the fastest that is known."""
        known = [s for other in targets if (s := _latency(other, traffic, demand, now)) > 0]
        return not known or _latency(target, traffic, demand, now) <= 3 * min(known)


class LowestCost(_Staying):
    """The cheapest first, three tokens of input counted to one of output; those without a price last."""

    def order(
        self, targets: Sequence[Target], traffic: Traffic, demand: Demand, now: float, random: Random
    ) -> Sequence[Target]:
        return sorted(targets, key=_cost)


_GUESS_S = 1.0
"""The latency of a target that has been asked and never answered: not every call may go to find it out."""


def _latency(target: Target, traffic: Traffic, demand: Demand, now: float) -> float:
    mean = traffic.load(target.key).latency(stream=demand.stream).mean(now)
    in_flight = traffic.in_flight(target.key)
    if not mean and in_flight:
        mean = _GUESS_S
    return mean * (in_flight + 1)


def _cost(target: Target) -> float:
    return math.inf if target.facts.cost is None else target.facts.cost


_MASK = (1 << 64) - 1


def _drawn(run: str, targets: Sequence[Target]) -> list[float]:
    """A number in [0, 1) for each target, always the same for the same run and target."""
    seed = int.from_bytes(blake2b(run.encode(), digest_size=8).digest())
    # 53 bits, as a float has: more would round up to 1.
    return [(_mixed(seed ^ target.seed) >> 11) / 2**53 for target in targets]


def _mixed(x: int) -> int:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


STRATEGIES: Mapping[str, Strategy] = {
    "ordered": Ordered(),
    "weighted": Weighted(),
    "least-busy": LeastBusy(),
    "least-latency": LeastLatency(),
    "lowest-cost": LowestCost(),
}


def strategy_named(name: str) -> Strategy:
    """The strategy of this name. ValueError, with the known names, for any other."""
    strategy = STRATEGIES.get(name)
    if strategy is None:
        raise ValueError(f"strategy {name!r} is not known; use one of: {', '.join(sorted(STRATEGIES))}")
    return strategy
