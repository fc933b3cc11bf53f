"""`/console/agents`: who they are, what they may, what they spent, and the button that stops one."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import Response
from sqlalchemy import Connection

from llm_proxy.admin import budgets, reading, spend
from llm_proxy.admin.agents import Reason
from llm_proxy.admin.door import ADMINS, READERS
from llm_proxy.admin.freezing import Freezing
from llm_proxy.admin.runs import run_lines
from llm_proxy.archive.listings import all_keys
from llm_proxy.console import plots
from llm_proxy.console.later import Later
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.visit import Refused, Visit, go
from llm_proxy.identity.issuing import Via
from llm_proxy.records.blobs import DAY_US
from llm_proxy.spend.question import Filters
from llm_proxy.worker import Worker

PATH = "/console/agents"
SHOWN = 500
DAYS = 30
RUNS = 20
TOOLS = 100
KEYS = 50
"""Issued ones."""


class AgentPages:
    def __init__(self, worker: Worker, later: Later) -> None:
        self._store = Store(worker)
        self._later = later
        self._freezing = Freezing(worker)

    def add_to(self, add: Add) -> None:
        add("GET", PATH, self.list, READERS)
        add("POST", PATH + "/{agent_id:path}/freeze", self.freeze, ADMINS)
        add("POST", PATH + "/{agent_id:path}/thaw", self.thaw, ADMINS)
        add("GET", PATH + "/{agent_id:path}", self._later.soon(self.show), READERS)

    async def list(self, visit: Visit) -> Response:
        now = self._store.now_us()
        lines = await self._store.read(
            lambda connection: reading.agent_lines(self._store.config, connection, now, SHOWN + 1)
        )
        more = len(lines) > SHOWN
        return await visit.page("agents.html", PATH, agents=lines[:SHOWN], more=more)

    async def show(self, visit: Visit) -> Response:
        told = await self._store.read(lambda connection: self._one(connection, visit.named("agent_id")))
        return await visit.page("agent.html", PATH, may_freeze=bool(visit.operator.roles & ADMINS), **told)

    async def freeze(self, visit: Visit) -> Response:
        agent = visit.named("agent_id")
        if not (reason := visit.form.get("reason", "").strip()):
            raise Refused(400, "Nothing was done", "Say why the agent is frozen: it stands in the record.")
        wish = Reason(reason=reason)
        await self._freezing.freeze(agent, wish, by=visit.operator.id, via=Via.CONSOLE)
        return go(f"{PATH}/{quote(agent, safe='')}")

    async def thaw(self, visit: Visit) -> Response:
        agent = visit.named("agent_id")
        wish = Reason(reason=visit.form.get("reason", "").strip())
        await self._freezing.thaw(agent, wish, by=visit.operator.id, via=Via.CONSOLE)
        return go(f"{PATH}/{quote(agent, safe='')}")

    def _one(self, connection: Connection, agent_id: str) -> dict[str, Any]:
        now, config = self._store.now_us(), self._store.config
        wanted = budgets.BudgetFilter(agent=agent_id)
        tools, more_tools = self._tools(connection, agent_id, now)
        return {
            "agent": reading.agent_shown(config, connection, now, agent_id, KEYS),
            "more_keys": max(0, all_keys(connection, agent_id) - KEYS),
            "limits": budgets.budget_lines(config, connection, now, 100, wanted),
            "plot": self._plot(connection, agent_id, now),
            "tools": tools,
            "more_tools": more_tools,
            "runs": run_lines(config, connection, now, RUNS, agent=agent_id),
            "days": DAYS,
        }

    def _plot(self, connection: Connection, agent_id: str, now_us: int) -> str:
        wish = spend.Wish(by="day,model", since=f"{DAYS}d", where=Filters(agent=agent_id))
        rows = spend.spent(connection, wish, now_us, ("micro_usd",)).told.rows
        values = [(str(row.key[0]), str(row.key[1]), row.sums["micro_usd"] / 1e6) for row in rows]
        days = plots.days_between(now_us - DAYS * DAY_US, now_us)
        return plots.stacked(days, values, "US dollars") if values else ""

    def _tools(self, connection: Connection, agent_id: str, now_us: int) -> tuple[list[dict[str, Any]], int]:
        """The dearest, and how many more there are."""
        wish = spend.Wish(by="tool", since=f"{DAYS}d", where=Filters(agent=agent_id))
        found = spend.spend_shown(spend.spent(connection, wish, now_us), TOOLS)
        return [row for row in found.rows if row["tool"]], found.left_out
