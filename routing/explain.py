"""Where a call would go, and why: told without asking anyone. No probe is taken, and nothing is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from routing.fleet import Demand, Fleet, Why
from routing.health import Breaker
from routing.order import arranged, fitting
from routing.reasons import Place, reason
from routing.targets import Leg, Resolved, Target

_EVEN = 1e-6
"""In place of each random number: it puts weights in their order, and draws the fastest."""


class Standing(StrEnum):
    ASKED = "asked"
    PASSED_OVER = "passed_over"
    RESERVE = "reserve"
    """Asked only where a target's answer calls for it: a prompt proves too long, or is filtered."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """A target as a call finds it. `model` is the name of the leg in which it stands."""

    target: Target
    model: str
    standing: Standing
    why: str
    """In plain words, for people."""
    wait_s: float | None = None
    """Of one that is passed over: seconds until it may be asked; None where waiting doesn't help."""


def prospects(resolved: Resolved, fleet: Fleet, demand: Demand, now: float) -> tuple[Prospect, ...]:
    """Every target that a call which starts now may come to; those asked stand in the order of asking."""
    return tuple(_Looking(resolved, fleet, demand, now).all())


def soonest(found: Sequence[Prospect]) -> float | None:
    """Seconds until the first of them may be asked: 0 where one may now, None where waiting doesn't help."""
    if any(prospect.standing is Standing.ASKED for prospect in found):
        return 0.0
    return min((prospect.wait_s for prospect in found if prospect.wait_s is not None), default=None)


class _Looking:
    def __init__(self, resolved: Resolved, fleet: Fleet, demand: Demand, now: float) -> None:
        self._resolved = resolved
        self._fleet = fleet
        self._demand = demand
        self._now = now
        self._seen: set[tuple[str, str]] = set()

    def all(self) -> Iterator[Prospect]:
        chain = self._resolved.chain
        fit = fitting(chain, self._demand.tokens)
        for leg in fit:
            yield from self._leg(leg, self._role(leg, fit))
        for leg in chain:
            yield from self._too_small(leg)
        for leg in chain:
            yield from self._reserve(leg.larger, f"only for prompts that prove too long for {leg.model}")
            yield from self._reserve(leg.other, f"only for requests that {leg.model} filters")

    def _role(self, leg: Leg, fit: Sequence[Leg]) -> str:
        asked = self._resolved.model
        if leg.model == asked:
            return ""
        displaced = all(other.model != asked for other in fit)
        if displaced and any(leg.model == larger.model for larger in self._resolved.chain[0].larger):
            return f"the prompt is too long for {asked}"
        return "fallback"

    def _leg(self, leg: Leg, role: str) -> Iterator[Prospect]:
        fleet, demand, now = self._fleet, self._demand, self._now
        ready = [target for target in leg.targets if fleet.passed_over(target, demand, now) is None]
        kept = ""
        for turn, target in enumerate(arranged(leg, fleet, demand, now, lambda: _EVEN)):
            kept = kept or (self._kept(leg, target) if turn == 0 else "")
            if self._is_new(target):
                place = Place(leg, target, tuple(ready), turn, drawn=not kept)
                yield self._prospect(place, role, kept if turn == 0 else "")

    def _kept(self, leg: Leg, target: Target) -> str:
        """Why it goes before what the strategy says; empty where it doesn't."""
        demand = self._demand
        if demand.prefer == target.id and len(leg.targets) > 1:
            return "keeps what the call goes on from"
        if not demand.run or not leg.route.affinity:
            return ""
        warm = self._fleet.affinity.target(demand.run, leg.model, self._now)
        return "answered this run last" if warm == target.key else ""

    def _prospect(self, place: Place, role: str, kept: str) -> Prospect:
        fleet, demand, now, target = self._fleet, self._demand, self._now, place.target
        why = fleet.passed_over(target, demand, now)
        if why is not None:
            wait = fleet.wait((target,), demand, now)
            return Prospect(target, place.leg.model, Standing.PASSED_OVER, self._passed(target, why), wait)
        said = kept or reason(place, fleet.traffic, demand, now)
        words = "; ".join(filter(None, (role, said, *self._remarks(target))))
        return Prospect(target, place.leg.model, Standing.ASKED, words)

    def _remarks(self, target: Target) -> Iterator[str]:
        health, now = self._fleet.health, self._now
        if health.state(target.key, now) is Breaker.HALF_OPEN:
            yield "half open: the call would be its probe"
        resting = sum(not health.available(lane, now) for lane in target.lanes)
        if resting:
            yield f"{resting} of {len(target.lanes)} API keys rest"
        window = target.facts.window
        if window is not None and self._demand.tokens > window:
            yield f"its window of {window:,} tokens may be too small"

    def _passed(self, target: Target, why: Why) -> str:
        limits = target.limits
        match why:
            case Why.OPEN:
                return self._open(target)
            case Why.RPM:
                return f"at its limit of {limits.rpm:,} requests a minute"
            case Why.TPM:
                return f"at its limit of {limits.tpm:,} tokens a minute"
            case Why.CONCURRENCY:
                return f"at its limit of {limits.concurrency:,} calls at once"
            case Why.TOO_SMALL:
                return f"too small: its window is {target.facts.window:,} tokens"
            case _:
                assert_never(why)

    def _open(self, target: Target) -> str:
        health, now = self._fleet.health, self._now
        wait = span(self._fleet.wait((target,), self._demand, now) or 0.0)
        if health.available(target.key, now):
            kinds = dict.fromkeys(kind.value for lane in target.lanes if (kind := health.why(lane)))
            return f"all {len(target.lanes)} API keys rest, the first for {wait}{_after(*kinds)}"
        if health.state(target.key, now) is Breaker.HALF_OPEN:
            return "half open, and another call's probe is out"
        kind = health.why(target.key)
        return f"open for {wait}{_after(*([kind.value] if kind else []))}"

    def _too_small(self, leg: Leg) -> Iterator[Prospect]:
        for target in leg.targets:
            if self._is_new(target):
                words = self._passed(target, Why.TOO_SMALL)
                yield Prospect(target, leg.model, Standing.PASSED_OVER, words)

    def _reserve(self, legs: Sequence[Leg], words: str) -> Iterator[Prospect]:
        for leg in legs:
            for target in leg.targets:
                if self._is_new(target):
                    yield Prospect(target, leg.model, Standing.RESERVE, words)

    def _is_new(self, target: Target) -> bool:
        at = target.key, target.model
        new = at not in self._seen
        self._seen.add(at)
        return new


def span(seconds: float) -> str:
    """Seconds for people: rounded, never to nothing."""
    if seconds >= 7_200:
        return f"{seconds / 3_600:.0f} h"
    if seconds >= 120:
        return f"{seconds / 60:.0f} min"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{max(seconds, 0.1):.1f} s"


def _after(*kinds: str) -> str:
    return f" after {', '.join(kinds)}" if kinds else ""
