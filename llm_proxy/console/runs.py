"""`/console/runs`: which runs there were, one of them as a story to follow, and words that were said."""

from __future__ import annotations

import msgspec
from fastapi import Response

from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.door import CONTENT_READERS, READERS, require
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.run_export import export_lines, to_export
from llm_proxy.admin.runs import MAX_BEFORE, MAX_DOLLARS, RunWish, run_lines
from llm_proxy.admin.searched import searched
from llm_proxy.admin.shapes import RunLine
from llm_proxy.admin.streamed import Streamed
from llm_proxy.archive.search import SearchWish
from llm_proxy.console.later import Later
from llm_proxy.console.pages import unpathed
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.run_part import Asked, run_part
from llm_proxy.console.security import HEADERS
from llm_proxy.console.visit import Visit
from llm_proxy.records.content_reads import Place
from llm_proxy.worker import Worker

PATH = "/console/runs"
PAGE = 50
HITS = 30
SEARCH_S = 4.0
_FILTERS = (
    "agent",
    "user",
    "model",
    "tool",
    "decision",
    "rule",
    "error",
    "since",
    "until",
)


class RunPages:
    def __init__(self, worker: Worker, later: Later) -> None:
        self._store = Store(worker)
        self._reads = ContentReads(worker)
        self._later = later
        self._told = later.soon(self.tell)

    def add_to(self, add: Add) -> None:
        soon = self._later.soon
        add("GET", PATH, soon(self.list), READERS)
        add("GET", "/console/search", soon(self.search), CONTENT_READERS)
        add("GET", PATH + "/{run_id:path}", self.show, CONTENT_READERS)

    async def list(self, visit: Visit) -> Response:
        asked = {name: visit.asked(name) for name in (*_FILTERS, "min_cost")}
        asked |= {"words": visit.words("words"), "before": visit.asked("before", MAX_BEFORE)}
        if asked["words"]:
            require(visit.operator, CONTENT_READERS)
        wish = _wish(asked)
        now, config = self._store.now_us(), self._store.config
        lines = await self._store.read(lambda connection: run_lines(config, connection, now, PAGE + 1, wish))
        if asked["words"]:
            await self._reads.note(
                visit.operator.id, Place.CONSOLE, "runs list", Seen(None, words=asked["words"])
            )
        more = len(lines) > PAGE
        lines = lines[:PAGE]
        further = _after(asked, lines[-1]) if more else {}
        may_read = bool(visit.operator.roles & CONTENT_READERS)
        return await visit.page(
            "runs.html", PATH, runs=lines, asked=asked, further=further, may_read=may_read
        )

    async def show(self, visit: Visit) -> Response:
        """The run, or with `export` its lines: an id may hold anything, so nothing stands behind it."""
        return await (self.export(visit) if visit.asked("export") else self._told(visit))

    async def tell(self, visit: Visit) -> Response:
        run_id, agent = _run_of(visit)
        asked = Asked(run_id, agent, visit.number("after") or 0, visit.asked("call"))
        now, config = self._store.now_us(), self._store.config
        told, seen = await self._store.read(lambda connection: run_part(config, connection, asked, now))
        await self._reads.note(visit.operator.id, Place.CONSOLE, "runs show", seen)
        return await visit.page("run.html", PATH, **told)

    async def export(self, visit: Visit) -> Response:
        """The very lines of `llm-proxy runs export --content`; with `children` also of the runs below it."""
        run_id, agent = _run_of(visit)
        children = bool(visit.asked("children"))
        tree, seen = await self._store.read(
            lambda connection: to_export(connection, run_id, agent, children=children)
        )
        await self._reads.note(visit.operator.id, Place.CONSOLE, "runs export", seen)
        worker, now = self._store.worker, self._store.now_us()
        lines = export_lines(worker.engine.connect, worker.config, tree, now, content=True)
        told = HEADERS | {"content-disposition": 'attachment; filename="run.jsonl"'}
        return Streamed(lines, told, "application/jsonl")

    async def search(self, visit: Visit) -> Response:
        text = visit.words("q")
        found = None
        if text:
            wish = SearchWish(
                text=text,
                agent=visit.asked("agent") or None,
                before=visit.number("before"),
                limit=HITS,
                seconds=SEARCH_S,
            )
            found, calls = await self._store.read(lambda connection: searched(connection, wish))
            seen = Seen(None, calls, words=text)
            await self._reads.note(visit.operator.id, Place.CONSOLE, "calls search", seen)
        asked = {"q": text, "agent": visit.asked("agent")}
        return await visit.page("search.html", PATH, found=found, asked=asked)


def _run_of(visit: Visit) -> tuple[str, str | None]:
    """Its id, and its agent where one is named."""
    return unpathed(visit.named("run_id")), visit.asked("agent") or None


def _wish(asked: dict[str, str]) -> RunWish:
    """Raises `Unclear`."""
    try:
        least = float(asked["min_cost"]) if asked["min_cost"] else None
    except ValueError:
        raise Unclear(f"cost at least: {asked['min_cost'][:40]!r} is no number of dollars.") from None
    if least is not None and not 0 <= least <= MAX_DOLLARS:
        raise Unclear(f"cost at least: say it in 0 to {MAX_DOLLARS:,.0f} dollars.")
    given = {name: text or None for name, text in asked.items()}
    return msgspec.convert(given | {"min_cost": least}, RunWish)


def _after(asked: dict[str, str], last: RunLine) -> dict[str, str]:
    """The parameters of the page behind this one."""
    given = {name: value for name, value in asked.items() if value}
    return given | {"before": f"{last.started_us},{last.run_id}"}
