"""`/console`: today against the budgets, what waits for a person, what is broken, and the last two weeks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import Response
from sqlalchemy import Connection

from llm_proxy.admin import approvals, budgets, fleet, spend
from llm_proxy.admin.door import APPROVAL_READERS, READERS
from llm_proxy.archive.approvals import ApprovalFilter
from llm_proxy.archive.rule_hits import rule_hits
from llm_proxy.console import plots
from llm_proxy.console.approvals import PATH as APPROVALS
from llm_proxy.console.later import Later
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.visit import Visit, go
from llm_proxy.records.approvals import ApprovalStatus
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.rule_hits import HOUR_US
from llm_proxy.records.standing import frozen_agents
from llm_proxy.spend.sums import Row
from llm_proxy.worker import Worker

PATH = "/console"
DAYS = 14
COUNTED = ("requests", "refused", "failed", "micro_usd")
TIGHTEST = 12
"""Limits that are shown, those nearest to their end first."""


class OverviewPages:
    def __init__(self, worker: Worker, later: Later) -> None:
        self._store = Store(worker)
        self._later = later

    def add_to(self, add: Add) -> None:
        add("GET", PATH, self._later.soon(self.show), READERS | APPROVAL_READERS)

    async def show(self, visit: Visit) -> Response:
        if not visit.operator.roles & READERS:
            return go(APPROVALS)  # of all this, what waits is theirs to see
        may_decide = bool(visit.operator.roles & APPROVAL_READERS)
        told = await self._store.read(lambda connection: self._read(connection, waits=may_decide))
        return await visit.page("overview.html", PATH, **told)

    def _read(self, connection: Connection, *, waits: bool) -> dict[str, Any]:
        store, now = self._store, self._store.now_us()
        wish = spend.Wish(by="day,agent", since=f"{DAYS}d")
        by_day = spend.spent(connection, wish, now, COUNTED).told.rows
        values = [(str(row.key[0]), str(row.key[1]), row.sums["micro_usd"] / 1e6) for row in by_day]
        today = plots.days_between(now, now + 1)[0]
        of_today = [row.sums for row in by_day if str(row.key[0]) == today]
        judged = rule_hits(connection, now - now % DAY_US, now, HOUR_US)
        targets = fleet.target_lines(store.worker.services.routes, connection, now, 500)
        pending = ApprovalFilter(status=ApprovalStatus.PENDING)
        days = plots.days_between(now - (DAYS - 1) * DAY_US, now + 1)
        return {
            "spent": sum(sums["micro_usd"] for sums in of_today),
            "requests": sum(sums["requests"] for sums in of_today),
            "refused": sum(sums["refused"] for sums in of_today),
            "failed": sum(sums["failed"] for sums in of_today),
            "denied": sum(rule.denied for rule in judged.rules),
            "limits": budgets.budget_lines(store.config, connection, now, TIGHTEST, budgets.BudgetFilter()),
            "waiting": approvals.approval_lines(connection, now, 20, pending) if waits else None,
            "open": [target for target in targets if target.state != "closed"],
            "frozen": frozen_agents(connection),
            "plot": plots.stacked(days, values, "US dollars") if values else "",
            "outcomes": plots.stacked(days, _outcomes(by_day), "calls") if values else "",
            "days": DAYS,
            "today": today,
        }


def _outcomes(rows: Iterable[Row]) -> Iterator[tuple[str, str, float]]:
    """Calls by day: those that went well, and those that didn't."""
    for row in rows:
        refused, failed = row.sums["refused"], row.sums["failed"]
        day = str(row.key[0])
        yield from ((day, "answered", row.sums["requests"] - refused - failed), (day, "refused", refused))
        yield day, "failed", failed
