"""One round over the tool calls of a reply: what the policy says, what asks and counters make of it, what is
written. Pure, but for fresh ids: it runs in the writer's transaction too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
from sqlalchemy import Connection

from budgets import Amount, Refused, Result, Take, Taken
from llm_proxy.chat.reply import ToolCall
from llm_proxy.exchange import Exchange
from llm_proxy.facts import Facts
from llm_proxy.granting import Matched, Matching
from llm_proxy.identity import freezing
from llm_proxy.identity.issuing import Via
from llm_proxy.policy import names
from llm_proxy.policy.asking import approval_for
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.limits import Use, bites
from llm_proxy.policy.permitted import ALWAYS, Permitted
from llm_proxy.policy.schema import Decision as Ruling
from llm_proxy.policy.schema import Effect, Mode, OnDeny
from llm_proxy.policy.verdict import Judgement, Proposed, Verdict, without_approver
from llm_proxy.policy.vocabulary import Per
from llm_proxy.records.approvals import of_actions
from llm_proxy.records.batch import Found, Planned
from llm_proxy.records.counters import CounterKey, subject_of
from llm_proxy.records.evidence import Evidence, ToolCallRow, column, tool_call_key
from llm_proxy.records.judged import Judged
from llm_proxy.records.policy_rows import ApprovalRow, Counted
from llm_proxy.records.runstate import RunState
from llm_proxy.records.view import Decision

_encode = msgspec.json.Encoder().encode
_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Rules:
    """The policy in force for one call; it stays the same until the call ends."""

    engine: PolicyEngine
    sha256: str
    mode: Mode
    on_deny: OnDeny
    answerable: frozenset[str] = frozenset()
    """The entries of `approvals` by which somebody may approve."""

    @property
    def shadow(self) -> bool:
        return self.mode is Mode.SHADOW


UNJUDGED = Verdict(Ruling.ALLOW, "", "", "", Effect.READ, (), "")
"""What stands where no policy is loaded."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How a round ends, before the budgets have their say."""

    matched: Matched
    passing: tuple[bool, ...]
    judged: Judged | None
    counted: tuple[tuple[Counted, ...], ...]
    """What each call adds to the policy's counters if it's released."""


class Round:
    """Judges `calls` by what is known; in the transaction again, where counters or asks have a part in it."""

    def __init__(
        self,
        calls: Sequence[ToolCall],
        rules: Rules | None,
        permitted: Permitted,
        facts: Facts,
        held: Collection[str],
        *,
        over: bool,
    ) -> None:
        """`held`: approvals that the reply waited for already; with `over` it waits no more."""
        self._calls = calls
        self._rules = rules
        self._permitted = permitted
        self._facts = facts
        self._held = held
        self._over = over
        self._proposed = [Proposed(call.id, call.name, arguments_of(call)) for call in calls]
        self._uses: tuple[tuple[Use, ...], ...] = ((),) * len(calls)
        if rules is None:
            self._judgement = Judgement((UNJUDGED,) * len(calls))
        else:
            self._judgement = rules.engine.judge(self._proposed, facts.context())
            self._uses = rules.engine.uses(self._proposed)
        self._verdicts = self._final(self._judgement)

    @property
    def counters(self) -> tuple[CounterKey, ...]:
        """Every counter that a call of these may add to."""
        keys = {self._key(use) for uses in self._uses for use in uses}
        return tuple(sorted(keys))

    @property
    def asks(self) -> bool:
        """Whether people's decisions have a part in it."""
        rules = self._rules
        if rules is None or rules.shadow:
            return False
        if self._held or any(verdict.decision is Ruling.ASK for verdict in self._verdicts):
            return True
        asking = {entry.id for entry in rules.engine.policy.file.caps.sums if entry.then is Ruling.ASK}
        return any(use.cap.removeprefix("sum:") in asking for uses in self._uses for use in uses)

    def look(self, connection: Connection) -> tuple[ApprovalRow, ...]:
        """What people were asked of these actions, in this run."""
        exchange = self._facts.exchange
        assert exchange.caller is not None
        digests = {verdict.digest for verdict in self._judgement.verdicts if verdict.digest}
        return of_actions(connection, exchange.caller.agent.id, exchange.run_id, digests)

    def plan(self, found: Found) -> Planned:
        """Settles it: with the counters as they are, and with what people decided."""
        verdicts, facts, judgement = self._recounted(found.counted)
        matched = self._match(verdicts, found.seen or ())
        judged = None
        if self._rules is not None:
            judged = facts.judged(facts.context(), judgement.identity)
        if matched.waiting:
            return Planned(memo=Settled(matched, (), judged, ()))
        passing = tuple(self._passes(verdict) for verdict in matched.verdicts)
        takes = tuple(self._take(v) for v, passes in zip(matched.verdicts, passing, strict=True) if passes)
        counted = tuple(tuple(Counted(*self._key(use), use.amount) for use in uses) for uses in self._uses)
        added = tuple(row for rows, passes in zip(counted, passing, strict=True) if passes for row in rows)
        return Planned(takes, added, Settled(matched, passing, judged, counted))

    def _recounted(self, counted: Mapping[CounterKey, int]) -> tuple[list[Verdict], Facts, Judgement]:
        if not counted or self._rules is None:
            return self._verdicts, self._facts, self._judgement
        facts = replace(self._facts, counters={key.cap: used for key, used in counted.items()})
        if not bites(self._rules.engine.policy.file.caps, self._uses, facts.counters):
            return self._verdicts, facts, self._judgement
        judgement = self._rules.engine.judge(self._proposed, facts.context())
        return self._final(judgement), facts, judgement

    def _final(self, judgement: Judgement) -> list[Verdict]:
        found: list[Verdict] = []
        for verdict, call in zip(judgement.verdicts, self._calls, strict=True):
            asks = verdict.decision is Ruling.ASK
            given = without_approver(verdict) if asks and self._nobody_approves(call.name) else verdict
            found.append(self._permitted.judged(given, call.name))
        return found

    def _nobody_approves(self, tool: str) -> bool:
        rules = self._rules
        return rules is None or approval_for(rules.engine.policy, tool, rules.answerable) is None

    def _match(self, verdicts: list[Verdict], seen: tuple[ApprovalRow, ...]) -> Matched:
        rules = self._rules
        asked = self._held or any(verdict.decision is Ruling.ASK for verdict in verdicts)
        if rules is None or rules.shadow or not asked:
            return Matched(tuple(verdicts), {}, {}, (), frozenset())
        refused = rules.on_deny is OnDeny.ERROR and any(v.decision is Ruling.DENY for v in verdicts)
        return Matching(
            self._facts.exchange,
            rules.engine.policy,
            rules.answerable,
            self._proposed,
            seen,
            self._held,
            self._over or refused,
            self._facts.now_us,
        ).match(verdicts)

    def _passes(self, verdict: Verdict) -> bool:
        shadow = self._rules is not None and self._rules.shadow
        return verdict.decision is Ruling.ALLOW or (shadow and verdict.rule not in ALWAYS)

    def _take(self, verdict: Verdict) -> Take:
        exchange = self._facts.exchange
        used = Amount(tool_calls=1, writes=int(verdict.effect is not Effect.READ))
        return Take(exchange.id, exchange.bounds, used)

    def _key(self, use: Use) -> CounterKey:
        exchange, now = self._facts.exchange, self._facts.now_us
        assert exchange.caller is not None
        agent = exchange.caller.agent.id
        match use.per:
            case Per.RUN:
                return CounterKey(use.cap, subject_of("run", agent, exchange.run_id), 0)
            case Per.USER_DAY:
                return CounterKey(use.cap, subject_of("user", column(exchange.user_id)), now // _DAY_US)
            case Per.AGENT_DAY:
                return CounterKey(use.cap, subject_of("agent", agent), now // _DAY_US)


def arguments_of(call: ToolCall) -> str:
    """What is judged: a freeform tool's text is the `input` of an object, as where it's translated."""
    return _encode({"input": call.arguments}).decode() if call.custom else call.arguments


def within_budget(verdicts: Sequence[Verdict], settled: Settled, results: Sequence[Result]) -> list[Verdict]:
    """The verdicts, with what the takes of those that pass came to."""
    left = iter(results)
    pairs = zip(verdicts, settled.passing, strict=True)
    return [_within_budget(verdict, next(left)) if passes else verdict for verdict, passes in pairs]


def _within_budget(verdict: Verdict, result: Result) -> Verdict:
    match result:
        case Taken():
            return verdict
        case Refused():
            return replace(
                verdict,
                decision=Ruling.DENY,
                rule=f"budget:{result.limit_id}",
                why=f"limit {result.limit_id!r} allows {result.maximum} {result.unit.value}, all used up",
                tell_model="The budget for tool calls is used up: answer from what you have.",
                hits=(verdict.rule, *verdict.hits) if verdict.rule else verdict.hits,
            )
        case _:
            raise AssertionError(f"a take was answered by {type(result).__name__}")


def decided(
    calls: Sequence[ToolCall], verdicts: Sequence[Verdict], rules: Rules | None, approvals: Mapping[int, str]
) -> tuple[Decision, ...]:
    """The verdicts as they're recorded."""
    shadow = rules is not None and rules.shadow
    return tuple(
        Decision(
            choice=call.choice,
            index=call.index,
            tool_call_id=call.id,
            tool=call.name,
            arguments=call.arguments,
            custom=call.custom,
            decision=verdict.decision.value,
            rule=verdict.rule,
            why=verdict.why,
            tell_model=verdict.tell_model,
            effect=verdict.effect.value,
            hits=verdict.hits,
            digest=verdict.digest,
            policy=rules.sha256 if rules else "",
            shadow=shadow and verdict.rule not in ALWAYS and not verdict.rule.startswith("budget:"),
            approval=approvals.get(n, ""),
        )
        for n, (call, verdict) in enumerate(zip(calls, verdicts, strict=True))
    )


def tool_call_rows(
    exchange: Exchange, decisions: Sequence[Decision], verdicts: Sequence[Verdict], at_us: int
) -> tuple[ToolCallRow, ...]:
    """The calls as later ones of the run must know them. Where nobody answered, a call is no denied one."""
    assert exchange.caller is not None
    agent_id = exchange.caller.agent.id
    return tuple(
        ToolCallRow(
            agent_id,
            exchange.run_id,
            exchange.id,
            decision.choice,
            decision.index,
            tool_call_key(decision.tool_call_id),
            column(decision.tool),
            "allow" if decision.released else "ask" if decision.rule in names.UNANSWERED else "deny",
            verdict.effect.value,
            verdict.digest,
            at_us,
        )
        for decision, verdict in zip(decisions, verdicts, strict=True)
    )


def denials(decisions: Sequence[Decision]) -> int:
    """How many of the calls were denied, as a freeze counts them."""
    return sum(one.decision == "deny" and one.rule not in names.UNANSWERED for one in decisions)


def freezes(
    rules: Rules | None, exchange: Exchange, state: RunState, decisions: Sequence[Decision], at_us: int
) -> Evidence | None:
    """What freezes the agent, with every so many-th denial of a run."""
    freeze = rules.engine.policy.file.freeze if rules is not None and not rules.shadow else None
    if freeze is None or freeze.scope != "agent":
        return None
    most = freeze.on.denials_per_run
    after = state.denials + denials(decisions)
    if after // most == state.denials // most:
        return None
    last = next(d.rule for d in reversed(decisions) if d.decision == "deny")
    reason = f"{after} tool calls of run {exchange.run_id} were denied, the last by rule {last}"
    assert exchange.caller is not None
    event = freezing.AgentEvent(
        agent_id=exchange.caller.agent.id,
        reason="".join([c if c.isprintable() else "?" for c in reason])[: freezing.MAX_REASON],
        by=Via.POLICY.value,
        via=Via.POLICY,
    )
    return freezing.frozen(event, at_us, exchange.id, exchange.run_id)
