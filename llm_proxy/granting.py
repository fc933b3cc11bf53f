"""Matches asks with what people decided: a grant lets exactly its action through, once for each use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from llm_proxy.exchange import Exchange
from llm_proxy.policy import names
from llm_proxy.policy.asking import approval_for, schema_hash
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.schema import Approval
from llm_proxy.policy.schema import Decision as Ruling
from llm_proxy.policy.verdict import Proposed, Verdict, approved, unapproved
from llm_proxy.records import approval_bodies as bodies
from llm_proxy.records.approvals import ApprovalStatus, status_at, usable
from llm_proxy.records.columns import column
from llm_proxy.records.evidence import Draft, RecordKind, tool_call_key
from llm_proxy.records.ids import uuid7
from llm_proxy.records.policy_rows import ApprovalChange, ApprovalRow

PREFIX = "apr_"
MOST_PER_RUN = 20
MOST_PER_AGENT = 200
"""Approvals that may wait for people at once."""


@dataclass(frozen=True, slots=True)
class Matched:
    """The verdicts of a reply, now that asks have met what people decided."""

    verdicts: tuple[Verdict, ...]
    grants: Mapping[int, ApprovalRow]
    """Which of the calls go through by a grant."""
    approvals: Mapping[int, str]
    """The approval that each asked call went by, or waits for."""
    opened: tuple[ApprovalRow, ...]
    waiting: frozenset[str]
    """Approvals that the reply is held for."""
    hold_s: float = 0.0


@dataclass(slots=True)
class Matching:
    """One round. `seen` is every approval of these actions in the run; `room` how many more may be opened;
    `held` those that the reply waited for already. With `over` it waits no more."""

    exchange: Exchange
    policy: Policy
    answerable: Collection[str]
    calls: Sequence[Proposed]
    seen: tuple[ApprovalRow, ...]
    room: int
    held: Collection[str]
    over: bool
    now_us: int
    _used: Counter[str] = field(default_factory=Counter[str])
    _opened: list[ApprovalRow] = field(default_factory=list[ApprovalRow])
    _hold_s: float = 0.0

    def match(self, verdicts: Sequence[Verdict]) -> Matched:
        """Uses up grants, and opens approvals where there is neither a grant nor an answer."""
        found = list(verdicts)
        grants: dict[int, ApprovalRow] = {}
        ids: dict[int, str] = {}
        waiting: dict[int, str] = {}
        for n, verdict in enumerate(verdicts):
            grant = self._grant(n, verdict)
            if grant is not None:
                self._used[grant.id] += 1
                grants[n], ids[n] = grant, grant.id
                if verdict.decision is Ruling.ASK:
                    found[n] = approved(verdict, grant.id)
            elif verdict.decision is Ruling.ASK:
                rule, id_ = self._unanswered(n, verdict)
                ids[n] = id_
                found[n] = unapproved(verdict, rule, id_)
                if rule == names.APPROVAL_PENDING:
                    waiting[n] = id_
        if waiting and not self.over and self._hold_s > 0:
            held = frozenset(waiting.values())
            return Matched(tuple(verdicts), {}, ids, tuple(self._opened), held, self._hold_s)
        return Matched(tuple(found), grants, ids, tuple(self._opened), frozenset())

    def _bound(self, n: int, verdict: Verdict) -> list[ApprovalRow]:
        """Those that were asked for exactly this: the tool as registered, its arguments, the policy."""
        same = [one for one in (*self.seen, *self._opened) if one.digest == verdict.digest]
        if not same:
            return []
        name = self.calls[n].name
        tool = schema_hash(self.policy.entry(name))
        bound = (column(name), tool, self.policy.sha256)
        return [one for one in same if (one.tool, one.schema_hash, one.policy) == bound]

    def _grant(self, n: int, verdict: Verdict) -> ApprovalRow | None:
        """One with a use left. A call that needs none any more still uses the one it was held for."""
        if verdict.decision is Ruling.DENY or not self.seen:
            return None
        found = [one for one in self._bound(n, verdict) if usable(one, self.now_us)]
        if verdict.decision is Ruling.ALLOW:
            found = [one for one in found if one.id in self.held]
        return next((one for one in found if one.uses_left > self._used[one.id]), None)

    def _unanswered(self, n: int, verdict: Verdict) -> tuple[str, str]:
        """How an ask without a grant stands: a rule, and an approval's id, empty where none is opened."""
        asked = approval_for(self.policy, self.calls[n].name, self.answerable)
        assert asked is not None  # without an approver it's a denial by now
        bound = self._bound(n, verdict)
        for one in reversed(bound):
            match status_at(one, self.now_us):
                case ApprovalStatus.PENDING:
                    self._hold_s = max(self._hold_s, asked[1].hold_s)
                    return names.APPROVAL_PENDING, one.id
                case ApprovalStatus.DENIED if one.expires_us > self.now_us or one.id in self.held:
                    return names.APPROVAL_DENIED, one.id
                case ApprovalStatus.EXPIRED if one.id in self.held:
                    return names.APPROVAL_EXPIRED, one.id
                case _:
                    continue
        if len(self._opened) >= self.room:
            return names.TOO_MANY_APPROVALS, ""
        row = self._row(n, verdict, *asked)
        self._opened.append(row)
        self._hold_s = max(self._hold_s, asked[1].hold_s)
        return names.APPROVAL_PENDING, row.id

    def _row(self, n: int, verdict: Verdict, name: str, entry: Approval) -> ApprovalRow:
        exchange, call, now = self.exchange, self.calls[n], self.now_us
        assert exchange.caller is not None
        tool = self.policy.entry(call.name)
        return ApprovalRow(
            id=PREFIX + uuid7(now).replace("-", ""),
            agent_id=exchange.caller.agent.id,
            run_id=exchange.run_id,
            call_id=exchange.id,
            tool_call_id=tool_call_key(call.id),
            user_id=column(exchange.user_id),
            tool=column(call.name),
            effect=verdict.effect.value,
            risk=tool.spec.risk,
            arguments=call.arguments,
            digest=verdict.digest,
            schema_hash=schema_hash(tool),
            policy=self.policy.sha256,
            rule=column(verdict.rule),
            why=verdict.why,
            approval=name,
            approvers=json.dumps(entry.approvers),
            quorum=entry.quorum,
            uses=entry.grant.uses,
            valid_us=int(entry.grant.valid_s * 1e6),
            requested_us=now,
            expires_us=now + int(entry.expires_s * 1e6),
            status=ApprovalStatus.PENDING.value,
            uses_left=0,
            changed_us=now,
        )


def requested(row: ApprovalRow, policy: Policy, arguments_at: str, place: int) -> Draft:
    """The record of an approval that is opened: all that whoever decides needs to know.

    `arguments_at`: the address of the arguments of the reply's calls, among which `place` is the call's.
    """
    body = bodies.Requested(
        id=row.id,
        tool=row.tool,
        effect=row.effect,
        risk=row.risk,
        owner=policy.entry(row.tool).spec.owner,
        tool_call_id=row.tool_call_id,
        user_id=row.user_id,
        arguments_at=arguments_at,
        place=place,
        digest=row.digest,
        schema_hash=row.schema_hash,
        policy=row.policy,
        policy_id=policy.file.policy.id,
        policy_version=str(policy.file.policy.version),
        rule=row.rule,
        why=row.why,
        approval=row.approval,
        approvers=tuple(json.loads(row.approvers)),
        quorum=row.quorum,
        uses=row.uses,
        valid_us=row.valid_us,
        expires_us=row.expires_us,
    )
    at, call, run, agent = row.requested_us, row.call_id, row.run_id, row.agent_id
    return Draft(RecordKind.APPROVAL_REQUESTED, at, call, run, agent, bodies.encode(body))


def used(
    grants: Sequence[tuple[str, ApprovalRow]], exchange: Exchange, now_us: int
) -> tuple[tuple[Draft, ...], tuple[ApprovalChange, ...]]:
    """What is left of `grants`, each with the id of the tool call that it let through."""
    drafts: list[Draft] = []
    changes: dict[str, ApprovalChange] = {}
    for tool_call_id, row in grants:
        before = changes[row.id].uses_left if row.id in changes else row.uses_left
        changes[row.id] = ApprovalChange(
            row.status, before - 1, now_us, row.valid_until_us, row.decided_us, row.id
        )
        body = bodies.Used(
            id=row.id,
            tool=row.tool,
            tool_call_id=tool_call_key(tool_call_id),
            digest=row.digest,
            uses_left=before - 1,
        )
        whose = exchange.id, row.run_id, row.agent_id
        drafts.append(Draft(RecordKind.APPROVAL_USED, now_us, *whose, bodies.encode(body)))
    return tuple(drafts), tuple(changes.values())
