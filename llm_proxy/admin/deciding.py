"""One person's word on an approval, committed and answered: for `/admin` and for one-time links."""

from __future__ import annotations

import asyncio

from llm_proxy.admin import approvals
from llm_proxy.admin.approvals import ApprovalShown, ApprovalWord
from llm_proxy.approving import Word
from llm_proxy.identity.issuing import Via
from llm_proxy.records.policy_rows import ApprovalRow
from llm_proxy.worker import Worker


class Deciding:
    """A word is committed, with who gave it, before it's answered."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def decide(
        self,
        approval: ApprovalRow,
        decision: Word,
        wish: ApprovalWord,
        *,
        by: str,
        via: Via,
        link: str | None = None,
    ) -> ApprovalShown:
        """The approval as it stands then. `link` is the hash of the one-time link that it comes by.

        Raises `NotFound`, `Conflict`, `Unclear` and `ProxyError`, as `approvals.word` and `heard` do.
        """
        worker = self._worker
        now = worker.services.now_us()
        job = approvals.word(worker.config, approval, decision, wish, now, by=by, via=via, link=link)
        approvals.heard(await worker.services.writer.submit(job), approval.id)
        worker.services.approvals.wake(approval.id)
        return await asyncio.to_thread(self._shown, approval.id)

    def _shown(self, id_: str) -> ApprovalShown:
        with self._worker.engine.connect() as connection:
            now = self._worker.services.now_us()
            return approvals.approval_shown(self._worker.config, connection, now, id_)
