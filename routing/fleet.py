"""What is known of all targets: breakers, traffic, and which run was answered where; who may be asked now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from routing.affinity import Affinity
from routing.health import Health
from routing.targets import NO_LIMITS, Target
from routing.traffic import Traffic


class Why(StrEnum):
    """Why a target is passed over."""

    OPEN = "open"
    """Its breaker, or that of each of its API keys, is open, or another call's probe is out."""
    RPM = "rpm"
    TPM = "tpm"
    CONCURRENCY = "concurrency"
    TOO_SMALL = "too_small"
    """The prompt is longer than its model takes."""


LIMITED = frozenset({Why.RPM, Why.TPM, Why.CONCURRENCY})
_SLOT_S = 1.0
"""What a caller is told to wait for a place among the calls that a target takes at once."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What of a call decides where it goes. `tokens` of its prompt, 0 where they weren't counted."""

    run: str = ""
    """Names the run, apart from every other agent's; empty for a call outside any."""
    tokens: int = 0
    stream: bool = False
    prefer: str = ""
    """The id of the target that keeps what the call goes on from."""


ANY = Demand()


class Fleet:
    """One per process; not thread-safe."""

    __slots__ = ("_turn", "affinity", "health", "traffic")

    def __init__(self, health: Health | None = None) -> None:
        self.health = health or Health()
        self.traffic = Traffic()
        self.affinity = Affinity()
        self._turn: dict[str, int] = {}

    def passed_over(self, target: Target, demand: Demand, at: float) -> Why | None:
        """Why no call that starts at `at` may go there; None where one may."""
        if not self._awake(target, at):
            return Why.OPEN
        return None if target.limits is NO_LIMITS else self._limited(target, demand, at)

    def claim(self, target: Target, demand: Demand, at: float) -> int | None:
        """The API key (from 0) with which a call that starts at `at` may go there; None where it may not.

        It takes the probe of a half-open breaker, so what came of it has to be reported.
        """
        if self.passed_over(target, demand, at) is not None:
            return None
        if len(target.lanes) == 1:
            return 0 if self.health.claim(target.key, at) else None
        if not self.health.claim(target.key, at):
            return None
        return self._lane(target, at)

    def may_start(self, target: Target, api_key: int, at: float) -> bool:
        """Whether a call that was given its claim for this time, earlier, may still go there."""
        health = self.health
        return health.may_start(target.key, at) and health.may_start(target.lanes[api_key], at)

    def ended(self, target: Target, api_key: int, started: float) -> None:
        """The call that was to start then is over: if it was a probe, another may probe."""
        self.health.ended(target.key, started)
        if len(target.lanes) > 1:
            self.health.ended(target.lanes[api_key], started)

    def wait(self, targets: Iterable[Target], demand: Demand, now: float) -> float | None:
        """Seconds until the first of these may be asked; None for no targets."""
        return min((self._wait(target, demand, now) for target in targets), default=None)

    def _awake(self, target: Target, at: float) -> bool:
        health = self.health
        if not health.available(target.key, at):
            return False
        return len(target.lanes) == 1 or any(health.available(lane, at) for lane in target.lanes)

    def _limited(self, target: Target, demand: Demand, at: float) -> Why | None:
        limits, key = target.limits, target.key
        load, others = self.traffic.load(key), self.traffic.elsewhere(key)
        if limits.concurrency is not None and load.in_flight + others.in_flight >= limits.concurrency:
            return Why.CONCURRENCY
        if limits.rpm is not None and load.requests.used(at) + others.requests + 1 > limits.rpm:
            return Why.RPM
        if limits.tpm is not None:
            used = load.tokens.used(at) + others.tokens
            # A prompt that is larger than the limit itself still goes, alone.
            if used and used + demand.tokens > limits.tpm:
                return Why.TPM
        return None

    def _lane(self, target: Target, at: float) -> int | None:
        """The API keys in turn, those that rest left out."""
        lanes = target.lanes
        first = self._turn.get(target.key, 0)
        for n in range(first, first + len(lanes)):
            if self.health.claim(lanes[n % len(lanes)], at):
                self._turn[target.key] = (n + 1) % len(lanes)
                return n % len(lanes)
        return None

    def _wait(self, target: Target, demand: Demand, now: float) -> float:
        own = self.health.soonest((target.key,), now) or 0.0
        lanes = self.health.soonest(target.lanes, now) or 0.0
        return max(own, lanes, self._wait_for_room(target, demand, now))

    def _wait_for_room(self, target: Target, demand: Demand, now: float) -> float:
        limits, key = target.limits, target.key
        why = None if limits is NO_LIMITS else self._limited(target, demand, now)
        load, others = self.traffic.load(key), self.traffic.elsewhere(key)
        match why:
            case Why.CONCURRENCY:
                return _SLOT_S
            case Why.RPM:
                assert limits.rpm is not None
                return max(_SLOT_S, load.requests.room_in(max(0.0, limits.rpm - others.requests - 1), now))
            case Why.TPM:
                assert limits.tpm is not None
                room = limits.tpm - others.tokens - min(demand.tokens, limits.tpm)
                return max(_SLOT_S, load.tokens.room_in(max(0.0, room), now))
            case _:
                return 0.0
