"""`/console/approvals`: what waits for a person, live, and one of them with exactly what would run."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from sqlalchemy import Connection

from llm_proxy.admin import approvals
from llm_proxy.admin.approval_paths import seen
from llm_proxy.admin.approvals import ApprovalShown, ApprovalWord, Wanted
from llm_proxy.admin.arguments import caution
from llm_proxy.admin.content_read import ContentReads
from llm_proxy.admin.deciding import Deciding
from llm_proxy.admin.door import APPROVAL_READERS, APPROVERS, CONTENT_READERS
from llm_proxy.approving import Word
from llm_proxy.archive.approvals import ApprovalFilter
from llm_proxy.console.live import Watching
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.sessions import Sessions
from llm_proxy.console.visit import Refused, Visit, go
from llm_proxy.identity.issuing import Via
from llm_proxy.records.content_reads import Place
from llm_proxy.worker import Worker

PATH = "/console/approvals"
SHOWN = 100
_WORDS: dict[str, Word] = {"approve": "approve", "deny": "deny"}


class ApprovalPages:
    def __init__(self, worker: Worker, sessions: Sessions) -> None:
        self._store = Store(worker)
        self._deciding = Deciding(worker)
        self._reads = ContentReads(worker)
        self._sessions = sessions
        self._watching = Watching()

    def add_to(self, add: Add) -> None:
        add("GET", PATH, self.list, APPROVAL_READERS)
        add("GET", PATH + "/live", self.live, APPROVAL_READERS)
        add("GET", PATH + "/{approval_id}", self.show, APPROVAL_READERS)
        add("POST", PATH + "/{approval_id}", self.decide, APPROVERS)

    async def list(self, visit: Visit) -> Response:
        status = visit.asked("status") or Wanted.PENDING.value
        if status not in set(Wanted):
            raise Refused(400, "That can't be answered", f"status is one of {', '.join(Wanted)}.")
        before = visit.asked("before") or None
        wanted = ApprovalFilter(status=Wanted(status).status, before=before)
        now = self._store.now_us()
        lines = await self._store.read(lambda c: approvals.approval_lines(c, now, SHOWN + 1, wanted))
        told: dict[str, Any] = {
            "approvals": lines[:SHOWN],
            "status": status,
            "statuses": list(Wanted),
            "further": lines[SHOWN - 1].id if len(lines) > SHOWN else "",
            "now": now,
            "live": f"{PATH}/live" if status == Wanted.PENDING and before is None else "",
        }
        return await visit.page("approvals.html", PATH, **told)

    async def live(self, visit: Visit) -> Response:
        """Says when the queue is another than it was."""
        pending = ApprovalFilter(status=Wanted.PENDING.status)

        async def look() -> str:
            now = self._store.now_us()
            lines = await self._store.read(lambda c: approvals.approval_lines(c, now, SHOWN, pending))
            return repr([(line.id, line.approved_by) for line in lines])

        async def signed_in() -> bool:
            return await self._store.within(lambda: self._sessions.find(visit.session.secret)) is not None

        return self._watching.changes(look, signed_in)

    async def show(self, visit: Visit) -> Response:
        id_, now = visit.named("approval_id"), self._store.now_us()

        def read(connection: Connection) -> tuple[ApprovalShown, str]:
            shown = approvals.approval_shown(self._store.config, connection, now, id_)
            return shown, caution(shown.arguments)

        shown, warning = await self._store.read(read)
        await self._reads.note(visit.operator.id, Place.CONSOLE, "approvals show", seen(shown))
        return await visit.page(
            "approval.html",
            PATH,
            approval=shown,
            caution=warning,
            may_decide=bool(visit.operator.roles & APPROVERS),
            may_read=bool(visit.operator.roles & CONTENT_READERS),
            now=now,
        )

    async def decide(self, visit: Visit) -> Response:
        decision = _WORDS.get(visit.form.get("decision", ""))
        if decision is None:
            raise Refused(400, "Nothing was decided", "Say approve or deny, with the page's own buttons.")
        id_ = visit.named("approval_id")
        approval = await self._store.read(lambda connection: approvals.find(connection, id_))
        wish = ApprovalWord(reason=approvals.one_line(visit.form.get("reason", "")))
        await self._deciding.decide(approval, decision, wish, by=visit.operator.id, via=Via.CONSOLE)
        return go(f"{PATH}/{id_}")
