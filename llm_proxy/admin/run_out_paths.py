"""The paths under `/admin` by which runs are followed live, and taken away."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Annotated

import msgspec
from fastapi import Query, Request, Response

from llm_proxy.admin import run_export
from llm_proxy.admin.changes import Add
from llm_proxy.admin.content_read import ContentReads
from llm_proxy.admin.door import CONTENT_READERS, READERS, Operator
from llm_proxy.admin.endpoints import Filter, Id, answer
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.reads import StoreReads
from llm_proxy.admin.streamed import Streamed
from llm_proxy.archive.tail import Happening, Position, follow, now_position
from llm_proxy.records.content_reads import Place
from llm_proxy.worker import Worker

EVERY_S = 0.5
MOST_AFTER = 65_536
Wait = Annotated[float, Query(ge=0, le=20)]
After = Annotated[str | None, Query(max_length=MOST_AFTER)]


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """What happened since, in order of time. `after` is to be sent with the next request."""

    events: tuple[Happening, ...]
    after: str


class RunOutPaths:
    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._read = StoreReads(worker)
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

        tree, seen = await self._read(
            lambda connection: run_export.to_export(connection, run_id, agent, children=children)
        )
        if content:
            operator: Operator = request.state.operator
            await self._content.note(operator.id, Place.ADMIN, "runs export", seen)
        worker = self._worker
        lines = run_export.export_lines(
            worker.engine.connect, worker.config, tree, worker.services.now_us(), content=content
        )
        return Streamed(lines, {"cache-control": "no-store"}, "application/jsonl")


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
