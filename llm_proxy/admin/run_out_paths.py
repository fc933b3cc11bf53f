"""The paths under `/admin` by which runs are followed live, and taken away."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection

from llm_proxy.admin import reading, run_export
from llm_proxy.admin.changes import Add
from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.door import CONTENT_READERS, READERS, Operator
from llm_proxy.admin.endpoints import Filter, Id, answer
from llm_proxy.admin.errors import Unclear
from llm_proxy.archive.tail import Happening, Position, follow, now_position
from llm_proxy.records.content_reads import Place
from llm_proxy.worker import Worker

EVERY_S = 0.5
MOST_AFTER = 65_536
T = TypeVar("T")
Wait = Annotated[float, Query(ge=0, le=20)]
After = Annotated[str | None, Query(max_length=MOST_AFTER)]


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """What happened since, in order of time. `after` is to be sent with the next request."""

    events: tuple[Happening, ...]
    after: str


class RunOutPaths:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._content = ContentReads(worker)

    def add_to(self, add: Add) -> None:
        lines = {"responses": {"200": {"content": {"application/jsonl": {"schema": {"type": "string"}}}}}}
        add("GET", "/tail", self.tail, "Followed", READERS)
        add("GET", "/runs/{run_id:path}/export", self.export, "RunLine", CONTENT_READERS, extra=lines)

    async def tail(
        self,
        request: Request,
        after: After = None,
        run: Filter = None,
        agent: Filter = None,
        wait_s: Wait = 0,
    ) -> Response:
        """What agents do, as it is committed, without content: from now on, or since an answer's `after`.

        Waits up to `wait_s` seconds for something to happen.
        """
        clock = self._worker.services.now_us
        if after is None:
            position = await self._read(lambda connection: now_position(connection, clock()))
        else:
            position = _position(after)
        end = time.monotonic() + wait_s
        while True:
            found, position = await self._read(
                lambda connection, at=position: follow(connection, at, clock(), run=run, agent=agent)
            )
            left = end - time.monotonic()
            if found or left <= 0 or await request.is_disconnected():
                return answer(Followed(events=tuple(found), after=_told(position)))
            await asyncio.sleep(min(EVERY_S, left))

    async def export(
        self,
        request: Request,
        run_id: Id,
        agent: Filter = None,
        *,
        content: bool = False,
        children: bool = False,
    ) -> Response:
        """Everything of a run as JSON Lines; with `content` also prompts, replies and arguments."""

        def which(connection: Connection) -> tuple[list[run_export.RunKey], list[str]]:
            root = reading.find_run(connection, run_id, agent).stored.key
            tree = run_export.run_tree(connection, root) if children else [root]
            return tree, [id_ for one in tree for id_ in run_export.calls_of(connection, one)]

        tree, calls = await self._read(which)
        if content:
            operator: Operator = request.state.operator
            seen = Seen(None, calls, tree[0] if len(tree) == 1 else None)
            await self._content.note(operator.id, Place.ADMIN, "runs export", seen)
        worker = self._worker
        lines = run_export.export_lines(
            worker.engine.connect, worker.config, tree, worker.services.now_us(), content=content
        )
        return StreamingResponse(lines, 200, {"cache-control": "no-store"}, "application/jsonl")

    async def _read(self, read: Callable[[Connection], T]) -> T:
        def reading_() -> T:
            with self._worker.engine.connect() as connection:
                return read(connection)

        return await asyncio.to_thread(reading_)


_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _After(msgspec.Struct, array_like=True):
    at_us: _Number
    seqs: dict[str, _Number]


def _told(position: Position) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_After(*position))).decode()


def _position(after: str) -> Position:
    try:
        read = msgspec.json.decode(base64.urlsafe_b64decode(after), type=_After)
    except (ValueError, msgspec.DecodeError):
        raise Unclear("after: send back what an earlier answer had under `after`.") from None
    return Position(read.at_us, read.seqs)
