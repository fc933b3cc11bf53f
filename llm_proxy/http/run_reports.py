"""What an agent or a tool says and asks of a run's calls afterwards: side effects, and receipts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from llm_proxy.archive.verdicts import find_verdict
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.caller import Caller
from llm_proxy.identity.headers import checked_id
from llm_proxy.records.runstate import RunKey
from llm_proxy.runs.effects import Effect, EffectWish, report
from llm_proxy.services import Services


class ReceiptGiven(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /v1/runs/{id}/receipts/{tool_call_id}` answers."""

    receipt: str
    tool: str
    tool_call_id: str
    digest: str


class RunReports:
    """Raises `ProxyError`. Who may not see a run is told what is said of one that isn't there."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def effect(self, caller: Caller, run_id: str, wish: EffectWish) -> Effect:
        """Records the side effect. A receipt lets a tool report in a run of another agent than its own."""
        services = self._services
        key = RunKey(caller.agent.id, checked_id(run_id, "the path"))
        if wish.receipt:
            key, wish = self._by_receipt(key, wish)
        if (not wish.receipt and not await services.desk.may_see(caller, key)) or not await self._known(key):
            raise no_run(caller, run_id)
        id_, now = f"eff_{secrets.token_hex(16)}", services.now_us()
        job = report(key, id_, wish, now, by=caller.key_id, reported_by=caller.agent.id)
        outcome = await services.writer.submit(job)
        if isinstance(outcome, ProxyError):
            raise outcome
        return outcome

    async def receipt(self, caller: Caller, run_id: str, tool_call_id: str) -> ReceiptGiven:
        """A fresh receipt for a call that was released to the run, as long as its time is not over."""
        services = self._services
        key = RunKey(caller.agent.id, checked_id(run_id, "the path"))
        if not await services.desk.may_see(caller, key):
            raise no_run(caller, run_id)
        if (placed := await services.runs.find(key)) is not None:
            services.runs.check(placed)
        judged = await services.lookup.ask(lambda connection: find_verdict(connection, key, tool_call_id))
        if judged is None or not judged.decision.released:
            raise _not_found(f"No tool call {tool_call_id[:80]!r} was released to run {run_id!r}.")
        token = services.receipts.receipt(judged, services.now_us())
        if token is None:
            raise _not_found(services.receipts.why_not(judged))
        told = judged.decision
        digest = told.received or judged.digest
        return ReceiptGiven(receipt=token, tool=told.tool, tool_call_id=told.tool_call_id, digest=digest)

    def _by_receipt(self, run: RunKey, wish: EffectWish) -> tuple[RunKey, EffectWish]:
        """The run and the call that the receipt names."""
        try:
            claims: Mapping[str, Any] = self._services.receipts.read(wish.receipt, self._services.now_us())
        except ValueError as error:
            raise _wrong(f"The receipt is not good: {error}.", "receipt") from None
        if claims["run_id"] != run.run_id:
            raise _wrong("The receipt is of another run than the path names.", "receipt")
        if wish.tool_call_id not in ("", claims["tool_call_id"]):
            raise _wrong("The receipt is of another tool call than tool_call_id names.", "receipt")
        named = msgspec.structs.replace(wish, tool_call_id=claims["tool_call_id"])
        return RunKey(claims["sub"], run.run_id), named

    async def _known(self, run: RunKey) -> bool:
        return await self._services.runs.find(run) is not None


def no_run(caller: Caller, run_id: str) -> ProxyError:
    return _not_found(
        f"No run {run_id!r} of agent {caller.agent.id!r} is recorded, or this key may not see it."
    )


def _not_found(message: str) -> ProxyError:
    return ProxyError(Kind.INVALID_REQUEST, message, status=404, retryable=False)


def _wrong(message: str, param: str) -> ProxyError:
    return ProxyError(Kind.INVALID_REQUEST, message, param=param, retryable=False)
