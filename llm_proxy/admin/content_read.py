"""Content for operators' eyes: read from the store, put on record with who asked, and only then shown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from fastapi import Request, Response
from sqlalchemy import Connection

from llm_proxy.admin.door import Operator
from llm_proxy.admin.endpoints import answer
from llm_proxy.records.content_reads import Place, read_draft, read_job
from llm_proxy.records.runstate import RunKey
from llm_proxy.worker import Worker


@dataclass(frozen=True, slots=True)
class Seen:
    """What is about to be shown. `calls`: ids of those whose content is in it; `run`: all of it is of one."""

    value: object
    calls: Sequence[str] = ()
    run: RunKey | None = None
    words: str = ""
    approval: str = ""


class ContentReads:
    """Every path under `/admin` that shows content answers through this.

    Raises `ProxyError(store_unavailable)` where the reading can't be recorded: then nothing is shown.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def show(self, request: Request, what: str, read: Callable[[Connection], Seen]) -> Response:
        """`read` runs in a thread, and making JSON of what it returns too. `what` is the command's name."""

        def reading() -> tuple[Seen, msgspec.Raw]:
            with self._worker.engine.connect() as connection:
                seen = read(connection)
            return seen, msgspec.Raw(msgspec.json.encode(seen.value))

        seen, body = await asyncio.to_thread(reading)
        operator: Operator = request.state.operator
        await self.note(operator.id, Place.ADMIN, what, seen)
        return answer(body)

    async def note(self, by: str, place: Place, what: str, seen: Seen) -> None:
        """Puts it on record; await it before anything of it is shown."""
        services = self._worker.services
        draft = read_draft(
            by=by,
            place=place,
            what=what,
            at_us=services.now_us(),
            calls=seen.calls,
            run=seen.run,
            words=seen.words,
            approval=seen.approval,
        )
        await services.writer.submit(read_job(draft))
