"""In words: why a strategy puts a target where it stands. One function for each strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from routing.fleet import Demand
from routing.targets import Leg, Target
from routing.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Place:
    """A target among those of its leg that may be asked now, and how many of them stand before it.

    `drawn`: chance may decide; not where another target goes first for a reason of its own.
    """

    leg: Leg
    target: Target
    ready: tuple[Target, ...]
    rank: int
    drawn: bool


Reason = Callable[[Place, Traffic, Demand, float], str]


def reason(place: Place, traffic: Traffic, demand: Demand, now: float) -> str:
    """Why the strategy has the target there. ValueError for a strategy without words."""
    if len(place.leg.route.targets) == 1:
        return f"the only target of {place.leg.model}"
    words = REASONS.get(place.leg.route.strategy)
    if words is None:
        raise ValueError(f"strategy {place.leg.route.strategy!r} is not known here")
    return words(place, traffic, demand, now)


def _ordered(place: Place, traffic: Traffic, demand: Demand, now: float) -> str:
    keys = [target.key for target in place.leg.route.targets]
    number = keys.index(place.target.key)
    return (
        f"{_ORDINALS[number]} in the list" if number < len(_ORDINALS) else f"number {number + 1} in the list"
    )


def _weighted(place: Place, traffic: Traffic, demand: Demand, now: float) -> str:
    total = sum(target.weight for target in place.ready)
    words = f"weight {place.target.weight:g} of {total:g}"
    if demand.run and place.leg.route.affinity:
        return f"{words}, drawn by the run's name"
    return words + _chance(place, place.target.weight / total)


def _least_busy(place: Place, traffic: Traffic, demand: Demand, now: float) -> str:
    words = _in_flight(place.target, traffic)
    return words if place.target.weight == 1 else f"{words}, weight {place.target.weight:g}"


def _least_latency(place: Place, traffic: Traffic, demand: Demand, now: float) -> str:
    mean = traffic.load(place.target.key).latency(stream=demand.stream).mean(now)
    heard = f"{mean:.2f} s to the first event" if mean else "not heard of lately"
    words = f"{heard}, {_in_flight(place.target, traffic)}"
    count = len(place.ready)
    if count < 2:
        return words
    # Of two that are drawn the faster one goes: as many pairs are its own as targets are slower.
    return words + _chance(place, (count - 1 - place.rank) / (count * (count - 1) / 2))


def _lowest_cost(place: Place, traffic: Traffic, demand: Demand, now: float) -> str:
    cost = place.target.facts.cost
    if cost is None:
        return "its price is not known"
    dollars = cost / 1_000_000
    return f"${dollars:,.2f} per million tokens" if dollars >= 0.1 else f"${dollars:.3g} per million tokens"


def _in_flight(target: Target, traffic: Traffic) -> str:
    count = traffic.in_flight(target.key)
    return f"{count:,} call{'' if count == 1 else 's'} in flight"


def _chance(place: Place, share: float) -> str:
    """Nothing where chance doesn't decide, or leaves no choice."""
    if not place.drawn or len(place.ready) < 2:
        return ""
    return f": first for {share:.0%} of calls"


_ORDINALS = ("first", "second", "third", "fourth", "fifth")

REASONS: Mapping[str, Reason] = {
    "ordered": _ordered,
    "weighted": _weighted,
    "least-busy": _least_busy,
    "least-latency": _least_latency,
    "lowest-cost": _lowest_cost,
}
