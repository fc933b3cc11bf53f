"""`/console/spend`: any grouping and time, as a plot and a table, beside the time before, and as a file."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any
from urllib.parse import urlencode

from fastapi import Response
from sqlalchemy import Connection

from llm_proxy.admin import spend
from llm_proxy.admin.door import READERS
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.streamed import Streamed
from llm_proxy.audit.source import one_moment
from llm_proxy.console import plots
from llm_proxy.console.later import Later
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.security import HEADERS
from llm_proxy.console.visit import Visit
from llm_proxy.spend.question import COLUMNS, TIMES, TOOL, Filters
from llm_proxy.worker import Worker

PATH = "/console/spend"
SHOWN = 200
_FILTERS = tuple(COLUMNS)
_BY, _SINCE = "agent", "30d"


class SpendPages:
    def __init__(self, worker: Worker, later: Later) -> None:
        self._store = Store(worker)
        self._later = later

    def add_to(self, add: Add) -> None:
        add("GET", PATH, self._later.soon(self.show), READERS)
        add("GET", PATH + "/download", self.download, READERS)

    async def show(self, visit: Visit) -> Response:
        wish, asked = _wish(visit)
        found, plot = await self._store.within(lambda: self._read(wish))
        told: dict[str, Any] = {
            "found": found,
            "plot": plot,
            "asked": asked,
            "groups": (*COLUMNS, TOOL, *TIMES),
            "filters": _FILTERS,
            "download": PATH + "/download?" + urlencode({k: v for k, v in asked.items() if v}),
        }
        return await visit.page("spend.html", PATH, **told)

    async def download(self, visit: Visit) -> Response:
        """The very lines of `llm-proxy spend --format csv` and `focus`."""
        wish, _ = _wish(visit)
        focus = visit.asked("format") == "focus"
        lines = await self._store.within(lambda: self._lines(wish, focus=focus))
        name = "spend-focus.csv" if focus else "spend.csv"
        told = HEADERS | {"content-disposition": f'attachment; filename="{name}"'}
        return Streamed(lines, told, "text/csv; charset=utf-8")

    def _lines(self, wish: spend.Wish, *, focus: bool) -> Generator[bytes]:
        engine, now = self._store.worker.engine, self._store.now_us()
        if focus:
            wish = spend.Wish(since=wish.since, until=wish.until, where=wish.where)
            return spend.focus_sent(engine, wish, self._store.config.server.environment, now)
        with one_moment(engine) as connection:
            return spend.csv_sent(spend.spent(connection, wish, now), None)

    def _read(self, wish: spend.Wish) -> tuple[spend.SpendShown, str]:
        now = self._store.now_us()
        with one_moment(self._store.worker.engine) as moment:
            found = spend.spend_shown(spend.spent(moment, wish, now, most=SHOWN), SHOWN)
            return found, self._plot(moment, wish, now)

    def _plot(self, connection: Connection, wish: spend.Wish, now_us: int) -> str:
        """By day and the first group that is neither time nor run (of which there are too many to be told
        apart); empty where that is too many days, or nothing."""
        groups = [group for group in (wish.by or _BY).split(",") if group not in (*TIMES, "run")]
        series = groups[0] if groups else _BY
        daily = spend.Wish(by=f"day,{series}", since=wish.since, until=wish.until, where=wish.where)
        try:
            found = spend.spent(connection, daily, now_us, ("micro_usd",))
        except Unclear:
            return ""  # too many groups: the table tells it all the same
        question = found.told.question
        since = question.since_us
        if since is None or not found.told.rows:
            return ""
        days = plots.days_between(since, min(question.until_us or now_us, now_us))
        if not days:
            return ""
        values = [
            (str(row.key[0]), str(row.key[1] or "–"), row.sums["micro_usd"] / 1e6) for row in found.told.rows
        ]
        return plots.stacked(days, values, "US dollars")


def _wish(visit: Visit) -> tuple[spend.Wish, dict[str, str]]:
    """What is asked for, and the form's fields as they stand."""
    asked = {name: visit.asked(name).strip() for name in ("by", "since", "until", "compare", *_FILTERS)}
    asked["by"] = asked["by"] or _BY
    asked["since"] = asked["since"] or _SINCE
    where = Filters(**{name: asked[name] or None for name in _FILTERS})
    wish = spend.Wish(
        by=asked["by"],
        since=asked["since"],
        until=asked["until"] or None,
        where=where,
        compare=bool(asked["compare"]),
    )
    return wish, asked
