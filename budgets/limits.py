"""Which limits bind a call, and the counter that each of them keeps for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from budgets.amounts import AT_GATE, LARGEST, POSITION, Unit
from budgets.scopes import Scope, Subject, quoted, shortened
from budgets.windows import Window, WindowSpan

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
    changed maximum keeps what was used.
    """

    limit: Limit
    key: str
    resets_us: int | None


class LimitBook:
    """Every limit of a configuration, in its order. Immutable but for caches; safe to share by threads."""

    __slots__ = ("_plans", "limits")

    def __init__(self, limits: Sequence[Limit]) -> None:
        ids = Counter((limit.id, limit.window.name) for limit in limits)
        for (id_, _), times in ids.items():
            if times > 1:
                raise ValueError(f"two limits have the id {id_!r}: give each its own")
        self.limits = tuple(limits)
        self._plans: dict[str, tuple[_Binder, ...]] = {}

    def bounds(self, subject: Subject, now_us: int) -> tuple[Bound, ...]:
        """What binds a call of `subject` at `now_us` (Unix µs), in the order of the limits.

        A limit scoped by something that the subject lacks (a user, a run) does not bind it. A limit by tag
        binds once for each tag it matches.
        """
        plan = self._plans.get(subject.agent)
        if plan is None:
            plan = self._plan(subject.agent)
        found: list[Bound] = []
        for binder in plan:
            binder.add_to(found, subject, now_us)
        return tuple(found)

    def _plan(self, agent: str) -> tuple[_Binder, ...]:
        if len(self._plans) >= _MOST_AGENTS_CACHED:
            self._plans.clear()
        plan = tuple(_Binder(limit) for limit in self.limits if limit.scope.may_match(agent))
        self._plans[agent] = plan
        return plan


class _Binder:
    """One limit for one agent, with the current span (and, where nothing else varies, the bound) kept."""

    __slots__ = ("_bound", "_fixed", "_limit", "_prefix", "_span")

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._prefix = quoted(limit.id)
        self._fixed = limit.scope.only_agent and not limit.window.per_run
        self._span: tuple[int, int, WindowSpan] | None = None
        self._bound: tuple[WindowSpan, Bound] | None = None

    def add_to(self, found: list[Bound], subject: Subject, now_us: int) -> None:
        limit = self._limit
        if not limit.window.per_run:
            span = self._current(now_us)
        elif subject.run is None:
            return
        else:
            span = limit.window.span(now_us, quoted(subject.run))
        if self._fixed and (kept := self._bound) is not None and kept[0] is span:
            found.append(kept[1])
            return
        for part in limit.scope.parts(subject, with_agent=limit.window.per_run):
            bound = Bound(limit, shortened(f"{self._prefix}{part}|{span.key}"), span.resets_us)
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
