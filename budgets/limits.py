"""Which limits bind a call, and the counter that each of them keeps for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgspec

from budgets.amounts import AT_GATE, LARGEST, POSITION, Unit
from budgets.scopes import Scope, Subject, joined, quoted
from budgets.spans import Buckets, WindowSpan
from budgets.windows import Window

_MOST_AGENTS_CACHED = 10_000


class OnExceed(StrEnum):
    """What happens to a call that a limit has no room for.

    `block` refuses it. `downgrade` refuses it too, so that the caller can ask again for a cheaper model.
    `warn` counts it and lets it pass.
    """

    BLOCK = "block"
    DOWNGRADE = "downgrade"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Limit:
    """A most per unit, within a scope, over a window. `maximum` of `usd` is in micro-dollars.

    `warn_at` is a fraction of the maximum. Raises ValueError where the parts make no limit.
    """

    id: str
    scope: Scope
    window: Window
    maximum: Mapping[Unit, int]
    on_exceed: OnExceed = OnExceed.BLOCK
    downgrade: str = ""
    """The model to ask instead, where `on_exceed` says so; it means nothing here."""
    warn_at: float | None = None
    caps: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)
    """`maximum` as (position in an amount, most) pairs."""
    at: tuple[int | None, ...] = field(init=False, repr=False, compare=False)
    """`maximum` by position in an amount; None where the unit is not limited."""
    gate_caps: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)
    """The part of `caps` whose units are taken at the gate and that allows any at all."""
    blocks: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("a limit needs an id")
        if not self.maximum:
            raise ValueError(f"limit {self.id!r} limits nothing: give it one of {', '.join(Unit)}")
        for unit, most in self.maximum.items():
            if not 0 <= most <= LARGEST:
                raise ValueError(f"limit {self.id!r}: {unit} must be from 0 to {LARGEST}, not {most}")
        if self.warn_at is not None and not 0 < self.warn_at <= 1:
            raise ValueError(f"limit {self.id!r}: warn_at must be over 0 and at most 1, not {self.warn_at}")
        caps = tuple((POSITION[unit], self.maximum[unit]) for unit in Unit if unit in self.maximum)
        gate = frozenset(POSITION[unit] for unit in AT_GATE)
        object.__setattr__(self, "caps", caps)
        object.__setattr__(self, "at", tuple(self.maximum.get(unit) for unit in Unit))
        object.__setattr__(self, "gate_caps", tuple(cap for cap in caps if cap[0] in gate and cap[1]))
        object.__setattr__(self, "blocks", self.on_exceed is not OnExceed.WARN)


class Bound(msgspec.Struct, frozen=True):
    """A limit as it binds one call: the counter's key, and when it starts afresh (Unix µs; None: never).

    The key depends on the limit's id, on whom it counts and on the window's span, and on nothing else, so a
    changed maximum keeps what was used. Under a rolling window the key is that of one bucket, `buckets` has
    those that count with it, and `resets_us` is when what is counted now has left every span.
    """

    limit: Limit
    key: str
    resets_us: int | None
    buckets: Buckets | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Every counter that says how much is left under it."""
        buckets = self.buckets
        return (self.key,) if buckets is None else (*buckets.earlier, self.key, *buckets.later)


class LimitBook:
    """Every limit of a configuration, in its order. Immutable but for caches; safe to share by threads."""

    __slots__ = ("_plans", "limits")

    def __init__(self, limits: Sequence[Limit]) -> None:
        ids = Counter((limit.id, limit.window.name) for limit in limits)
        for (id_, _), times in ids.items():
            if times > 1:
                raise ValueError(f"two limits have the id {id_!r}: give each its own")
        self.limits = tuple(limits)
        self._plans: dict[str, _Plan] = {}

    def bounds(self, subject: Subject, now_us: int) -> tuple[Bound, ...]:
        """What binds a call of `subject` at `now_us` (Unix µs), in the order of the limits.

        A limit scoped by something that the subject lacks (a user, a run) does not bind it. A limit by tag
        binds once for each tag it matches. One over a run binds for the call's own and then, the nearest
        first, for each run above it, as the limits of that run's agent would. No key comes twice.
        """
        found: list[Bound] = []
        for binder in self._plan(subject.agent).all:
            binder.add_to(found, subject, now_us)
        return self._with_ancestors(found, subject, now_us) if subject.ancestors else tuple(found)

    def _with_ancestors(self, found: list[Bound], subject: Subject, now_us: int) -> tuple[Bound, ...]:
        for above in subject.ancestors:
            parent = Subject(
                agent=above.agent,
                team=above.team,
                user=above.user,
                key=subject.key,
                model=subject.model,
                run=above.run,
                tags=subject.tags,
            )
            for binder in self._plan(above.agent).of_runs:
                binder.add_to(found, parent, now_us)
        once: dict[str, Bound] = {}
        for bound in found:
            once.setdefault(bound.key, bound)
        return tuple(once.values())

    def _plan(self, agent: str) -> _Plan:
        plan = self._plans.get(agent)
        if plan is None:
            if len(self._plans) >= _MOST_AGENTS_CACHED:
                self._plans.clear()
            binders = tuple(_Binder(limit) for limit in self.limits if limit.scope.may_match(agent))
            plan = self._plans[agent] = _Plan(binders, tuple(b for b in binders if b.of_run))
        return plan


class _Plan(NamedTuple):
    """What may bind an agent's calls; of that, what binds its runs."""

    all: tuple[_Binder, ...]
    of_runs: tuple[_Binder, ...]


class _Binder:
    """One limit for one agent, with the current span (and, where nothing else varies, the bound) kept."""

    __slots__ = ("_bound", "_fixed", "_limit", "_prefix", "_span", "of_run")

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._prefix = quoted(limit.id)
        self.of_run = limit.window.per_run
        self._fixed = limit.scope.only_agent and not self.of_run
        self._span: tuple[int, int, WindowSpan] | None = None
        self._bound: tuple[WindowSpan, Bound] | None = None

    def add_to(self, found: list[Bound], subject: Subject, now_us: int) -> None:
        limit = self._limit
        if not self.of_run:
            span = self._current(now_us)
        elif subject.run is None:
            return
        else:
            span = limit.window.span(now_us, quoted(subject.run))
        if self._fixed and (kept := self._bound) is not None and kept[0] is span:
            found.append(kept[1])
            return
        for part in limit.scope.parts(subject, with_agent=self.of_run):
            bound = _bound(limit, self._prefix + part, span)
            found.append(bound)
            if self._fixed:
                self._bound = (span, bound)

    def _current(self, now_us: int) -> WindowSpan:
        kept = self._span
        if kept is not None and kept[0] <= now_us < kept[1]:
            return kept[2]
        span = self._limit.window.span(now_us, None)
        self._span = (now_us, span.resets_us if span.resets_us is not None else LARGEST, span)
        return span


def _bound(limit: Limit, who: str, span: WindowSpan) -> Bound:
    key, buckets = joined(who, span.key), span.buckets
    if buckets is None:
        return Bound(limit, key, span.resets_us)
    return Bound(limit, key, buckets.leaves_us(), buckets.under(key.removesuffix(span.key)))
