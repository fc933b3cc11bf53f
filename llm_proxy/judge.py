"""Judges the tool calls of a reply and commits the verdicts before any of them is released."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
from msgspec import structs

from budgets import Amount, Refused, Result, Take, Taken
from llm_proxy.chat.reply import ToolCall
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.policy.context import AgentFacts, Context, Done, RunFacts, UserFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.permitted import ALWAYS, Permitted
from llm_proxy.policy.schema import Decision as Ruling
from llm_proxy.policy.schema import Effect, Mode, OnDeny
from llm_proxy.policy.verdict import Proposed, Verdict, without_approver
from llm_proxy.reactions.alerts import SILENT, Alerts, with_records
from llm_proxy.records import bodies
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import (
    Draft,
    Evidence,
    RecordKind,
    RunUpdate,
    ToolCallRow,
    column,
    tool_call_key,
)
from llm_proxy.records.runstate import UNKNOWN, RunKey, RunState
from llm_proxy.records.view import Decision
from llm_proxy.records.writer import Writer
from llm_proxy.turns import Turns
from llm_proxy.wire.passthrough import returns_calls

_encode = msgspec.json.Encoder().encode
_NOT_LOADED = -1
"""A revision that no run has: the first commit then answers with the run's true state."""
_RACES = 64
"""How often verdicts are judged anew because another process was first to change the run."""


@dataclass(frozen=True, slots=True)
class _Stale:
    """Another call of the run committed first: this is how the run stands now."""

    state: RunState


@dataclass(frozen=True, slots=True)
class _Judged:
    """What was committed: a decision for each call, and what came of the takes."""

    decisions: tuple[Decision, ...]
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """The policy in force for one call; it stays the same until the call ends."""

    engine: PolicyEngine
    sha256: str
    mode: Mode
    on_deny: OnDeny


class Judge:
    """Judges one call's proposed tool calls, as a set. `state` is the run as it was when the call opened."""

    def __init__(
        self,
        exchange: Exchange,
        rules: Rules | None,
        state: RunState | None,
        writer: Writer,
        now_us: Callable[[], int],
        environment: str,
        turns: Turns,
        alerts: Alerts = SILENT,
    ) -> None:
        self._exchange = exchange
        self._rules = rules
        self._state = state or UNKNOWN
        self._expect = state.revision if state else _NOT_LOADED
        self._writer = writer
        self._now_us = now_us
        self._environment = environment
        self._turns = turns
        self._alerts = alerts

    async def __call__(self, calls: tuple[ToolCall, ...]) -> dict[tuple[int, int], str]:
        """The notes that stand in place of denied calls, once every verdict is committed.

        Raises `ProxyError(policy_denied)` where the policy says `on_deny: error`.
        """
        async with self._turns.of(self._run):
            return await self._judged(calls)

    async def _judged(self, calls: tuple[ToolCall, ...]) -> dict[tuple[int, int], str]:
        for _ in range(_RACES):
            verdicts = self._verdicts(calls)
            outcome = await self._writer.submit(self._job(calls, verdicts))
            if not isinstance(outcome, _Stale):
                self._count(outcome.results)
                return self._answer(calls, outcome.decisions)
            self._state = outcome.state
            self._expect = outcome.state.revision
        raise ProxyError(
            Kind.POLICY_DENIED,
            "The run changed too often while its tool calls were judged. "
            "Send fewer calls of one run at once.",
            retry_after_s=1,
        )

    def _count(self, results: tuple[Result, ...]) -> None:
        self._alerts.count(results)
        for result in results:
            if isinstance(result, Refused):
                self._alerts.count_refusal(result.limit_id)

    def _verdicts(self, calls: tuple[ToolCall, ...]) -> list[Verdict]:
        verdicts = [_UNJUDGED] * len(calls)
        if self._rules is not None:
            proposed = [Proposed(call.id, call.name, _arguments(call)) for call in calls]
            found = self._rules.engine.decide(proposed, self._context())
            verdicts = [without_approver(verdict) for verdict in found]
        tools = permitted(self._exchange)
        return [tools.judged(verdict, call.name) for verdict, call in zip(verdicts, calls, strict=True)]

    def _context(self) -> Context:
        exchange, state = self._exchange, self._state
        assert exchange.caller is not None
        agent = exchange.caller.agent
        return Context(
            agent=AgentFacts(agent.id, agent.team, agent.role, agent.owner, agent.scopes, agent.tools),
            user=_user_facts(exchange),
            run=run_facts(state),
            now_s=self._now_us() / 1e6,
            user_text=self._user_text,
            env=self._environment,
        )

    def _user_text(self) -> str:
        """What the user wrote, in the messages of this request."""
        request, dialect = self._exchange.request, self._exchange.dialect
        assert request is not None
        return "\n".join(dialect.message_facts(bytes(raw)).user_text for raw in request.messages)

    def _job(self, calls: tuple[ToolCall, ...], verdicts: Sequence[Verdict]) -> Job:
        exchange = self._exchange
        assert exchange.caller is not None
        shadow = self._rules is not None and self._rules.mode is Mode.SHADOW
        passing = [v.decision is Ruling.ALLOW or (shadow and v.rule not in ALWAYS) for v in verdicts]
        takes = tuple(
            Take(exchange.id, exchange.bounds, Amount(tool_calls=1, writes=int(v.effect is not Effect.READ)))
            for v, passes in zip(verdicts, passing, strict=True)
            if passes
        )
        at_us = self._now_us()

        def then(found: Found) -> Wrote:
            if found.run.revision != self._expect:
                return Wrote(_Stale(found.run))
            results = iter(found.results)
            final = [
                _within_budget(v, next(results)) if passes else v
                for v, passes in zip(verdicts, passing, strict=True)
            ]
            decisions = self._decisions(calls, final, shadow=shadow)
            evidence = self._evidence(calls, final, decisions, found.run, at_us)
            return Wrote(_Judged(decisions, found.results), self._told(evidence, found.results, at_us))

        return Job(then=then, ops=takes, run=self._run, expect=self._expect)

    @property
    def _run(self) -> RunKey:
        assert self._exchange.caller is not None
        return RunKey(self._exchange.caller.agent.id, self._exchange.run_id)

    def _told(self, evidence: Evidence, results: tuple[Result, ...], at_us: int) -> Evidence:
        """With what the takes reached of their limits, and the first refusal of each."""
        refused = [result for result in results if isinstance(result, Refused)]
        rows = [row for result in refused for row in self._alerts.refused(result, self._exchange, at_us)]
        if rows:
            evidence = structs.replace(evidence, deliveries=(*evidence.deliveries, *rows))
        return with_records(evidence, self._alerts.reached(results, self._exchange, at_us))

    def _decisions(
        self, calls: tuple[ToolCall, ...], verdicts: list[Verdict], *, shadow: bool
    ) -> tuple[Decision, ...]:
        policy = self._rules.sha256 if self._rules else ""
        return tuple(
            Decision(
                choice=call.choice,
                index=call.index,
                tool_call_id=call.id,
                tool=call.name,
                arguments=call.arguments,
                decision=verdict.decision.value,
                rule=verdict.rule,
                why=verdict.why,
                tell_model=verdict.tell_model,
                effect=verdict.effect.value,
                hits=verdict.hits,
                policy=policy,
                shadow=shadow and verdict.rule not in ALWAYS and not verdict.rule.startswith("budget:"),
            )
            for call, verdict in zip(calls, verdicts, strict=True)
        )

    def _evidence(
        self,
        calls: tuple[ToolCall, ...],
        verdicts: list[Verdict],
        decisions: tuple[Decision, ...],
        state: RunState,
        at_us: int,
    ) -> Evidence:
        exchange = self._exchange
        assert exchange.caller is not None
        agent_id, run_id = exchange.caller.agent.id, exchange.run_id
        body = bodies.encode(bodies.Verdicts(decisions=decisions, revision=state.revision + 1))
        rows = tuple(
            ToolCallRow(
                agent_id,
                run_id,
                exchange.id,
                call.choice,
                call.index,
                tool_call_key(call.id),
                column(call.name),
                "allow" if released(decision) else "deny",
                verdict.effect.value,
                verdict.digest,
                at_us,
            )
            for call, verdict, decision in zip(calls, verdicts, decisions, strict=True)
        )
        denials = sum(decision.decision != "allow" for decision in decisions)
        update = run_update(state, RunKey(agent_id, run_id), denials=state.denials + denials)
        record = Draft(RecordKind.VERDICTS, at_us, exchange.id, run_id, agent_id, body)
        return Evidence(records=(record,), tool_calls=rows, run_updates=(update,))

    def _answer(
        self, calls: tuple[ToolCall, ...], decisions: tuple[Decision, ...]
    ) -> dict[tuple[int, int], str]:
        exchange = self._exchange
        exchange.decisions = list(decisions)
        for decision in decisions:
            if released(decision):
                exchange.taken += Amount(tool_calls=1, writes=int(decision.effect != Effect.READ))
        denied = {(d.choice, d.index): denial_note(d) for d in decisions if not released(d)}
        if denied and self._rules is not None and self._rules.on_deny is OnDeny.ERROR:
            first = next(d for d in decisions if not released(d))
            raise ProxyError(Kind.POLICY_DENIED, denial_note(first), retryable=False)
        return denied


_UNJUDGED = Verdict(Ruling.ALLOW, "", "", "", Effect.READ, (), "")
"""What stands where no policy is loaded."""


def permitted(exchange: Exchange) -> Permitted:
    """The tools that the call may be given at all."""
    assert exchange.caller is not None
    return Permitted(exchange.caller.agent.tools, exchange.lineage.tools)


def judges(exchange: Exchange, rules: Rules | None) -> bool:
    """Whether tool calls have to wait for a verdict."""
    if rules is not None or not permitted(exchange).every:
        return True
    return any(bound.limit.gate_caps for bound in exchange.bounds)


def refuse_unjudged(exchange: Exchange, rules: Rules | None) -> None:
    """Raises `ProxyError(policy_denied)` for a path by which a tool call that has to be judged would pass."""
    tools = permitted(exchange)
    if (rules is None and tools.every) or not (why := returns_calls(exchange.upstream_path)):
        return
    cause = "while a policy is in force" if rules else f"for {tools.whose}, whose tools are limited"
    raise ProxyError(
        Kind.POLICY_DENIED,
        f"/v1{exchange.upstream_path} does not pass {cause}: {why}. Use /v1/chat/completions, "
        "/v1/responses or /v1/messages.",
        retryable=False,
    )


def _arguments(call: ToolCall) -> str:
    """What is judged: a freeform tool's text is the `input` of an object, as where it's translated."""
    return _encode({"input": call.arguments}).decode() if call.custom else call.arguments


def _user_facts(exchange: Exchange) -> UserFacts:
    """Role and clearance only of a user whom the credential itself names."""
    caller = exchange.caller
    if caller is None or not exchange.user_verified:
        return UserFacts(id=exchange.user_id)
    return UserFacts(exchange.user_id, caller.user_role, caller.user_clearance, verified=True)


def released(decision: Decision) -> bool:
    """Whether the call reached the agent: allowed, or judged in shadow."""
    return decision.released


def run_facts(state: RunState) -> RunFacts:
    """A run's stored state, as the engine sees it."""
    allowed = [call for call in state.history if call.decision == "allow"]
    return RunFacts(
        sensitivity=state.sensitivity,
        untrusted=state.untrusted,
        labels=frozenset(state.labels),
        calls=len(allowed),
        writes=sum(call.effect != Effect.READ for call in allowed),
        irreversible=sum(call.effect == Effect.IRREVERSIBLE for call in allowed),
        denials=state.denials,
        started_s=state.started_us / 1e6,
        role_at_start=state.role_at_start,
        history=tuple(
            Done(
                tool=call.tool,
                effect=Effect(call.effect),
                decision=Ruling(call.decision),
                completed=call.answered_us is not None,
                digest=call.digest,
                at_s=call.at_us / 1e6,
            )
            for call in state.history
        ),
    )


def run_update(
    state: RunState,
    key: RunKey,
    *,
    sensitivity: int | None = None,
    untrusted: bool | None = None,
    denials: int | None = None,
    marks: int = 0,
) -> RunUpdate:
    """The run's next revision. Labels only rise, and marks stay."""
    return RunUpdate(
        revision=state.revision + 1,
        sensitivity=max(state.sensitivity, sensitivity or 0),
        untrusted=state.untrusted or bool(untrusted),
        labels=bodies.encode(state.labels).decode(),
        denials=state.denials if denials is None else denials,
        marks=state.marks | marks,
        agent_id=key.agent_id,
        run_id=key.run_id,
    )


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


def denial_note(decision: Decision) -> str:
    """What the model reads in place of a denied call. It quotes no argument."""
    text = f"[llm-proxy] The call to {decision.tool!r} was denied by rule {decision.rule!r}"
    if decision.why and decision.why not in decision.tell_model:
        text += f": {decision.why}"
    text = text.rstrip(".") + "."
    return f"{text} {decision.tell_model}".rstrip() if decision.tell_model else text
