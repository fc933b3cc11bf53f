"""An agent frozen or thawed, committed and answered: for `/admin` and for the console."""

from __future__ import annotations

import asyncio
import contextlib

from llm_proxy.admin import agents
from llm_proxy.admin.agents import AgentStanding, Reason
from llm_proxy.errors import ProxyError
from llm_proxy.identity.issuing import Via
from llm_proxy.records.batch import Job
from llm_proxy.records.standing import Frozen
from llm_proxy.worker import Worker


class Freezing:
    """Both raise `NotFound` for an agent that nobody knows, `Unclear` for a reason that is too long."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def freeze(self, agent_id: str, wish: Reason, *, by: str, via: Via) -> AgentStanding:
        """Within a second no worker serves the agent, and its open calls have ended."""
        now = self._now()
        job = agents.freeze(agent_id, wish, now, by=by, via=via)
        if (before := await self._frozen(agent_id)) is not None:
            return agents.standing(agent_id, before, changed=False)
        await self.commit(job)
        after = await self._frozen(agent_id)
        mine = after is not None and (after.since_us, after.by) == (now, by)
        return agents.standing(agent_id, after, changed=mine)

    async def thaw(self, agent_id: str, wish: Reason, *, by: str, via: Via) -> AgentStanding:
        job = agents.thaw(agent_id, wish, self._now(), by=by, via=via)
        before = await self._frozen(agent_id)
        if before is not None:
            await self.commit(job)
        return agents.standing(agent_id, None, changed=before is not None)

    async def commit(self, job: Job) -> None:
        """Done once committed; this worker takes notice at once if it can, else with its next look."""
        await self._worker.services.writer.submit(job)
        with contextlib.suppress(ProxyError):
            await self._worker.services.standing.refresh()

    async def _frozen(self, agent_id: str) -> Frozen | None:
        return await asyncio.to_thread(self._frozen_now, agent_id)

    def _frozen_now(self, agent_id: str) -> Frozen | None:
        with self._worker.engine.connect() as connection:
            return agents.frozen_now(self._worker.config, connection, agent_id)

    def _now(self) -> int:
        return self._worker.services.now_us()
