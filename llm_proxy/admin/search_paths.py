"""The path under `/admin` by which what was said is searched."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response
from sqlalchemy import Connection

from llm_proxy.admin.changes import Add
from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.door import CONTENT_READERS
from llm_proxy.admin.endpoints import Filter
from llm_proxy.admin.searched import parts, searched
from llm_proxy.admin.when import when
from llm_proxy.archive.search import SearchWish
from llm_proxy.archive.search_query import MOST_CHARS
from llm_proxy.worker import Worker

SECONDS = 5.0
MOST = 200

Text = Annotated[str, Query(alias="q", max_length=MOST_CHARS)]
Within = Annotated[str, Query(alias="in", max_length=128)]
Time = Annotated[str | None, Query(max_length=64)]
Before = Annotated[int | None, Query(ge=0, lt=1 << 62)]
Hits = Annotated[int, Query(ge=1, le=MOST)]


class SearchPaths:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._content = ContentReads(worker)

    def add_to(self, add: Add) -> None:
        add("GET", "/calls/search", self.search, "SearchShown", CONTENT_READERS)

    async def search(
        self,
        request: Request,
        text: Text,
        agent: Filter = None,
        run: Filter = None,
        user: Filter = None,
        model: Filter = None,
        tool: Filter = None,
        decision: Filter = None,
        rule: Filter = None,
        within: Within = "",
        since: Time = None,
        until: Time = None,
        before: Before = None,
        limit: Hits = 20,
    ) -> Response:
        """Full text over prompts, replies, reasoning, tool calls and their results; the newest first.

        `q`: words, "an exact phrase", a beginning*, -word. `in`: prompt, reply, reasoning, tool, by commas.
        """
        now_us = self._worker.services.now_us()
        wish = SearchWish(
            text=text,
            agent=agent,
            run=run,
            user=user,
            model=model,
            tool=tool,
            decision=decision,
            rule=rule,
            within=parts(within),
            since_us=when(since, now_us),
            until_us=when(until, now_us),
            before=before,
            limit=limit,
            seconds=SECONDS,
        )

        def read(connection: Connection) -> Seen:
            found, calls = searched(connection, wish)
            return Seen(found, calls, words=text)

        return await self._content.show(request, "calls search", read)
