"""The paths under `/admin` for working on a policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Lock
from typing import Annotated, TypeVar

from fastapi import Query, Request, Response
from sqlalchemy import Connection

from llm_proxy.admin import policy, policy_shown
from llm_proxy.admin.changes import Add
from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.door import CONTENT_READERS, READERS, Operator
from llm_proxy.admin.endpoints import Filter, Id, answer
from llm_proxy.admin.errors import NotFound, Unclear
from llm_proxy.admin.reconciling import one_moment
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.load import PolicyErrors, read_policy
from llm_proxy.records.content_reads import Place
from llm_proxy.records.runstate import RunKey
from llm_proxy.worker import Worker

MAX_POLICY = 262_144
"""Bytes of a policy that is sent to be tried."""
MAX_SECONDS = 60.0
"""A simulation stops then, and says that it isn't complete: it shares the process with calls."""
_TOLD = 20

Time = Annotated[str | None, Query(max_length=64)]
Since = Annotated[str, Query(max_length=64)]
Shown = Annotated[int, Query(ge=0, le=10_000)]
T = TypeVar("T")


class PolicyPaths:
    """They read only; one simulation at a time in each process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._simulating = Lock()
        self._content = ContentReads(worker)

    def add_to(self, add: Add) -> None:
        body = {"requestBody": {"content": {"application/yaml": {"schema": {"type": "string"}}}}}
        add("GET", "/policy", self.shown, "PolicyShown", READERS)
        add("GET", "/policy/explain/{call_id}", self.explain, "CallExplanation", CONTENT_READERS)
        add("POST", "/policy/simulate", self.simulate, "Simulated", CONTENT_READERS, extra=body)

    def shown(self, since: Since = "7d") -> Response:
        """The policy in force, and how often each of its rules spoke since then."""
        found, watch = self._in_force(), self._worker.policy
        loaded = policy_shown.Loaded(watch.loaded_us, watch.problem) if watch else policy_shown.Loaded()
        path, now = self._worker.config.policy, self._worker.services.now_us()
        with one_moment(self._worker.engine) as connection:
            file = path.name if path else ""
            return answer(policy_shown.policy_shown(connection, found, file, since, now, loaded))

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
        config, now = self._worker.config, self._worker.services.now_us()

        def compared(connection: Connection) -> policy.Simulated:
            return policy.simulate(connection, config, _read(text), wish, now)

        found = await asyncio.to_thread(self._alone, compared)
        # A policy can be made to ask what stands in arguments.
        seen = Seen(found, list(dict.fromkeys([change.call_id for change in found.changes])))
        operator: Operator = request.state.operator
        await self._content.note(operator.id, Place.ADMIN, "policy simulate", seen)
        return answer(found)

    def _alone(self, work: Callable[[Connection], T]) -> T:
        if not self._simulating.acquire(blocking=False):
            raise Unclear("A simulation is under way in this process: ask again when it's done.")
        try:
            with one_moment(self._worker.engine) as connection:
                return work(connection)
        finally:
            self._simulating.release()

    def _in_force(self) -> Policy:
        rules = self._worker.services.rules
        if rules is None:
            raise NotFound("No policy is in force: name one under `policy:` in proxy.yaml.")
        return rules.engine.policy


async def _text_of(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_POLICY:
            raise ProxyError(Kind.BODY_TOO_LARGE, f"The policy is over {MAX_POLICY} bytes: send less.")
    if not body.strip():
        raise Unclear("The body is empty: send a policy file, as YAML.")
    return body


def _read(text: bytes) -> Policy:
    try:
        return read_policy(text, "policy")
    except PolicyErrors as errors:
        told = "; ".join(str(issue) for issue in errors.issues[:_TOLD])
        raise Unclear(f"The policy can't be used: {told}") from None
