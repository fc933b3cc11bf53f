"""The paths under `/admin` for money: what was spent, what is left, and whether it all adds up."""

from __future__ import annotations

from collections.abc import Generator
from threading import Lock
from typing import Annotated

from fastapi import Query, Response

from llm_proxy.admin import budgets, reconciling, spend
from llm_proxy.admin.changes import Add
from llm_proxy.admin.door import READERS
from llm_proxy.admin.endpoints import Filter, Limit, answer
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.spend import SpendFormat
from llm_proxy.admin.streamed import Streamed
from llm_proxy.audit.source import one_moment
from llm_proxy.spend.question import Filters
from llm_proxy.worker import Worker

Groups = Annotated[str | None, Query(max_length=512)]
Time = Annotated[str | None, Query(max_length=64)]
Rows = Annotated[int | None, Query(ge=1, le=1_000_000)]
_CSV = "text/csv; charset=utf-8"


class SpendPaths:
    """Its endpoints read only, and run in threads."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._reconciling = Lock()

    def add_to(self, add: Add) -> None:
        add("GET", "/spend", self.spend, "SpendShown", READERS)
        add("GET", "/budgets", self.budgets, "BudgetLines", READERS)
        add("GET", "/reconcile", self.reconcile, "ReconcileShown", READERS)

    def spend(
        self,
        by: Groups = None,
        since: Time = None,
        until: Time = None,
        agent: Filter = None,
        team: Filter = None,
        user: Filter = None,
        run: Filter = None,
        model: Filter = None,
        target: Filter = None,
        provider: Filter = None,
        tag: Filter = None,
        format: SpendFormat = SpendFormat.JSON,  # noqa: A002  the parameter's name
        limit: Rows = None,
        *,
        compare: bool = False,
    ) -> Response:
        """What was spent, by any of agent, team, user, run, model, target, provider, tag, tag:KEY, tool, day,
        week and month; as JSON, or with `format=csv` or `focus` as CSV."""
        where = Filters(
            agent=agent, team=team, user=user, run=run, model=model, target=target, provider=provider, tag=tag
        )
        wish = spend.Wish(by=by, since=since, until=until, where=where, compare=compare, limit=limit)
        if format is SpendFormat.FOCUS:
            account = self._worker.config.server.environment
            return _csv(spend.focus_sent(self._worker.engine, wish, account, self._now()))
        with one_moment(self._worker.engine) as connection:
            found = spend.spent(connection, wish, self._now())
        if format is SpendFormat.CSV:
            return _csv(spend.csv_sent(found, limit))
        return answer(spend.spend_shown(found, limit))

    def budgets(
        self, limit: Limit = 50, agent: Filter = None, user: Filter = None, run: Filter = None
    ) -> Response:
        """Every budget, for everyone whom it counts now; those nearest to their end first."""
        wanted = budgets.BudgetFilter(agent=agent, user=user, run=run)
        with self._worker.engine.connect() as connection:
            lines = budgets.budget_lines(self._worker.config, connection, self._now(), limit, wanted)
        return answer(lines)

    def reconcile(self, since: Time = None) -> Response:
        """Compares records, calls, daily sums and the ledger to the micro-dollar. Reads every record."""
        if not self._reconciling.acquire(blocking=False):
            raise Unclear("A reconciliation is under way in this process: ask again when it's done.")
        try:
            with one_moment(self._worker.engine) as connection:
                return answer(reconciling.reconciled(connection, since, self._now()))
        finally:
            self._reconciling.release()

    def _now(self) -> int:
        return self._worker.services.now_us()


def _csv(lines: Generator[bytes]) -> Response:
    return Streamed(lines, {"cache-control": "no-store"}, _CSV)
