"""Asks the model for one call, and again where all that it wanted to call was denied, so that it can do else.

The model is answered as an agent would: its turn as it stands, and a result for each call that says why it
was denied. Where there is no room for that, or nobody answers, the caller gets the reply before, with notes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import cast

from msgspec import structs

from budgets import ZERO
from llm_proxy.admission import Admitted
from llm_proxy.chat.events import CallDelta, Event, Text, Usage
from llm_proxy.chat.prompt import CallPart, ResultPart, TextPart
from llm_proxy.chat.reply import Assembly, ToolCall
from llm_proxy.continuing import Continuing
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.flow import Flow
from llm_proxy.joining import Joined, JoinedAnew
from llm_proxy.judge import Judge, Rules, judges
from llm_proxy.measuring import ways_of
from llm_proxy.outgoing import Outgoing, issuer, redacted, spoken, unsayable
from llm_proxy.output import Output, Translated, Verbatim
from llm_proxy.policy.schema import Mode, OnDeny
from llm_proxy.provider_tools import take_in
from llm_proxy.quote import counts_tokens
from llm_proxy.rawflow import RawFlow, RawSink
from llm_proxy.records.policy_rows import UnseenRow
from llm_proxy.records.runstate import Mark, RunKey
from llm_proxy.redacting.replies import masked
from llm_proxy.resolving import plan_of
from llm_proxy.room import held_again, held_more
from llm_proxy.rounds import STRIDE, Round, parts_of, results_of, turn_of
from llm_proxy.sending.attempt import AnyFlow, AnySink, Attempting, Watching
from llm_proxy.sending.send import Sender
from llm_proxy.services import Services
from llm_proxy.settle import amount, total
from llm_proxy.unseen import LONGEST, Unseen, encode, key_of, retold
from llm_proxy.upstream.provider import Endpoint
from llm_proxy.wire.dialect import About, Denied, Dialect
from llm_proxy.wire.replay import events_of
from llm_proxy.wire.retelling import Called
from routing.plan import Plan, Try
from routing.targets import Resolved, Target

_OURS = frozenset({Kind.POLICY_DENIED, Kind.STORE_UNAVAILABLE, Kind.BUDGET_EXCEEDED})
"""What ends a call, and is no failure of the targets that were asked once more."""


class Carrying:
    """Carries one admitted call to the model and back. `run` it once."""

    def __init__(
        self,
        services: Services,
        exchange: Exchange,
        sink: AnySink,
        route: Resolved,
        rules: Rules | None,
        admitted: Admitted,
        judge: Judge,
    ) -> None:
        self._services = services
        self._exchange = exchange
        self._sink = sink
        self._route = route
        self._rules = rules
        self._admitted = admitted
        self._judge = judge
        self._judging = judges(exchange, rules)
        self._cap = admitted.cap
        begun = admitted.begun
        self._allowance = services.topups.of(exchange, begun) if begun else None
        self._before: Attempting | None = None
        """Whose reply is gone on from."""
        self._so_far: tuple[bytes, ...] = ()
        """All that the caller has of the rounds."""

    async def run(self) -> bytes:
        """The tail of the reply, which waits for the record's commit. Raises `ProxyError` where none came."""
        exchange, tries = self._exchange, self._admitted.tries
        await self._retell()
        plan = plan_of(self._services, exchange, self._route)
        answered, tail = await self._sent(self._sender(plan, hedges=tries.replies > 1))
        while isinstance(answered.flow, Flow) and answered.flow.unheard:
            again = await self._again(answered, answered.flow)
            if again is None:
                tail = answered.flow.ending(answered.flow.unheard)
                break
            answered, tail = again
        exchange.released = answered.flow.released(tail)
        exchange.left_out = answered.flow.left_out
        if isinstance(answered.flow, Flow) and (exchange.rounds or answered.flow.noted):
            exchange.unseen = _unseen(
                exchange, answered.flow, exchange.released or [], self._services.now_us()
            )
        return tail

    async def _retell(self) -> None:
        """Puts back into the history what its agent never saw of it; most runs have no such thing."""
        exchange, state = self._exchange, self._admitted.state
        if state is None or not state.marks & Mark.UNSEEN or exchange.caller is None:
            return
        run = RunKey(exchange.caller.agent.id, exchange.run_id)
        request = exchange.whole or redacted(exchange)
        told = await retold(exchange.dialect, request, self._services.unseen, run)
        if told is not None and await self._fits(told.added):
            exchange.told, exchange.prompt = told.request, None

    async def _fits(self, added: str) -> bool:
        """Whether the budgets have room for what a longer prompt costs, which is held then."""
        exchange, services, tries = self._exchange, self._services, self._admitted.tries
        if exchange.intake is None or exchange.intake.tokens is None:
            return True
        before = services.admission.worst(exchange, self._route, tries).amount()
        tokens = await services.reader.count(added, ways_of(self._route))
        exchange.earlier_tokens += tokens
        more = (services.admission.worst(exchange, self._route, tries).amount() - before).max(ZERO)
        if not counts_tokens(exchange.bounds) or await held_more(services.writer, exchange, more):
            return True
        exchange.earlier_tokens -= tokens
        return False

    def _sender(self, plan: Plan, *, hedges: bool = False) -> Sender:
        exchange, services = self._exchange, self._services

        def open_(step: Try, sink: AnySink, watching: Watching) -> Attempting:
            new_flow = self._new_flow
            return Attempting(exchange, step, services.upstreams, sink, self._compose, new_flow, watching)

        return Sender(exchange, self._sink, plan, open_, services.settler.lost, hedges=hedges)

    async def _sent(self, sender: Sender) -> tuple[Attempting, bytes]:
        """Who answered, and the tail of the reply."""
        exchange, services = self._exchange, self._services
        sent = False
        try:
            tail = await sender.send()
            sent = True
        finally:
            if sender.current is not None:
                exchange.last = sender.current.noted
            for attempt in sender.lost:
                exchange.lost.append(await services.settler.lost(exchange, attempt))
            for attempt in sender.carried_on:
                services.composer.seals.remember(attempt.flow.assembly.seals(), issuer(attempt.endpoint))
            if sender.current is not None and not sent:
                exchange.released = sender.current.flow.released(b"")
                exchange.broke_off = sender.current.flow.gave
        assert sender.current is not None
        services.composer.seals.remember(exchange.assembly.seals(), issuer(sender.current.endpoint))
        return sender.current, tail

    async def _again(self, answered: Attempting, flow: Flow) -> tuple[Attempting, bytes] | None:
        """The model's next reply; None where there is no room for it, or nobody gives one."""
        exchange, services = self._exchange, self._services
        route = self._able(answered)
        earlier_tokens, lost = exchange.earlier_tokens, len(exchange.lost)
        spent = await services.settler.finished(exchange)
        used = amount(total(spent, exchange.lost), requests=0)
        round_ = _round(answered, flow)
        notes = sum([len(note) for note in flow.unheard.values()])
        exchange.earlier_tokens += spent.usage.output + notes // 3 + 16 * len(flow.unheard)
        held = await held_again(services.writer, exchange, services.admission.worst(exchange, route), used)
        if held is None or not route.chain:
            exchange.earlier_tokens = earlier_tokens
            return None
        cap, so_far, before = self._cap, self._so_far, self._before
        if not held.capped and held.cap < services.admission.worst(exchange, route).cap:
            self._cap = min(held.cap, self._cap or held.cap)
        self._before, self._so_far = answered, tuple(flow.released(b"") or ())
        exchange.lost.append(replace(spent, heard=True))
        exchange.rounds.append(replace(round_, usage=spent.usage))
        exchange.assembly, exchange.last, exchange.released = Assembly(), None, list(self._so_far)
        plan = plan_of(services, exchange, route, prefer=answered.step.target.id)
        sender = self._sender(plan)
        try:
            return await self._sent(sender)
        except ProxyError as error:
            if error.kind in _OURS or exchange.broke_off:
                raise
        exchange.rounds.pop()
        del exchange.lost[lost]
        exchange.earlier_tokens, exchange.released = earlier_tokens, None
        self._cap, self._so_far, self._before = cap, so_far, before
        answered.adopt()
        exchange.last = answered.noted
        return None

    def _able(self, answered: Attempting) -> Resolved:
        """The route, with none but the caller's own dialect where bytes are joined."""
        flow = answered.flow
        assert isinstance(flow, Flow)
        if flow.output.onward() is not None:
            return self._route
        endpoints, dialect = self._services.upstreams.endpoints, self._exchange.dialect

        def serves(target: Target) -> bool:
            return spoken(dialect, endpoints[target.key]) is dialect

        return self._route.only(serves)

    def _compose(self, step: Try, endpoint: Endpoint, absent: Set[str]) -> Outgoing:
        services, exchange, model = self._services, self._exchange, step.target.model
        largest = services.admission.largest_output(endpoint.provider, model)
        outgoing = services.composer.compose(exchange, endpoint, model, self._cap, largest, absent)
        if self._joins_bytes and outgoing.dialect is not exchange.dialect:
            raise unsayable(exchange, endpoint)
        return outgoing

    @property
    def _joins_bytes(self) -> bool:
        before = self._before.flow if self._before else None
        return isinstance(before, Flow) and before.output.onward() is None

    def _new_flow(self, outgoing: Outgoing, sink: AnySink) -> AnyFlow:
        if self._exchange.dialect.raw:  # asked of the sink itself, which is a protocol, it would take 20 µs
            return RawFlow(outgoing.dialect, cast(RawSink, sink))
        exchange, allowance = self._exchange, self._allowance
        request = exchange.request
        assert request is not None
        if exchange.rounds:  # what is asked again is held as a whole
            allowance = None
        first = STRIDE * len(exchange.rounds)
        output = self._output(outgoing)
        if exchange.guard is not None and isinstance(output, Translated):
            output.guarded(exchange.guard)
        return Flow(
            *(outgoing.dialect, output, sink),
            _numbered(self._judge, first) if first else self._judge,
            judging=self._judging,
            request=request,
            resumes=outgoing.resumes,
            allowance=allowance.begin() if allowance else None,
            earlier=self._so_far,
            replans=self._replans(outgoing.dialect),
            takes_in=self._takes_in(outgoing.dialect),
        )

    def _takes_in(self, dialect: Dialect) -> Callable[[Assembly], Awaitable[None]] | None:
        """Takes in what the provider ran itself, before calls of the same reply are judged."""
        exchange, rules, services = self._exchange, self._rules, self._services
        if rules is None:
            return None
        told = dialect is exchange.dialect
        return partial(take_in, exchange, rules, writer=services.writer, now_us=services.now_us, told=told)

    def _output(self, outgoing: Outgoing) -> Output:
        """How the caller gets what a target says, behind what it has already."""
        exchange, upstream, resumes = self._exchange, outgoing.dialect, outgoing.resumes
        before = self._before.flow if self._before else None
        if isinstance(before, Flow):
            renderer = before.output.onward()
            if renderer is None:
                return Joined(upstream, b"".join(self._so_far), exchange.rounds, before.waiting())
            about = _about(exchange)
            waiting = before.waiting()
            return JoinedAnew(exchange.dialect, upstream, about, renderer, exchange.rounds, waiting)
        if upstream is exchange.dialect and not exchange.continues and exchange.guard is None:
            return Verbatim(upstream)
        if exchange.continues:
            left = resumes.left if resumes else None
            return Continuing(exchange.dialect, upstream, _about(exchange), left)
        return Translated(exchange.dialect, upstream, _about(exchange))

    def _replans(self, dialect: Dialect) -> Callable[[tuple[ToolCall, ...], Denied], bool] | None:
        """Decides whether the model is asked again; None where it never is."""
        rules, exchange = self._rules, self._exchange
        request = exchange.request
        assert request is not None
        if rules is None or rules.on_deny is not OnDeny.REPLAN or rules.mode is Mode.SHADOW:
            return None
        if request.n > 1 or request.tool_forced or len(exchange.rounds) >= _most(rules):
            return None
        onwards = dialect.onwards
        if onwards is None or exchange.dialect.onwards is None or dialect.translation is None:
            return None

        def decides(calls: tuple[ToolCall, ...], denied: Denied) -> bool:
            if exchange.client_gone or exchange.resumed is not None:
                return False
            every = all((call.choice, call.index) in denied and onwards.answers(call) for call in calls)
            return every and all(call.choice == 0 for call in calls)

        return decides


def _most(rules: Rules) -> int:
    return rules.engine.policy.file.max_replans


def _numbered(judge: Judge, first: int) -> Callable[[tuple[ToolCall, ...]], Awaitable[Denied]]:
    """The judge for a later round, whose calls count from `first`."""

    async def judged(calls: tuple[ToolCall, ...]) -> Denied:
        denied = await judge(tuple([structs.replace(call, index=call.index + first) for call in calls]))
        return {(choice, index - first): note for (choice, index), note in denied.items()}

    return judged


def _round(answered: Attempting, flow: Flow) -> Round:
    events = flow.said()
    turn = turn_of(events)
    return Round(
        dialect=answered.outgoing.dialect,
        emitted=flow.emitted,
        shown=flow.shown(),
        turn=turn,
        results=results_of(turn, flow.unheard),
        id=flow.assembly.id,
        usage=Usage(),
        whole=not flow.streamed,
        spoke=bool(flow.assembly.spoken()),
        parts=parts_of(events),
    )


def _unseen(exchange: Exchange, flow: Flow, released: Sequence[bytes], now_us: int) -> UnseenRow | None:
    """What the agent is not told of the reply that it got; None where it is told all."""
    streamed = exchange.request is not None and exchange.request.stream
    got = tuple(events_of(exchange.dialect, b"".join(released), streamed=streamed))
    text = "".join([event.text for event in got if isinstance(event, Text)])
    calls = _called(got)
    turn = turn_of(flow.said())
    proposed = [part for part in turn.parts if isinstance(part, CallPart)]
    places = [n for n, call in enumerate(flow.assembly.calls()) if (call.choice, call.index) in flow.noted]
    hidden = calls and len(proposed) == len(flow.assembly.calls())
    notes = [note for _, note in sorted(flow.noted.items())] if hidden else []
    own = _shown(exchange, [*flow.said(), *[Text(0, note) for note in flow.noted.values()]])
    unseen = Unseen(
        rounds=tuple([message for of in exchange.rounds for message in (of.turn, of.results)]),
        before=max(0, len("".join(text.split())) - len("".join(own.split()))) if exchange.rounds else 0,
        calls=tuple([(n, proposed[n]) for n in places]) if hidden else (),
        results=tuple(
            [
                ResultPart(call_id=proposed[n].id, parts=(TextPart(text=note),), custom=proposed[n].custom)
                for n, note in zip(places, notes, strict=True)
            ]
        )
        if hidden
        else (),
        note=_shown(exchange, [Text(0, "\n\n".join(notes))]),
    )
    body = encode(unseen)
    if len(body) > LONGEST or not (unseen.rounds or unseen.calls) or not (text.strip() or calls):
        return None
    assert exchange.caller is not None
    return UnseenRow(exchange.caller.agent.id, exchange.run_id, key_of(text, calls), body, now_us)


def _called(events: Sequence[Event]) -> list[Called]:
    """The calls among `events`, in order."""
    found: dict[tuple[int, int], Called] = {}
    for event in events:
        if isinstance(event, CallDelta):
            at = event.choice, event.index
            before = found.get(at, Called("", ""))
            found[at] = Called(before.id or event.id, before.arguments + event.arguments)
    return [call for call in found.values() if call.id]


def _shown(exchange: Exchange, events: Sequence[Event]) -> str:
    """The words among `events`, as the caller may read them."""
    seen = events if exchange.guard is None else masked(events, exchange.guard)
    return "".join([event.text for event in seen if isinstance(event, Text)])


def _about(exchange: Exchange) -> About:
    request = exchange.request
    assert request is not None
    return About(
        call_id=exchange.id,
        model=exchange.model,
        created=exchange.started_us // 1_000_000,
        include_usage=request.include_usage,
        request=request,
    )
