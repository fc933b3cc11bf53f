"""What was used of each budget that binds a run, as the ledger has it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from budgets import Subject, Unit
from budgets.sql_store import SqlLedger
from llm_proxy import wiring
from llm_proxy.archive.listings import RunRow
from llm_proxy.config import Config


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


def budget_use(config: Config, connection: Connection, run: RunRow, now_us: int) -> list[BudgetUse]:
    """Every unit of every budget that binds the run at `now_us`, in the config's order."""
    subject = Subject(agent=run.agent_id, team=run.team or None, user=run.user_id or None, run=run.run_id)
    bounds = wiring.limits(config).bounds(subject, now_us)
    counters = SqlLedger(connection.dialect).peek(connection, [bound.key for bound in bounds])
    found: list[BudgetUse] = []
    for bound in bounds:
        counter = counters.get(bound.key)
        for unit, most in bound.limit.maximum.items():
            used = counter.used.get(unit) if counter else 0
            held = counter.held.get(unit) if counter else 0
            found.append(
                BudgetUse(bound.limit.id, bound.limit.window.name, unit, used, held, most, bound.resets_us)
            )
    return found
