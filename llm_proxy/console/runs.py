"""`/console/runs`: which runs there were, one of them as a story to follow, and words that were said."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response
from sqlalchemy import Connection

from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.door import CONTENT_READERS, READERS
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.reading import find_run
from llm_proxy.admin.run_told import run_told
from llm_proxy.admin.runs import RunWish, run_lines
from llm_proxy.admin.searched import searched
from llm_proxy.admin.shapes import RunLine
from llm_proxy.archive.search import SearchWish
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.timeline import Moment, timeline
from llm_proxy.console.visit import Visit
from llm_proxy.records.content_reads import Place
from llm_proxy.worker import Worker

PATH = "/console/runs"
PAGE = 50
CALLS = 200
"""Calls of a run that its page tells; `llm-proxy runs export` has them all."""
HITS = 30
SEARCH_S = 4.0
_WORDS = ("agent", "user", "model", "tool", "decision", "rule", "error", "since", "until")


class RunPages:
    def __init__(self, worker: Worker) -> None:
        self._store = Store(worker)
        self._reads = ContentReads(worker)

    def add_to(self, add: Add) -> None:
        add("GET", PATH, self.list, READERS)
        add("GET", "/console/search", self.search, CONTENT_READERS)
        add("GET", PATH + "/{run_id:path}", self.show, CONTENT_READERS)

    async def list(self, visit: Visit) -> Response:
        asked = {name: visit.asked(name).strip() for name in (*_WORDS, "min_cost", "before")}
        wish = _wish(asked)
        now, config = self._store.now_us(), self._store.config
        lines = await self._store.read(lambda connection: run_lines(config, connection, now, PAGE + 1, wish))
        more = len(lines) > PAGE
        lines = lines[:PAGE]
        further = _after(asked, lines[-1]) if more else {}
        may_read = bool(visit.operator.roles & CONTENT_READERS)
        return visit.page("runs.html", PATH, runs=lines, asked=asked, further=further, may_read=may_read)

    async def show(self, visit: Visit) -> Response:
        run_id, agent = visit.named("run_id"), visit.asked("agent") or None
        told, seen = await self._store.read(lambda connection: self._story(connection, run_id, agent))
        await self._reads.note(visit.operator.id, Place.CONSOLE, "runs show", seen)
        return visit.page("run.html", PATH, **told)

    async def search(self, visit: Visit) -> Response:
        text = visit.asked("q").strip()
        found = None
        if text:
            wish = SearchWish(
                text=text,
                agent=visit.asked("agent") or None,
                before=_number(visit.asked("before")),
                limit=HITS,
                seconds=SEARCH_S,
            )
            found, calls = await self._store.read(lambda connection: searched(connection, wish))
            seen = Seen(None, calls, words=text)
            await self._reads.note(visit.operator.id, Place.CONSOLE, "calls search", seen)
        asked = {"q": text, "agent": visit.asked("agent")}
        return visit.page("search.html", PATH, found=found, asked=asked)

    def _story(self, connection: Connection, run_id: str, agent: str | None) -> tuple[dict[str, Any], Seen]:
        now, config = self._store.now_us(), self._store.config
        row = find_run(connection, run_id, agent)
        run = run_told(config, connection, row, now, CALLS).shown()
        moments: tuple[Moment, ...] = timeline(run)
        told = {"run": run, "moments": moments, "left_out": max(0, run.call_count - len(run.calls))}
        return told, Seen(None, [call.id for call in run.calls], row.stored.key)


def _wish(asked: dict[str, str]) -> RunWish:
    """Raises `Unclear`."""
    try:
        least = float(asked["min_cost"]) if asked["min_cost"] else None
    except ValueError:
        raise Unclear(f"cost at least: {asked['min_cost'][:40]!r} is no number of dollars.") from None
    given = {name: asked[name] or None for name in (*_WORDS, "before")}
    return msgspec.convert(given | {"min_cost": least}, RunWish)


def _after(asked: dict[str, str], last: RunLine) -> dict[str, str]:
    """The parameters of the page behind this one."""
    given = {name: value for name, value in asked.items() if value}
    return given | {"before": f"{last.started_us},{last.run_id}"}


def _number(text: str) -> int | None:
    """Raises `Unclear` for what is none."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Unclear("before: that is no place in the results.")
    return int(text)
