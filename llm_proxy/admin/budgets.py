"""How much of each budget is used, held and left, by everyone whom it counts now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import msgspec
from sqlalchemy import Connection, or_, select

from budgets import MICRO, Bound, Counter, Limit, LimitBook, SqlLedger, Subject, Unit, counted
from budgets.scopes import joined, quoted
from llm_proxy import wiring
from llm_proxy.admin.shown import maybe_iso
from llm_proxy.archive.listings import RunRow, list_runs
from llm_proxy.config import Config
from llm_proxy.records.tables import runs
from llm_proxy.runs.envelope import bound_of, read
from llm_proxy.spend.counters import found_bounds, who_of

_WHO = ("agent", "team", "user", "key", "model", "tag")
_OPEN_RUNS = 1_000
_PEEKED = 2_000


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """One unit of one budget. `usd` is in micro-dollars; `resets_us` is Unix µs, None for never."""

    budget: str
    window: str
    unit: Unit
    used: int
    held: int
    maximum: int
    resets_us: int | None


class BudgetLine(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of one budget for one of those whom it counts. Amounts of `usd` are in dollars."""

    budget: str
    agent: str
    """Empty, as the next ones, where it counts all of them together."""
    team: str
    user: str
    key: str
    model: str
    tag: str
    run: str
    window: str
    unit: str
    used: float | int
    held: float | int
    """By calls in flight: their worst case."""
    left: float | int
    maximum: float | int
    percent: float
    """What is used and held, of the maximum."""
    on_exceed: str
    """block | downgrade | warn."""
    warn_at: float | None
    resets_us: int | None
    """When the span ends, or all that is counted has left a rolling window. Null: never."""
    resets_at: str | None


class BudgetFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`agent`: what binds this agent. `user`: what counts this user. `run`: the limits over this run too."""

    agent: str | None = None
    user: str | None = None
    run: str | None = None


def budget_lines(
    config: Config, connection: Connection | None, now_us: int, limit: int, wanted: BudgetFilter
) -> list[BudgetLine]:
    """Every limit, for everyone whom it counts now, and what envelopes of open runs leave: at most `limit`.

    Those that are nearest to their end come first. Limits over runs are told of `wanted.run` only.
    """
    bounds = _bounds(config, connection, now_us, wanted)
    counters = _counters(connection, bounds)
    lines = [_line(bound, unit, counters[bound.key]) for bound in bounds for unit in bound.limit.maximum]
    kept = [line for line in lines if _binds(line, wanted, config)]
    return sorted(kept, key=lambda line: -line.percent)[:limit]


def budget_use(config: Config, connection: Connection, run: RunRow, now_us: int) -> list[BudgetUse]:
    """Every unit of every budget that binds the run at `now_us`, in the config's order."""
    bounds = wiring.limits(config).bounds(_of_run(run), now_us)
    counters = _counters(connection, bounds)
    return [
        BudgetUse(
            bound.limit.id,
            bound.limit.window.name,
            unit,
            counters[bound.key].used.get(unit),
            counters[bound.key].held.get(unit),
            most,
            bound.resets_us,
        )
        for bound in bounds
        for unit, most in bound.limit.maximum.items()
    ]


def _bounds(config: Config, connection: Connection | None, now_us: int, wanted: BudgetFilter) -> list[Bound]:
    found: list[Bound] = []
    for limit in wiring.limits(config).limits:
        if limit.window.per_run:
            continue
        known = _of_config(limit, config, now_us)
        counts = found_bounds(connection, limit, now_us) if connection is not None and not known else []
        found += known or counts or [_unused(limit, now_us)]
    if connection is not None:
        found += _of_runs(config, connection, now_us, wanted)
    return list({bound.key: bound for bound in found}.values())


def _of_config(limit: Limit, config: Config, now_us: int) -> list[Bound]:
    """A limit as it binds the config's agents, teams and models; none where others are counted."""
    scope, book = limit.scope, LimitBook([limit])
    if (scope.user, scope.key, scope.tag) != (None,) * 3:
        return []
    models = list(config.models) if scope.model is not None else [None]
    return [
        bound
        for id_, agent in config.agents.items()
        for model in models
        for bound in book.bounds(Subject(agent=id_, team=agent.team or None, model=model), now_us)
    ]


def _of_runs(config: Config, connection: Connection, now_us: int, wanted: BudgetFilter) -> list[Bound]:
    """The limits over the run that is asked for, and envelopes: its own, or those of every open run."""
    if wanted.run is not None:
        book = wiring.limits(config)
        listed = list_runs(connection, limit=_OPEN_RUNS, agent=wanted.agent, run=wanted.run)
        over = [bound for run in listed for bound in book.bounds(_of_run(run), now_us)]
        found = [bound for bound in over if bound.limit.window.per_run]
    else:
        found = []
    c = runs.c
    query = select(c.agent_id, c.run_id, c.envelope).where(c.envelope != "", c.ended_us.is_(None))
    query = query.where(or_(c.expires_us.is_(None), c.expires_us > now_us))
    if wanted.run is not None:
        query = query.where(c.run_id == wanted.run)
    for agent, run, envelope in connection.execute(query.order_by(c.started_us.desc()).limit(_OPEN_RUNS)):
        bound = bound_of(agent, run, read(envelope))
        found += [] if bound is None else [bound]
    return found


def _of_run(run: RunRow) -> Subject:
    return Subject(agent=run.agent_id, team=run.team or None, user=run.user_id or None, run=run.run_id)


def _unused(limit: Limit, now_us: int) -> Bound:
    """A limit that counts nobody yet."""
    span = limit.window.span(now_us, None)
    return Bound(limit, joined(quoted(limit.id), span.key), span.resets_us)


def _counters(connection: Connection | None, bounds: Sequence[Bound]) -> dict[str, Counter]:
    """What stands under each of `bounds`, by its key."""
    keys = list(dict.fromkeys(key for bound in bounds for key in bound.keys))
    found: dict[str, Counter] = {}
    if connection is not None:
        ledger = SqlLedger(connection.dialect)
        for start in range(0, len(keys), _PEEKED):
            found |= ledger.peek(connection, keys[start : start + _PEEKED])
    return {bound.key: counted(bound, found) for bound in bounds}


def _line(bound: Bound, unit: Unit, counter: Counter) -> BudgetLine:
    limit = bound.limit
    head, _, tail = bound.key.rpartition("|")
    who = who_of(head.removeprefix(quoted(limit.id)))
    most, used, held = limit.maximum[unit], counter.used.get(unit), counter.held.get(unit)
    return BudgetLine(
        budget=limit.id,
        **{name: who.get(name, "") for name in _WHO},
        run=unquote(tail.removeprefix("run:")) if limit.window.per_run else "",
        window=limit.window.name,
        unit=unit.value,
        used=_amount(unit, used),
        held=_amount(unit, held),
        left=_amount(unit, max(0, most - used - held)),
        maximum=_amount(unit, most),
        percent=round(100 * (used + held) / most, 1) if most else 100.0,
        on_exceed=limit.on_exceed.value,
        warn_at=limit.warn_at,
        resets_us=bound.resets_us,
        resets_at=maybe_iso(bound.resets_us),
    )


def _amount(unit: Unit, figure: int) -> float | int:
    return figure / MICRO if unit is Unit.USD else figure


def _binds(line: BudgetLine, wanted: BudgetFilter, config: Config) -> bool:
    """Whether it's asked for: without an agent, a team or a user of its own a limit counts everybody."""
    if wanted.user is not None and line.user != wanted.user:
        return False
    if wanted.run is not None and line.run not in ("", wanted.run):
        return False
    if wanted.agent is None:
        return True
    agent = config.agents.get(wanted.agent)
    return line.agent in ("", wanted.agent) and line.team in ("", agent.team if agent else "")
