"""What operators change by `/admin`: a key issued, rotated or revoked, an agent frozen or thawed."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Protocol

from fastapi import Request, Response

from llm_proxy.admin import agents, keys, reading
from llm_proxy.admin.door import ADMINS, Operator
from llm_proxy.admin.endpoints import Id, answer, body_of, holds
from llm_proxy.admin.freezing import Freezing
from llm_proxy.archive.listings import KeyView
from llm_proxy.config.choices import Role
from llm_proxy.identity import issuing
from llm_proxy.identity.issuing import NewKey, Via
from llm_proxy.identity.keyring import new_key
from llm_proxy.worker import Worker


class Add(Protocol):
    """Adds an endpoint, its answer's shape, and the roles that may use it."""

    def __call__(
        self, method: str, path: str, endpoint: Any, shape: str, roles: frozenset[Role], **more: Any
    ) -> None: ...


class Changes:
    """Each is committed, with who made it, before it's answered; every worker heeds it within a second."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._config = worker.config
        self._freezing = Freezing(worker)

    def add_to(self, add: Add) -> None:
        wish, rotation, reason = ({"requestBody": holds(n)} for n in ("KeyWish", "KeyRotation", "Reason"))
        add("POST", "/keys", self.issue, "KeyIssued", ADMINS, status_code=201, extra=wish)
        add("POST", "/keys/rotate", self.rotate, "KeyRotated", ADMINS, status_code=201, extra=rotation)
        add("POST", "/keys/{key_id}/revoke", self.revoke, "KeyLine", ADMINS)
        add("POST", "/agents/{agent_id:path}/freeze", self.freeze, "AgentStanding", ADMINS, extra=reason)
        add("POST", "/agents/{agent_id:path}/thaw", self.thaw, "AgentStanding", ADMINS, extra=reason)

    async def issue(self, request: Request) -> Response:
        """Issue a key for an agent. The reply is the only place where the key itself is ever shown."""
        new = self._order(await body_of(request, keys.KeyWish, _WISH))
        await self._freezing.commit(issuing.issue(new, by=_by(request), via=Via.ADMIN))
        return answer(keys.issued(new), 201)

    async def rotate(self, request: Request) -> Response:
        """Issue a new key for an agent, and end its other issued keys once the overlap is over."""
        wish = await body_of(request, keys.KeyRotation, _ROTATION)
        new = self._order(keys.KeyWish(agent_id=wish.agent_id, ttl=wish.ttl))
        until = keys.overlap_end(wish, new.created_us)
        await self._freezing.commit(issuing.rotate(new, until, by=_by(request), via=Via.ADMIN))
        return answer(keys.rotated(self._config, new, until), 201)

    async def revoke(self, request: Request, key_id: Id) -> Response:
        """Revoke an issued key: within a second no worker takes it, and its open calls have ended."""
        key = await asyncio.to_thread(self._issued_key, key_id)
        now = self._now()
        if key.revoked_us is None:
            await self._freezing.commit(keys.revocation(key, now, by=_by(request), via=Via.ADMIN))
        return answer(keys.revoked(key, now))

    async def freeze(self, request: Request, agent_id: Id) -> Response:
        """Freeze an agent: within a second no worker serves it, and its open calls have ended."""
        wish = await body_of(request, agents.Reason, _REASON)
        return answer(await self._freezing.freeze(agent_id, wish, by=_by(request), via=Via.ADMIN))

    async def thaw(self, request: Request, agent_id: Id) -> Response:
        """Let a frozen agent call again."""
        wish = await body_of(request, agents.Reason, _REASON)
        return answer(await self._freezing.thaw(agent_id, wish, by=_by(request), via=Via.ADMIN))

    def _order(self, wish: keys.KeyWish) -> NewKey:
        return keys.order(self._config, wish, self._now(), new_key, lambda: secrets.token_hex(6))

    def _issued_key(self, id_: str) -> KeyView:
        with self._worker.engine.connect() as connection:
            return reading.issued_key(self._config, connection, id_)

    def _now(self) -> int:
        return self._worker.services.now_us()


def _by(request: Request) -> str:
    operator: Operator = request.state.operator
    return operator.id


_WISH = '{"agent_id": "triage-bot", "ttl": "1h", "run_id": "run-7"}'
_ROTATION = '{"agent_id": "triage-bot", "overlap": "1h"}'
_REASON = '{"reason": "it mailed customers twice"}'
