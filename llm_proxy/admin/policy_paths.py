"""The paths under `/admin` for working on a policy."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Query, Request, Response
from sqlalchemy import Connection

from llm_proxy.admin import policy
from llm_proxy.admin.changes import Add
from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.door import CONTENT_READERS, READERS, Operator
from llm_proxy.admin.endpoints import Filter, Id, Limit, answer
from llm_proxy.admin.errors import NotFound, Unclear
from llm_proxy.admin.policy_reads import MAX_POLICY, MAX_SECONDS, PolicyReads
from llm_proxy.admin.policy_tools import tool_lines
from llm_proxy.audit.source import one_moment
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.load import PolicyErrors
from llm_proxy.records.content_reads import Place
from llm_proxy.records.runstate import RunKey
from llm_proxy.worker import Worker

_TOLD = 20

Time = Annotated[str | None, Query(max_length=64)]
Since = Annotated[str, Query(max_length=64)]
Shown = Annotated[int, Query(ge=0, le=10_000)]


class PolicyPaths:
    """They read only; one simulation at a time in each process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._reads = PolicyReads(worker)
        self._content = ContentReads(worker)

    def add_to(self, add: Add) -> None:
        body = {"requestBody": {"content": {"application/yaml": {"schema": {"type": "string"}}}}}
        add("GET", "/policy", self.shown, "PolicyShown", READERS)
        add("GET", "/policy/tools", self.tools, "ToolLines", READERS)
        add("GET", "/policy/explain/{call_id}", self.explain, "CallExplanation", CONTENT_READERS)
        add("POST", "/policy/simulate", self.simulate, "Simulated", CONTENT_READERS, extra=body)

    def shown(self, since: Since = "7d") -> Response:
        """The policy in force, and how often each of its rules spoke since then."""
        return answer(self._reads.shown(self._in_force(), since))

    def tools(self, limit: Limit = 1_000) -> Response:
        """The tools that the policy in force knows, in its file's order."""
        return answer(tool_lines(self._in_force())[:limit])

    async def explain(self, request: Request, call_id: Id, tool_call: Filter = None) -> Response:
        """Why the policy said what it said of a call's tool calls: judged again by the one in force."""

        def read(_: Connection) -> Seen:
            with one_moment(self._worker.engine) as connection:
                found = policy.explain(connection, self._worker.config, self._in_force(), call_id, tool_call)
            return Seen(found, [found.call_id], RunKey(found.agent_id, found.run_id))

        return await self._content.show(request, "policy explain", read)

    async def simulate(
        self,
        request: Request,
        since: Time = None,
        until: Time = None,
        agent: Filter = None,
        run: Filter = None,
        limit: Shown = 50,
    ) -> Response:
        """What the policy in the body would have said of recorded tool calls; stops after a minute."""
        text = await _text_of(request)
        wish = policy.SimulationWish(
            since=since, until=until, agent=agent, run=run, limit=limit, seconds=MAX_SECONDS
        )
        found = await asyncio.to_thread(self._simulated, text, wish)
        # A policy can be made to ask what stands in arguments.
        seen = Seen(found, list(dict.fromkeys([change.call_id for change in found.changes])))
        operator: Operator = request.state.operator
        await self._content.note(operator.id, Place.ADMIN, "policy simulate", seen)
        return answer(found)

    def _simulated(self, text: bytes, wish: policy.SimulationWish) -> policy.Simulated:
        try:
            return self._reads.simulated(text, wish)
        except PolicyErrors as errors:
            told = "; ".join(str(issue) for issue in errors.issues[:_TOLD])
            raise Unclear(f"The policy can't be used: {told}") from None

    def _in_force(self) -> Policy:
        found = self._reads.in_force()
        if found is None:
            raise NotFound("No policy is in force: name one under `policy:` in proxy.yaml.")
        return found


async def _text_of(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_POLICY:
            raise ProxyError(Kind.BODY_TOO_LARGE, f"The policy is over {MAX_POLICY} bytes: send less.")
    if not body.strip():
        raise Unclear("The body is empty: send a policy file, as YAML.")
    return body
