"""In which order a route's targets are tried: one small class per strategy, and their registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from routing.health import Health
from routing.targets import Target


class Strategy(Protocol):
    """Orders targets for one call. It leaves none out: skipping open ones is the plan's work. Stateless."""

    def order(self, targets: Sequence[Target], health: Health, now: float) -> Sequence[Target]: ...


class Ordered:
    """As written: the first target that is not open, then the next."""

    def order(self, targets: Sequence[Target], health: Health, now: float) -> Sequence[Target]:
        return targets


STRATEGIES: Mapping[str, Strategy] = {"ordered": Ordered()}


def strategy_named(name: str) -> Strategy:
    """The strategy of this name. ValueError, with the known names, for any other."""
    strategy = STRATEGIES.get(name)
    if strategy is None:
        raise ValueError(f"strategy {name!r} is not known; use one of: {', '.join(sorted(STRATEGIES))}")
    return strategy
