"""The paths under `/admin` by which people see and decide what waits for them."""

from __future__ import annotations

import asyncio

from fastapi import Request, Response
from sqlalchemy import Connection

from llm_proxy.admin import approvals
from llm_proxy.admin.approvals import ApprovalShown, ApprovalWord, Wanted
from llm_proxy.admin.changes import Add
from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.deciding import Deciding
from llm_proxy.admin.door import APPROVAL_READERS, APPROVERS, Operator
from llm_proxy.admin.endpoints import Filter, Id, Limit, answer, body_of, holds
from llm_proxy.approving import Word
from llm_proxy.archive.approvals import ApprovalFilter
from llm_proxy.identity.issuing import Via
from llm_proxy.records.content_reads import Place
from llm_proxy.records.policy_rows import ApprovalRow
from llm_proxy.records.runstate import RunKey
from llm_proxy.worker import Worker


class ApprovalPaths:
    """Those that only read are plain functions, which run in threads."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._deciding = Deciding(worker)
        self._content = ContentReads(worker)

    def add_to(self, add: Add) -> None:
        word = {"requestBody": holds("ApprovalWord")}
        add("GET", "/approvals", self.list, "ApprovalLines", APPROVAL_READERS)
        add("GET", "/approvals/{approval_id}", self.show, "ApprovalShown", APPROVAL_READERS)
        add("POST", "/approvals/{approval_id}/approve", self.approve, "ApprovalShown", APPROVERS, extra=word)
        add("POST", "/approvals/{approval_id}/deny", self.deny, "ApprovalShown", APPROVERS, extra=word)

    def list(
        self,
        limit: Limit = 50,
        status: Wanted = Wanted.PENDING,
        agent: Filter = None,
        run: Filter = None,
        before: Filter = None,
    ) -> Response:
        """What waits for a person, or did, the newest first. `before`: go on behind the one of this id."""
        wanted = ApprovalFilter(status=status.status, agent=agent, run=run, before=before)
        with self._worker.engine.connect() as connection:
            return answer(approvals.approval_lines(connection, self._now(), limit, wanted))

    async def show(self, request: Request, approval_id: Id) -> Response:
        """One approval with the exact arguments that will run, and what people said of it."""

        def read(connection: Connection) -> Seen:
            found = approvals.approval_shown(self._worker.config, connection, self._now(), approval_id)
            return seen(found)

        return await self._content.show(request, "approvals show", read)

    async def approve(self, request: Request, approval_id: Id) -> Response:
        """Let exactly this action run: for those whom the policy names, and never on one's own request."""
        return await self._decide(request, approval_id, "approve")

    async def deny(self, request: Request, approval_id: Id) -> Response:
        """Let it not run: one person's word is enough."""
        return await self._decide(request, approval_id, "deny")

    async def _decide(self, request: Request, id_: str, decision: Word) -> Response:
        wish = await body_of(request, ApprovalWord, _EXAMPLE)
        operator: Operator = request.state.operator
        approval = await asyncio.to_thread(self._find, id_)
        shown = await self._deciding.decide(approval, decision, wish, by=operator.id, via=Via.ADMIN)
        await self._content.note(operator.id, Place.ADMIN, f"approvals {decision}", seen(shown))
        return answer(shown)

    def _find(self, id_: str) -> ApprovalRow:
        with self._worker.engine.connect() as connection:
            return approvals.find(connection, id_)

    def _now(self) -> int:
        return self._worker.services.now_us()


def seen(shown: ApprovalShown) -> Seen:
    """What goes on record of it."""
    return Seen(shown, [shown.call_id], RunKey(shown.agent_id, shown.run_id), approval=shown.id)


_EXAMPLE = '{"reason": "checked with the customer"}'
