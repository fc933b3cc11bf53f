"""In which order one leg's targets are asked, and which legs a call's plan goes through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from routing.fleet import Demand, Fleet
from routing.strategies import Random, strategy_named
from routing.targets import Leg, Target


def arranged(leg: Leg, fleet: Fleet, demand: Demand, now: float, random: Random) -> Iterator[Target]:
    """Every target of the leg: those that may be asked now as the strategy has them, then the others.

    Before all comes the target that keeps what the call goes on from, or that answered its run last.
    """
    targets = leg.targets
    if len(targets) == 1:
        yield targets[0]
        return
    ready = [target for target in targets if fleet.passed_over(target, demand, now) is None]
    first = _first(leg, ready, fleet, demand, now)
    if first is not None:
        yield first
    if ready:
        asked = demand if leg.route.affinity else replace(demand, run="")
        for target in strategy_named(leg.route.strategy).order(ready, fleet.traffic, asked, now, random):
            if target is not first:
                yield target
    if len(ready) < len(targets):
        yield from [target for target in targets if target not in ready]


def _first(leg: Leg, ready: Sequence[Target], fleet: Fleet, demand: Demand, now: float) -> Target | None:
    if demand.prefer:
        kept = next((target for target in ready if target.id == demand.prefer), None)
        if kept is not None:
            return kept
    if not demand.run or not leg.route.affinity:
        return None
    key = fleet.affinity.target(demand.run, leg.model, now)
    if key is None:
        return None
    warm = next((target for target in ready if target.key == key), None)
    if warm is None:
        return None
    stays = strategy_named(leg.route.strategy).stays(warm, ready, fleet.traffic, demand, now)
    return warm if stays else None


def fitting(chain: Sequence[Leg], tokens: int) -> Sequence[Leg]:
    """The chain for a prompt of so many tokens: targets that it is too long for are left out.

    Where that leaves none of the first leg, its `context_fallbacks` go first. Where nothing is known to be
    large enough the chain stays as it is: counts are close, not exact, and the vendor has the last word.
    """
    if not tokens or not chain or all(_fits(target, tokens) for leg in chain for target in leg.targets):
        return chain
    legs = [_less(leg, tokens) for leg in chain]
    if not legs[0].targets:
        legs = [_less(leg, tokens) for leg in chain[0].larger] + legs[1:]
    left = [leg for leg in legs if leg.targets]
    return left or chain


def _less(leg: Leg, tokens: int) -> Leg:
    return replace(leg, targets=tuple([target for target in leg.targets if _fits(target, tokens)]))


def _fits(target: Target, tokens: int) -> bool:
    window = target.facts.window
    return window is None or tokens <= window
