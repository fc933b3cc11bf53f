"""Turns an exchange into evidence: what is written when a call opens, is refused, and closes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import msgspec

from budgets import Amount
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.intake import Hole, Intake, cut
from llm_proxy.judge import denial_note, released
from llm_proxy.records import bodies
from llm_proxy.records.blobs import Addresser
from llm_proxy.records.evidence import (
    BlobDraft,
    CallClose,
    CallOpen,
    Draft,
    Evidence,
    PriceRow,
    RecordKind,
    ResponseRow,
    RunOpen,
    column,
)
from llm_proxy.records.responses import DeniedCall
from llm_proxy.records.view import Status
from llm_proxy.rounds import STRIDE
from llm_proxy.spend.rollup import Grouped, Proposed, refused_row, spend_row, tool_rows
from llm_proxy.telemetry.metrics import CallFacts
from llm_proxy.wire.action import ACTION
from llm_proxy.wire.openai_responses.continued import response_id

NOTHING_RELEASED = "-"


def opened(exchange: Exchange, *, begins: bool = True) -> Evidence:
    """What is committed, together with the hold, before the upstream is contacted.

    `begins`: the store may not have the run's row yet.
    """
    record = _draft(
        exchange, RecordKind.CALL_OPENED, exchange.started_us, bodies.encode(_opened_body(exchange))
    )
    return Evidence(
        records=(record,),
        blobs=exchange.intake.new if exchange.intake else (),
        opens=(_row(exchange, Status.OPEN),),
        runs=(_run(exchange),) if begins else (),
    )


def refused(exchange: Exchange, addresser: Addresser, now_us: int) -> Evidence:
    """A call that never opened: its content, and why it was refused, in one record."""
    blobs: list[BlobDraft] = list(exchange.intake.new) if exchange.intake else []
    opened_body = _opened_body(exchange)
    if exchange.intake is None and exchange.body:
        whole = bodies.Content(whole=addresser.draft(exchange.body, blobs).hex())
        opened_body = msgspec.structs.replace(opened_body, content=whole)
    closed_body = _closed_body(exchange, "", "")
    body = bodies.encode(bodies.Refused(opened=opened_body, closed=closed_body))
    problem = exchange.problem
    return Evidence(
        records=(_draft(exchange, RecordKind.CALL_REFUSED, now_us, body),),
        blobs=tuple(blobs),
        opens=(
            _row(exchange, Status.REFUSED)._replace(
                ended_us=now_us, attempts=0, micro_usd=0, error=problem.kind if problem else None
            ),
        ),
        runs=(_run(exchange),) if exchange.run_id and _may_begin(exchange) else (),
        spend=(refused_row(exchange.started_us, _grouped(exchange, "", "")),),
    )


def closed(
    exchange: Exchange, addresser: Addresser, now_us: int, prices: tuple[PriceRow, ...] = ()
) -> Evidence:
    """What is committed, together with the settlement, before the last byte is released.

    `prices`: those that the cost was counted with, as far as the store may not have them.
    """
    blobs: list[BlobDraft] = []
    came = exchange.emitted.getvalue()
    emitted = addresser.fresh(came, now_us, blobs).hex() if came else ""
    released = _released(exchange, addresser, now_us, blobs)
    sent = _sent(exchange, addresser, blobs)
    closed_body = _closed_body(exchange, emitted, released, sent)
    if exchange.resumed is not None:
        came = [(piece.dialect, piece.emitted, piece.chars) for piece in exchange.resumed.pieces]
        pieces = _pieces(came, addresser, now_us, blobs)
        closed_body = msgspec.structs.replace(closed_body, pieces=pieces)
    if exchange.rounds:
        came = [(round_.dialect.name, round_.emitted, 0) for round_ in exchange.rounds]
        closed_body = msgspec.structs.replace(closed_body, rounds=_pieces(came, addresser, now_us, blobs))
    body = bodies.encode(closed_body)
    close = _close_row(exchange, now_us)
    grouped = _grouped(exchange, close.target or "", close.provider or "")
    spend = spend_row(exchange.started_us, grouped, close)
    return Evidence(
        records=(_draft(exchange, RecordKind.CALL_CLOSED, now_us, body),),
        blobs=tuple(blobs),
        closes=(close,),
        responses=_kept(exchange),
        unseen=(exchange.unseen,) if exchange.unseen and exchange.status is Status.OK else (),
        spend=(spend,),
        tool_spend=tool_rows(spend, _proposed(exchange, closed_body.tools)),
        prices=prices,
    )


def facts(exchange: Exchange) -> CallFacts:
    """What the metrics count of a call that ended."""
    spent, caller = exchange.spent, exchange.caller
    return CallFacts(
        agent=caller.agent.id if caller else "",
        model=exchange.model if exchange.target else "",
        status=exchange.status.value,
        error=exchange.problem.kind if exchange.problem else "",
        usage=spent.usage if spent.label is not None else None,
        cost_micro_usd=spent.micro_usd,
        overhead_s=exchange.overhead_ms / 1000 if exchange.overhead_ms is not None else None,
        first_event_s=exchange.first_event_s,
        total_s=exchange.elapsed(),
        attempts=tuple(exchange.attempts),
        decisions=tuple(exchange.decisions),
    )


def units(amount: Amount) -> dict[str, int]:
    """The units of an amount that aren't zero, by name."""
    named = {
        "micro_usd": amount.micro_usd,
        "input_tokens": amount.input_tokens,
        "output_tokens": amount.output_tokens,
        "requests": amount.requests,
        "tool_calls": amount.tool_calls,
        "writes": amount.writes,
    }
    return {name: value for name, value in named.items() if value}


def _draft(exchange: Exchange, kind: RecordKind, at_us: int, body: bytes) -> Draft:
    agent = exchange.caller.agent.id if exchange.caller else None
    return Draft(kind, at_us, exchange.id, exchange.run_id or None, agent, body)


def _opened_body(exchange: Exchange) -> bodies.Opened:
    caller, request = exchange.caller, exchange.request
    # Nothing is held for an action, and its tool call is taken all the same.
    holds = not exchange.held.is_zero or exchange.dialect is ACTION
    return bodies.Opened(
        dialect=exchange.dialect.name,
        stream=request.stream if request else False,
        model=exchange.model,
        team=caller.agent.team if caller else "",
        role=caller.agent.role if caller else "",
        key_id=caller.key_id if caller else "",
        user_id=exchange.user_id,
        parent_run_id=exchange.parent_run_id,
        parent_agent_id=_parent_agent(exchange),
        run_inferred=exchange.run_inferred,
        tags=exchange.hints.tags,
        traceparent=exchange.hints.traceparent,
        user_verified=exchange.user_verified,
        actors=caller.actors if caller else (),
        asked_model=exchange.downgraded.asked if exchange.downgraded else "",
        downgraded_by=exchange.downgraded.limit if exchange.downgraded else "",
        content=_received(exchange, exchange.intake) if exchange.intake else None,
        held=units(exchange.held),
        floor=units(exchange.floor),
        bounds=tuple([bound.key for bound in exchange.bounds]) if holds else (),
        policy=exchange.policy,
        results=exchange.results,
        withheld=exchange.offer.withheld if exchange.offer else (),
    )


def _received(exchange: Exchange, intake: Intake) -> bodies.Content:
    if intake.whole is not None:
        return bodies.Content(whole=intake.whole.hex())
    return _content(exchange.body, intake.holes)


def _content(body: bytes, out: Sequence[Hole]) -> bodies.Content:
    """The body with every hole cut out; `archive.content.rebuild` puts them back."""
    envelope: list[bytes] = []
    at: list[tuple[int, str]] = []
    end = 0
    for hole in out:
        envelope.append(body[end : hole.start])
        at.append((hole.start, hole.id.hex()))
        end = hole.end
    envelope.append(body[end:])
    return bodies.Content(envelope=b"".join(envelope).decode(), holes=tuple(at))


def _sent(exchange: Exchange, addresser: Addresser, blobs: list[BlobDraft]) -> bodies.Content | None:
    """A translated body, its messages apart: an agent's history is stored once in each dialect."""
    if exchange.sent is None or exchange.upstream is None:
        return None
    try:
        request = exchange.upstream.parse(exchange.sent)
    except ProxyError:
        return bodies.Content(whole=addresser.draft(exchange.sent, blobs).hex())
    return _content(exchange.sent, cut(request, exchange.upstream, addresser, blobs).holes())


def _closed_body(
    exchange: Exchange, emitted: str, released: str, sent: bodies.Content | None = None
) -> bodies.Closed:
    spent = exchange.spent
    return bodies.Closed(
        status=exchange.status,
        target=exchange.target,
        provider=exchange.provider,
        server=exchange.server,
        served_model=exchange.served_model,
        attempts=tuple(exchange.attempts),
        first_event_s=exchange.first_event_s,
        total_s=round(exchange.elapsed(), 6),
        overhead_ms=exchange.overhead_ms,
        finish_reasons=exchange.assembly.finish_reasons(),
        usage=spent.usage if spent.label is not None else None,
        cost_micro_usd=spent.micro_usd,
        cost_label=spent.label or "",
        lost_micro_usd=_lost(exchange),
        topped_up=units(exchange.topped_up),
        price=spent.price,
        tier=spent.tier,
        requests=int(exchange.reached_upstream or exchange.answered_here),
        tools=() if exchange.decisions else tuple([call.name for call in exchange.assembly.calls()]),
        problem=exchange.problem,
        upstream=_other_dialect(exchange),
        edits=tuple(bodies.Edit(start, end, text.decode()) for start, end, text in exchange.edits),
        sent=sent,
        dropped=exchange.dropped,
        emitted=emitted,
        released=released,
        left_out=(exchange.left_out or ()) if exchange.released is None else (),
    )


def _lost(exchange: Exchange) -> int:
    """What attempts cost of which nothing came."""
    return sum([part.micro_usd for part in exchange.lost if not part.heard])


def _other_dialect(exchange: Exchange) -> str:
    upstream = exchange.upstream
    return "" if upstream is None or upstream is exchange.dialect else upstream.name


def _pieces(
    came: Iterable[tuple[str, io.BytesIO, int]], addresser: Addresser, now_us: int, blobs: list[BlobDraft]
) -> tuple[bodies.Piece, ...]:
    return tuple(
        bodies.Piece(
            dialect=dialect, emitted=addresser.fresh(emitted.getvalue(), now_us, blobs).hex(), chars=chars
        )
        for dialect, emitted, chars in came
    )


def _released(exchange: Exchange, addresser: Addresser, now_us: int, blobs: list[BlobDraft]) -> str:
    if exchange.released is None:
        return ""
    content = b"".join(exchange.released)
    return addresser.fresh(content, now_us, blobs).hex() if content else NOTHING_RELEASED


def _kept(exchange: Exchange) -> tuple[ResponseRow, ...]:
    """The reply as one that later requests may name, where its dialect has such a thing."""
    caller, request = exchange.caller, exchange.request
    named = exchange.dialect.keeps and exchange.status is Status.OK
    if not named or caller is None or request is None or not request.store:
        return ()
    rounds = exchange.rounds
    spoken = [exchange.upstream, *[round_.dialect for round_ in rounds]]
    anew = exchange.continues or exchange.guard is not None
    verbatim = all(dialect is exchange.dialect for dialect in spoken) and not anew
    id_ = exchange.assembly.id if verbatim else response_id(exchange.id)
    target = column(exchange.target)
    if verbatim and rounds and request.stream:
        # The agent knows the first reply's id, under which its vendor has no more than that one.
        id_, target = rounds[0].id, ""
    if not id_ or column(id_) != id_:
        return ()
    custom = {(call.choice, call.index) for call in exchange.assembly.calls() if call.custom}
    first = STRIDE * len(rounds)
    denied = tuple(
        DeniedCall(d.tool_call_id, (d.choice, d.index - first) in custom, denial_note(d))
        for d in exchange.decisions
        if not released(d) and d.index >= first
    )
    charged = exchange.assembly.usage is not None
    told = bodies.encode(denied).decode()
    model = column(exchange.model)
    return (ResponseRow(id_, caller.agent.id, exchange.id, model, target, charged, told),)


def _row(exchange: Exchange, status: Status) -> CallOpen:
    caller, request = exchange.caller, exchange.request
    return CallOpen(
        id=exchange.id,
        run_id=exchange.run_id,
        agent_id=caller.agent.id if caller else "",
        team=column(caller.agent.team, 128) if caller else "",
        user_id=exchange.user_id,
        key_id=caller.key_id if caller else "",
        dialect=exchange.dialect.name,
        stream=request.stream if request else False,
        model=column(exchange.model),
        status=status.value,
        started_us=exchange.started_us,
        tags=tags_of(exchange),
    )


def _grouped(exchange: Exchange, target: str, provider: str) -> Grouped:
    """What the call is summed up by: the same as in its row."""
    caller, request = exchange.caller, exchange.request
    return Grouped(
        caller.agent.id if caller else "",
        column(caller.agent.team, 128) if caller else "",
        exchange.user_id,
        column(request.model) if request else "",
        target,
        provider,
        tags_of(exchange),
    )


def _proposed(exchange: Exchange, unjudged: Sequence[str]) -> list[Proposed]:
    """The tool calls that were proposed, as the records have them."""
    if exchange.decisions:
        return [Proposed(decision.tool, not released(decision)) for decision in exchange.decisions]
    return [Proposed(tool) for tool in unjudged]


def tags_of(exchange: Exchange) -> str:
    """A call's tags as they're stored and summed up by: sorted, with commas between."""
    return column(",".join(sorted(exchange.hints.tags)), 8_192)


def _run(exchange: Exchange) -> RunOpen:
    assert exchange.caller is not None
    agent = exchange.caller.agent
    return RunOpen(
        agent_id=agent.id,
        run_id=exchange.run_id,
        parent_run_id=exchange.parent_run_id,
        team=column(agent.team, 128),
        user_id=exchange.user_id,
        role_at_start=column(agent.role, 128),
        inferred=exchange.run_inferred,
        started_us=exchange.started_us,
        parent_agent_id=_parent_agent(exchange),
        user_verified=exchange.user_verified,
    )


def _may_begin(exchange: Exchange) -> bool:
    """False where the run that it's to stand below could not be told: its first call fixes that for good."""
    return exchange.placed or not (exchange.parent_run_id or exchange.hints.run_token)


def _parent_agent(exchange: Exchange) -> str:
    """Whose run the parent is; empty where that is a trace link and no more."""
    ancestors = exchange.lineage.ancestors
    return ancestors[0].agent if ancestors else ""


def _close_row(exchange: Exchange, now_us: int) -> CallClose:
    spent = exchange.spent
    usage = spent.usage if spent.label is not None else None
    return CallClose(
        status=exchange.status.value,
        ended_us=now_us,
        target=exchange.target or None,
        provider=exchange.provider or None,
        attempts=len(exchange.attempts),
        input_tokens=usage.input if usage else None,
        output_tokens=usage.output if usage else None,
        cached_tokens=usage.cached if usage else None,
        cache_write_tokens=usage.cache_write if usage else None,
        reasoning_tokens=usage.reasoning if usage else None,
        micro_usd=spent.micro_usd,
        lost_micro_usd=_lost(exchange),
        cost_label=spent.label.value if spent.label else None,
        price=spent.price or None,
        error=exchange.problem.kind if exchange.problem else None,
        id=exchange.id,
    )
