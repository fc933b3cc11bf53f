"""One round over the tool calls of a reply: what the policy says, what asks and counters make of it, what is
written. Pure, but for fresh ids: it runs in the writer's transaction too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
from msgspec import structs
from sqlalchemy import Connection

from budgets import Amount, Refused, Result, Take, Taken, Unit
from llm_proxy.chat.reply import ToolCall
from llm_proxy.exchange import Exchange
from llm_proxy.facts import Facts
from llm_proxy.granting import MOST_PER_AGENT, MOST_PER_RUN, Matched, Matching
from llm_proxy.identity import freezing
from llm_proxy.identity.issuing import Via
from llm_proxy.policy import names
from llm_proxy.policy.asking import approval_for
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.limits import Use, bites
from llm_proxy.policy.permitted import ALWAYS, Permitted
from llm_proxy.policy.rewritten import Given, as_given, not_as_given
from llm_proxy.policy.schema import Decision as Ruling
from llm_proxy.policy.schema import Effect, Mode, OnDeny
from llm_proxy.policy.verdict import Judgement, Proposed, Verdict, with_sibling, without_approver
from llm_proxy.policy.vocabulary import Per
from llm_proxy.records.approvals import of_actions, waiting
from llm_proxy.records.batch import Found, Planned
from llm_proxy.records.columns import column
from llm_proxy.records.counters import CounterKey, subject_of
from llm_proxy.records.evidence import Evidence, ToolCallRow, tool_call_key
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


@dataclass(frozen=True, slots=True)
class Asked:
    """What people were asked: of a reply's actions in its run, and how many more they may be asked."""

    rows: tuple[ApprovalRow, ...] = ()
    room: int = 0


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
    whole: bool = False
    """All calls or none: one take stands for all of them."""
    received: tuple[str, ...] = ()
    """For each call the digest of what the agent gets; empty where that is what was judged."""


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
        self._proposed = [_proposed(call) for call in calls]
        self._uses: tuple[tuple[Use, ...], ...] = ((),) * len(calls)
        self._given = self._as_given()
        if rules is None:
            self._judgement = Judgement((UNJUDGED,) * len(calls))
        else:
            self._judgement = rules.engine.judge(self._proposed, facts.context())
            self._uses = rules.engine.uses(self._proposed)
        self._verdicts = self._final(self._judgement)

    @property
    def counters(self) -> tuple[CounterKey, ...]:
        """Every counter that a call of these may add to, and the one under which approvals are opened."""
        keys = {self._key(use) for uses in self._uses for use in uses}
        return tuple(sorted(keys | {self._opening} if self.asks else keys))

    @property
    def _opening(self) -> CounterKey:
        """It counts within a batch alone, and has whoever opens approvals of the agent go one by one."""
        caller = self._facts.exchange.caller
        assert caller is not None
        return CounterKey("approvals", subject_of("agent", caller.agent.id), 0)

    @property
    def _whole(self) -> bool:
        """Whether one denial refuses the reply, and so nothing of it may be charged or released."""
        return self._rules is not None and self._rules.on_deny is OnDeny.ERROR

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

    def look(self, connection: Connection) -> Asked:
        """What people were asked of these actions, in this run."""
        exchange, now = self._facts.exchange, self._facts.now_us
        assert exchange.caller is not None
        key = exchange.caller.agent.id, exchange.run_id
        digests = {verdict.digest for verdict in self._judgement.verdicts if verdict.digest}
        in_run, in_all = waiting(connection, *key, now)
        room = min(MOST_PER_RUN - in_run, MOST_PER_AGENT - in_all)
        return Asked(of_actions(connection, *key, digests), room)

    def plan(self, found: Found) -> Planned:
        """Settles it: with the counters as they are, and with what people decided."""
        counted = dict(found.counted)
        before = counted.pop(self._opening, 0) if self.asks else 0
        verdicts, facts, judgement = self._recounted(counted)
        asked: Asked = found.seen or Asked()
        matched = self._match(verdicts, asked.rows, asked.room - before)
        judged = None
        if self._rules is not None:
            judged = facts.judged(facts.context(), judgement.identity)
        opened = (Counted(*self._opening, len(matched.opened)),) if matched.opened else ()
        if matched.waiting:
            return Planned((), opened, Settled(matched, (), judged, ()))
        matched = self._all_or_none(matched)
        passing = tuple(self._passes(verdict) for verdict in matched.verdicts)
        takes = self._takes([v for v, passes in zip(matched.verdicts, passing, strict=True) if passes])
        counts = tuple(tuple(Counted(*self._key(use), use.amount) for use in uses) for uses in self._uses)
        added = tuple(row for rows, passes in zip(counts, passing, strict=True) if passes for row in rows)
        settled = Settled(matched, passing, judged, counts, self._whole, self._given.digests)
        return Planned(takes, (*opened, *added), settled)

    def _as_given(self) -> Given:
        """What the calls come to with the arguments that the agent would get."""
        rules, guard = self._rules, self._facts.exchange.guard
        if rules is None or guard is None or not guard.args:
            return Given()
        got = [guard.arguments(call.name, call.arguments) for call in self._calls]
        pairs = zip(self._calls, got, strict=True)
        given = [_proposed(structs.replace(call, arguments=text)) for call, text in pairs]
        return as_given(self._proposed, given, rules.engine.policy, self._facts.context().agent.scopes)

    def _all_or_none(self, matched: Matched) -> Matched:
        """Where a denial refuses the reply whole, no call of it passes beside one that doesn't."""
        if not self._whole or all(map(self._passes, matched.verdicts)):
            return matched
        verdicts = tuple(with_sibling(v) if self._passes(v) else v for v in matched.verdicts)
        return replace(matched, verdicts=verdicts, grants={})

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
        for n, (verdict, call) in enumerate(zip(judgement.verdicts, self._calls, strict=True)):
            asks = verdict.decision is Ruling.ASK
            ruled = without_approver(verdict) if asks and self._nobody_approves(call.name) else verdict
            if n in self._given.misfits:
                ruled = not_as_given(ruled, self._given.misfits[n])
            found.append(self._permitted.judged(ruled, call.name))
        return found

    def _nobody_approves(self, tool: str) -> bool:
        rules = self._rules
        return rules is None or approval_for(rules.engine.policy, tool, rules.answerable) is None

    def _match(self, verdicts: list[Verdict], seen: tuple[ApprovalRow, ...], room: int) -> Matched:
        rules = self._rules
        asked = self._held or any(verdict.decision is Ruling.ASK for verdict in verdicts)
        if rules is None or rules.shadow or not asked:
            return Matched(tuple(verdicts), {}, {}, (), frozenset())
        refused = self._whole and any(v.decision is Ruling.DENY for v in verdicts)
        return Matching(
            self._facts.exchange,
            rules.engine.policy,
            rules.answerable,
            self._proposed,
            seen,
            room,
            self._held,
            self._over or refused,
            self._facts.now_us,
        ).match(verdicts)

    def _passes(self, verdict: Verdict) -> bool:
        shadow = self._rules is not None and self._rules.shadow
        return verdict.decision is Ruling.ALLOW or (shadow and verdict.rule not in ALWAYS)

    def _takes(self, passing: Sequence[Verdict]) -> tuple[Take, ...]:
        """One for each call that passes, or one for them all: a take is all or nothing."""
        exchange = self._facts.exchange
        used = [Amount(tool_calls=1, writes=int(v.effect is not Effect.READ)) for v in passing]
        if self._whole and used:
            used = [Amount(tool_calls=len(used), writes=sum(one.writes for one in used))]
        return tuple([Take(exchange.id, exchange.bounds, one) for one in used])

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


def _proposed(call: ToolCall) -> Proposed:
    return Proposed(call.id, call.name, arguments_of(call))


def told(decisions: Sequence[Decision], received: Sequence[str]) -> tuple[Decision, ...]:
    """The verdicts, each with the digest of what the agent gets, where that is not what was judged."""
    if not any(received):
        return tuple(decisions)
    return tuple(
        structs.replace(decision, received=digest) if decision.released and decision.digest else decision
        for decision, digest in zip(decisions, received, strict=True)
    )


def within_budget(verdicts: Sequence[Verdict], settled: Settled, results: Sequence[Result]) -> list[Verdict]:
    """The verdicts, with what the takes of those that pass came to."""
    if settled.whole:
        refused = next((result for result in results if isinstance(result, Refused)), None)
        return list(verdicts) if refused is None else _none_within_budget(verdicts, refused)
    left = iter(results)
    pairs = zip(verdicts, settled.passing, strict=True)
    return [_within_budget(verdict, next(left)) if passes else verdict for verdict, passes in pairs]


def _none_within_budget(verdicts: Sequence[Verdict], refused: Refused) -> list[Verdict]:
    """No call of a reply that has more than is left: the last that the limit counts is the one too many."""
    counts = [refused.unit is not Unit.WRITES or verdict.effect is not Effect.READ for verdict in verdicts]
    last = max(n for n, counted in enumerate(counts) if counted)
    found = [with_sibling(verdict) for verdict in verdicts]
    left = "all used up" if len(verdicts) == 1 else "and the reply has more than are left"
    found[last] = _within_budget(verdicts[last], refused, left)
    return found


def _within_budget(verdict: Verdict, result: Result, left: str = "all used up") -> Verdict:
    match result:
        case Taken():
            return verdict
        case Refused():
            return replace(
                verdict,
                decision=Ruling.DENY,
                rule=f"budget:{result.limit_id}",
                why=f"limit {result.limit_id!r} allows {result.maximum} {result.unit.value}, {left}",
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
    last = next(d.rule for d in reversed(decisions) if denials([d]))
    reason = f"{after} tool calls of run {exchange.run_id} were denied, the last by rule {last}"
    assert exchange.caller is not None
    event = freezing.AgentEvent(
        agent_id=exchange.caller.agent.id,
        reason="".join([c if c.isprintable() else "?" for c in reason])[: freezing.MAX_REASON],
        by=Via.POLICY.value,
        via=Via.POLICY,
    )
    return freezing.frozen(event, at_us, exchange.id, exchange.run_id)
