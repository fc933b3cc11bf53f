"""Actions that no model proposed: judged, counted and recorded as a proposed call is, and answered at once.

An action takes its place in the run tree and counts tool calls and writes; it costs no tokens, no money
and no request. The same `tool_call_id` with the same action gets the same answer again, and counts once.
"""

from __future__ import annotations

import asyncio

import msgspec
from sqlalchemy import Connection

from budgets import ZERO, Hold
from llm_proxy import journal
from llm_proxy.admission import LEASE_US, begun, parent_of
from llm_proxy.archive.verdicts import find_verdict
from llm_proxy.chat.reply import ToolCall
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.judge import Judge, Rules
from llm_proxy.pipeline import Pipeline, through
from llm_proxy.policy import names
from llm_proxy.policy.actions import read_action
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.schema import Decision as Ruling
from llm_proxy.policy.verdict import Proposed
from llm_proxy.receipts.issue import Committed
from llm_proxy.records.approvals import by_ids
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import tool_call_key
from llm_proxy.records.inherited import NONE, Inherited, begun_with, from_above
from llm_proxy.records.runstate import RunKey, RunState
from llm_proxy.records.times import iso
from llm_proxy.records.view import Decision, Status
from llm_proxy.sending.attempt import AnySink
from llm_proxy.wire.action import ActionRequest

_encode = msgspec.json.Encoder().encode


class Checked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `POST /v1/actions/check` answers."""

    decision: str
    """allow | deny | pending."""
    rule: str
    why: str
    tell_model: str
    hits: tuple[str, ...]
    digest: str
    """Of the exact action; empty where nothing judged it."""
    action_id: str
    run_id: str
    tool_call_id: str
    judged: bool
    """Whether a policy is in force; without one an action passes that budgets and lists of tools allow."""
    shadow: bool = False
    """The policy only watches: it would have denied this."""
    repeated: bool = False
    """It was judged before: this is that verdict, and nothing was counted."""
    approval_id: str = ""
    expires_at: str = ""
    receipt: str = ""


class _Repeated(Exception):
    """The run knows this very call by now: its verdict stands, if it's one of the policy in force."""

    def __init__(self, call_id: str) -> None:
        super().__init__(call_id)
        self.call_id = call_id


class Actions(Pipeline):
    """Carries actions, each in an `Exchange` of its own. One per worker."""

    async def run(self, exchange: Exchange, sink: AnySink) -> None:
        """One action, whose request is parsed: judged, then answered once that is committed.

        Raises `ProxyError` where it could not be judged; what happened is committed by then.
        """
        services = self._services
        rules, request = services.rules, exchange.request
        assert isinstance(request, ActionRequest)
        exchange.policy = rules.sha256 if rules else ""
        await services.runs.place(exchange)
        services.admission.bind(exchange)
        exchange.intake = await services.reader.read(request, exchange.dialect, count=False)
        await services.recorder.request(exchange, rules)
        services.active[exchange.id] = exchange.started_us
        try:
            state: RunState = await services.writer.submit(_opening(exchange, services.now_us()))
        except ProxyError:
            services.active.pop(exchange.id, None)
            raise
        except asyncio.CancelledError as error:
            await through(self._failed(exchange, sink, error))
            raise
        exchange.opened = True
        try:
            answer = _encode(await self._checked(exchange, rules, state, request))
        except BaseException as error:
            await through(self._failed(exchange, sink, error))
            raise
        exchange.status, exchange.problem = Status.OK, None
        await self._close_then(exchange, sink, answer)

    async def _checked(
        self, exchange: Exchange, rules: Rules | None, state: RunState, request: ActionRequest
    ) -> Checked:
        of, asked = self._services, request.asked
        id_ = asked.tool_call_id or f"act_{exchange.id}"
        call = ToolCall(choice=0, index=0, id=id_, name=asked.tool, arguments=request.arguments)

        outdated: set[str] = set()

        def unless_known(state: RunState) -> None:
            known = _known(state, call, rules.engine.policy) if rules is not None else None
            if known is not None and known not in outdated:
                raise _Repeated(known)

        judge = Judge(
            *(exchange, rules, state, of.writer, of.now_us, of.environment, of.turns, of.alerts),
            approvals=of.approvals,
            frozen=of.standing.refresh,
            most_hold_s=asked.wait_s,
            each_round=unless_known,
        )
        key = _key(exchange)
        while True:
            repeated = ""
            try:
                await judge((call,))
            except _Repeated as known:
                repeated = known.call_id
            except ProxyError as error:
                if error.kind is not Kind.POLICY_DENIED or not exchange.decisions:
                    raise  # `on_deny: error` is said here as any other denial
            judged, expires_us = await of.lookup.ask(lambda connection: _read(connection, key, id_))
            if not repeated or _stands(judged.decision, rules):
                return self._told(exchange, judged, expires_us, rules, repeated=bool(repeated))
            outdated.add(repeated)

    def _told(
        self,
        exchange: Exchange,
        judged: Committed,
        expires_us: int | None,
        rules: Rules | None,
        *,
        repeated: bool,
    ) -> Checked:
        decision = judged.decision
        passes = decision.released
        pending = not passes and decision.rule == names.APPROVAL_PENDING
        return Checked(
            decision="allow" if passes else "pending" if pending else "deny",
            rule=decision.rule,
            why=decision.why,
            tell_model=decision.tell_model,
            hits=decision.hits,
            digest=judged.digest,
            action_id=exchange.id,
            run_id=exchange.run_id,
            tool_call_id=decision.tool_call_id,
            judged=rules is not None,
            shadow=decision.shadow and decision.decision != Ruling.ALLOW,
            repeated=repeated,
            approval_id=decision.approval,
            expires_at=iso(expires_us) if pending and expires_us is not None else "",
            receipt=self._services.receipts.receipt(judged, self._services.now_us()) or "",
        )


def _opening(exchange: Exchange, now_us: int) -> Job:
    """Opens the call, under a lease that takes nothing; its value is the run as it stands."""

    def then(found: Found) -> Wrote:
        above: Inherited = found.seen or NONE
        return Wrote(begun(found.run, exchange, above), begun_with(journal.opened(exchange), above))

    lease = Hold(exchange.id, (), ZERO, ZERO, now_us + LEASE_US)
    return Job(then, ops=(lease,), run=_key(exchange), look=from_above(parent_of(exchange)))


def _read(connection: Connection, run: RunKey, tool_call_id: str) -> tuple[Committed, int | None]:
    """The verdict, and until when its approval waits."""
    judged = find_verdict(connection, run, tool_call_id)
    assert judged is not None, "a verdict that was committed can't be read"
    id_ = judged.decision.approval
    approvals = by_ids(connection, [id_]) if id_ else ()
    return judged, next((approval.expires_us for approval in approvals), None)


def _key(exchange: Exchange) -> RunKey:
    assert exchange.caller is not None
    return RunKey(exchange.caller.agent.id, exchange.run_id)


def _known(state: RunState, call: ToolCall, policy: Policy) -> str | None:
    """Where the newest call of that id was judged, if it's of the same action and that was for good: what was
    let through once counts once, and so does a denial. One that waited for a person in vain is judged anew.
    """
    key = tool_call_key(call.id)
    last = next((judged for judged in reversed(state.history) if judged.tool_call_id == key), None)
    if last is None or last.decision == Ruling.ASK:
        return None
    same = last.digest == read_action(Proposed(call.id, call.name, call.arguments), policy).digest
    return last.call_id if same else None


def _stands(decision: Decision, rules: Rules | None) -> bool:
    """Whether an earlier verdict is the answer still, and not one by another policy, or in shadow."""
    assert rules is not None  # without a policy no call is known
    return decision.policy == rules.sha256 and (rules.shadow or not decision.shadow)
