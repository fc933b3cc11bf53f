"""Judges the tool calls of a reply and commits the verdicts before any of them is released."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic

from msgspec import structs

from budgets import Amount, Refused, Result
from llm_proxy.asking import Approvals
from llm_proxy.chat.reply import ToolCall
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.facts import Facts
from llm_proxy.granting import requested, used
from llm_proxy.judging import (
    Round,
    Rules,
    Settled,
    decided,
    denials,
    freezes,
    told,
    tool_call_rows,
    within_budget,
)
from llm_proxy.policy import names
from llm_proxy.policy.permitted import Permitted
from llm_proxy.policy.schema import Effect, OnDeny, Prerequisite
from llm_proxy.reactions.alerts import SILENT, Alerts, with_records
from llm_proxy.recording import recorded_arguments
from llm_proxy.records import bodies
from llm_proxy.records.advancing import run_update
from llm_proxy.records.arguments import NO_ARGUMENTS, KeptArguments, as_recorded
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind, RunUpdate
from llm_proxy.records.rule_hits import rule_hit_rows
from llm_proxy.records.run_events import events_of
from llm_proxy.records.runstate import UNKNOWN, Mark, RunKey, RunState
from llm_proxy.records.view import Decision
from llm_proxy.records.writer import Writer
from llm_proxy.turns import Turns
from llm_proxy.wire.passthrough import returns_calls

__all__ = ["Judge", "Rules", "denial_note", "judges", "permitted", "refuse_unjudged", "released"]

_NOT_LOADED = -1
"""A revision that no run has: the first commit then answers with the run's true state."""
_RACES = 64
"""How often verdicts are judged anew because another process was first to change the run."""
KEEP_ALIVE_S = 5.0
"""How often the caller of a stream hears that its reply waits for a person."""


@dataclass(frozen=True, slots=True)
class _Stale:
    """Another call of the run committed first: this is how the run stands now."""

    state: RunState


@dataclass(frozen=True, slots=True)
class _Waits:
    """People have to decide; nothing of the reply was charged or released."""

    ids: frozenset[str]
    hold_s: float


@dataclass(frozen=True, slots=True)
class _Judged:
    """What was committed: a decision for each call, and what came of the takes."""

    decisions: tuple[Decision, ...]
    results: tuple[Result, ...]
    froze: bool = False


@dataclass(slots=True)
class _Hold:
    """How long one reply has waited for people, and for which approvals."""

    ids: frozenset[str] = frozenset()
    began: float = field(default_factory=monotonic)
    over: bool = False


async def _nothing() -> None:
    return


def _unseen(state: RunState) -> None:
    return


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
        *,
        approvals: Approvals | None = None,
        keep_alive: Callable[[], Awaitable[None]] = _nothing,
        frozen: Callable[[], Awaitable[None]] = _nothing,
        most_hold_s: float | None = None,
        each_round: Callable[[RunState], None] = _unseen,
    ) -> None:
        """`approvals` wakes a reply that waits for people: without, none waits. `keep_alive` is called every
        few seconds meanwhile; `frozen` once the policy has frozen the agent. `most_hold_s` shortens the wait.
        `each_round` is told the run as it stands, and may raise: then nothing is written."""
        self._exchange = exchange
        self._rules = rules
        self._state = state or UNKNOWN
        self._expect = state.revision if state else _NOT_LOADED
        self._writer = writer
        self._now_us = now_us
        self._environment = environment
        self._turns = turns
        self._alerts = alerts
        self._approvals = approvals
        self._keep_alive = keep_alive
        self._frozen = frozen
        self._most_hold_s = most_hold_s
        self._each_round = each_round
        self._events: tuple[int, dict[str, int]] = (_NOT_LOADED, {})
        self._said: str | None = None
        self._kept: KeptArguments = NO_ARGUMENTS

    async def __call__(self, calls: tuple[ToolCall, ...]) -> dict[tuple[int, int], str]:
        """The notes that stand in place of denied calls, once every verdict is committed.

        Raises `ProxyError(policy_denied)` where the policy says `on_deny: error`.
        """
        hold = _Hold(over=self._approvals is None)
        addresser, mask = self._writer.addresser, self._exchange.record_mask
        self._kept = await recorded_arguments(mask, calls, addresser, self._now_us())
        while True:
            async with self._turns.of(self._run):
                outcome = await self._judged(calls, hold)
            if isinstance(outcome, _Judged):
                break
            await self._wait(outcome, hold)
        self._count(outcome.results)
        denied = self._note(outcome.decisions)
        if outcome.froze:
            await self._frozen()
        return self._answer(outcome.decisions, denied)

    async def _judged(self, calls: tuple[ToolCall, ...], hold: _Hold) -> _Judged | _Waits:
        for _ in range(_RACES):
            await self._load_events()
            self._each_round(self._state)
            outcome = await self._writer.submit(self._job(calls, hold))
            if not isinstance(outcome, _Stale):
                return outcome
            self._state = outcome.state
            self._expect = outcome.state.revision
        raise ProxyError(
            Kind.POLICY_DENIED,
            "The run changed too often while its tool calls were judged. "
            "Send fewer calls of one run at once.",
            retry_after_s=1,
        )

    async def _wait(self, waits: _Waits, hold: _Hold) -> None:
        """Until one of the approvals is decided, or the reply has been held long enough."""
        exchange, approvals = self._exchange, self._approvals
        assert approvals is not None
        hold.ids |= waits.ids
        hold_s = waits.hold_s if self._most_hold_s is None else min(waits.hold_s, self._most_hold_s)
        until, began = hold.began + hold_s, exchange.elapsed()
        while not exchange.client_gone and (left := until - monotonic()) > 0:
            if await approvals.wait(tuple(waits.ids), min(left, KEEP_ALIVE_S)):
                break
            if until - monotonic() > 0:
                await self._keep_alive()
        else:
            hold.over = True
        exchange.waited(began, exchange.elapsed())  # the person's time is not the proxy's own

    async def _load_events(self) -> None:
        """What rules may require of the run, read once for each of its revisions; most runs have none."""
        if not self._state.marks & Mark.EVENTS or self._events[0] == self._expect or not self._wants_events:
            return
        run = self._run

        def then(found: Found) -> Wrote:
            return Wrote((found.run, found.seen))

        job = Job(then, run=run, look=lambda connection: events_of(connection, run))
        self._state, events = await self._writer.submit(job)
        self._expect = self._state.revision
        self._events = self._expect, events

    @property
    def _wants_events(self) -> bool:
        steps = self._rules.engine.policy.file.sequence if self._rules else ()
        return any(isinstance(step, Prerequisite) and step.require.event is not None for step in steps)

    def _count(self, results: tuple[Result, ...]) -> None:
        self._alerts.count(results)
        for result in results:
            if isinstance(result, Refused):
                self._alerts.count_refusal(result.limit_id)

    def _user_text(self) -> str:
        """What the user wrote, in the messages of this request."""
        if self._said is None:
            request, dialect = self._exchange.request, self._exchange.dialect
            assert request is not None
            self._said = "\n".join(dialect.message_facts(bytes(raw)).user_text for raw in request.messages)
        return self._said

    def _job(self, calls: tuple[ToolCall, ...], hold: _Hold) -> Job:
        at_us = self._now_us()
        exchange, rules = self._exchange, self._rules
        events = self._events[1] if self._events[0] == self._expect else {}
        facts = Facts(exchange, self._state, at_us, self._environment, self._user_text, events, {})
        turn = Round(calls, rules, permitted(exchange), facts, hold.ids, over=hold.over)
        expect = None if rules is None else self._expect  # without rules no verdict rests on the run

        def then(found: Found) -> Wrote:
            if expect is not None and found.run.revision != expect:
                return Wrote(_Stale(found.run))
            settled: Settled = found.planned
            if settled.matched.waiting:
                waits = _Waits(settled.matched.waiting, settled.matched.hold_s)
                return Wrote(waits, self._opening(settled))
            evidence, judged = self._settle(calls, settled, found, at_us)
            return Wrote(judged, self._told(evidence, found.results, at_us))

        look = turn.look if turn.asks else None
        return Job(then, (), self._run, expect, counters=turn.counters, look=look, plan=turn.plan)

    def _opening(self, settled: Settled) -> Evidence:
        """What opens the approvals that nobody asked for yet."""
        rows = settled.matched.opened
        if not rows or self._rules is None:
            return Evidence()
        policy = self._rules.engine.policy
        places = {id_: n for n, id_ in settled.matched.approvals.items()}
        drafts = tuple([requested(row, policy, self._kept.address, places[row.id]) for row in rows])
        return Evidence(records=drafts, blobs=self._kept.blobs, approvals=rows)

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

    def _settle(
        self, calls: tuple[ToolCall, ...], settled: Settled, found: Found, at_us: int
    ) -> tuple[Evidence, _Judged]:
        """The verdicts as they're committed, with all that they bring about."""
        exchange, rules, state, matched = self._exchange, self._rules, found.run, settled.matched
        verdicts = within_budget(matched.verdicts, settled, found.results)
        decisions = told(decided(calls, verdicts, rules, matched.approvals), settled.received)
        passed = [decision.released for decision in decisions]
        grants = [(calls[n].id, row) for n, row in matched.grants.items() if passed[n]]
        used_up, changes = used(grants, exchange, at_us)
        body = bodies.Verdicts(
            decisions=as_recorded(decisions, self._kept),
            revision=state.revision + 1,
            arguments=self._kept.address,
            context=settled.judged,
        )
        run = self._run
        record = Draft(RecordKind.VERDICTS, at_us, exchange.id, run.run_id, run.agent_id, bodies.encode(body))
        opening, freeze = self._opening(settled), freezes(rules, exchange, state, decisions, at_us)
        evidence = Evidence(
            records=(*opening.records, record, *used_up, *(freeze.records if freeze else ())),
            blobs=self._kept.blobs,
            tool_calls=tool_call_rows(exchange, decisions, verdicts, at_us),
            rule_hits=rule_hit_rows(decisions, at_us),
            run_updates=(self._advanced(state, decisions),),
            counted=tuple(
                [row for rows, ok in zip(settled.counted, passed, strict=True) if ok for row in rows]
            ),
            approvals=opening.approvals,
            approval_changes=changes,
            freezes=freeze.freezes if freeze else (),
        )
        return evidence, _Judged(decisions, found.results, freeze is not None)

    def _note(self, decisions: tuple[Decision, ...]) -> dict[tuple[int, int], str]:
        """Keeps the decisions for the record; what stands in place of the denied calls."""
        exchange = self._exchange
        exchange.decisions = list(decisions)
        for decision in decisions:
            if released(decision):
                exchange.taken += Amount(tool_calls=1, writes=int(decision.effect != Effect.READ))
        return {(d.choice, d.index): denial_note(d) for d in decisions if not released(d)}

    def _advanced(self, state: RunState, decisions: tuple[Decision, ...]) -> RunUpdate:
        """The run's next revision. What an agent isn't told of a reply is kept under the run."""
        marks = 0 if all(map(released, decisions)) else Mark.UNSEEN
        return run_update(state, self._run, denials=state.denials + denials(decisions), marks=marks)

    def _answer(
        self, decisions: tuple[Decision, ...], denied: dict[tuple[int, int], str]
    ) -> dict[tuple[int, int], str]:
        if denied and self._rules is not None and self._rules.on_deny is OnDeny.ERROR:
            first = next(d for d in decisions if not released(d) and d.rule != names.SIBLING_DENIED)
            raise ProxyError(Kind.POLICY_DENIED, denial_note(first), retryable=False)
        return denied


def permitted(exchange: Exchange) -> Permitted:
    """The tools that the call may be given at all."""
    assert exchange.caller is not None
    return Permitted(exchange.caller.agent.tools, exchange.lineage.tools)


def judges(exchange: Exchange, rules: Rules | None) -> bool:
    """Whether tool calls have to wait for a verdict. A policy in shadow has nothing wait."""
    if (rules is not None and not rules.shadow) or not permitted(exchange).every:
        return True
    return any(bound.limit.gate_caps for bound in exchange.bounds)


def refuse_unjudged(exchange: Exchange, rules: Rules | None) -> None:
    """Raises `ProxyError(policy_denied)` for a path by which a tool call that has to be judged would pass."""
    tools = permitted(exchange)
    enforced = rules is not None and not rules.shadow
    if (not enforced and tools.every) or not (why := returns_calls(exchange.upstream_path)):
        return
    cause = "while a policy is in force" if enforced else f"for {tools.whose}, whose tools are limited"
    raise ProxyError(
        Kind.POLICY_DENIED,
        f"/v1{exchange.upstream_path} does not pass {cause}: {why}. Use /v1/chat/completions, "
        "/v1/responses or /v1/messages.",
        retryable=False,
    )


def released(decision: Decision) -> bool:
    """Whether the call reached the agent: allowed, or judged in shadow."""
    return decision.released


def denial_note(decision: Decision) -> str:
    """What the model reads in place of a denied call. It quotes no argument."""
    text = f"[llm-proxy] The call to {decision.tool!r} was denied by rule {decision.rule!r}"
    if decision.why and decision.why not in decision.tell_model:
        text += f": {decision.why}"
    text = text.rstrip(".") + "."
    return f"{text} {decision.tell_model}".rstrip() if decision.tell_model else text
