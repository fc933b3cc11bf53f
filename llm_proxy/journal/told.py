"""What the records of a call say: the bodies of its opening and of its closing."""

from __future__ import annotations

from msgspec import structs

from budgets import Amount
from llm_proxy.errors import Kind
from llm_proxy.exchange import Exchange
from llm_proxy.journal.replies import NOTHING, Stored
from llm_proxy.journal.rows import lost, parent_agent
from llm_proxy.records import bodies
from llm_proxy.records.view import Problem
from llm_proxy.wire.action import ACTION


def opened_body(exchange: Exchange, content: bodies.Content | None) -> bodies.Opened:
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
        parent_agent_id=parent_agent(exchange),
        run_inferred=exchange.run_inferred,
        tags=exchange.hints.tags,
        traceparent=exchange.hints.traceparent,
        user_verified=exchange.user_verified,
        actors=caller.actors if caller else (),
        asked_model=exchange.downgraded.asked if exchange.downgraded else "",
        downgraded_by=exchange.downgraded.limit if exchange.downgraded else "",
        content=content,
        held=units(exchange.held),
        floor=units(exchange.floor),
        bounds=tuple([bound.key for bound in exchange.bounds]) if holds else (),
        policy=exchange.policy,
        results=exchange.results,
        withheld=exchange.offer.withheld if exchange.offer else (),
    )


def closed_body(exchange: Exchange, stored: Stored = NOTHING) -> bodies.Closed:
    """`stored`: the content that ends with it."""
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
        lost_micro_usd=lost(exchange),
        topped_up=units(exchange.topped_up),
        price=spent.price,
        tier=spent.tier,
        requests=int(exchange.reached_upstream or exchange.answered_here),
        tools=() if exchange.decisions else tuple([call.name for call in exchange.assembly.calls()]),
        problem=_problem(exchange),
        upstream=_other_dialect(exchange),
        edits=stored.edits,
        edited=stored.edited,
        sent=stored.sent,
        dropped=exchange.dropped,
        pieces=stored.pieces,
        rounds=stored.rounds,
        emitted=stored.emitted,
        size=stored.size,
        released=stored.released,
        masked=stored.masked,
        left_out=(exchange.left_out or ()) if not stored.released else (),
    )


def _problem(exchange: Exchange) -> Problem | None:
    """As it is kept: what others say may quote what was said to them."""
    problem = exchange.problem
    if problem is None:
        return None
    if not exchange.keeps_content:
        return problem if problem.kind in _OURS else structs.replace(problem, message="")
    mask = exchange.record_mask
    masked = mask.text(problem.message) if mask is not None else None
    return problem if masked is None else structs.replace(problem, message=masked)


_OURS = frozenset(
    {Kind.POLICY_DENIED, Kind.BUDGET_EXCEEDED, Kind.RATE_LIMITED, Kind.MODEL_NOT_ALLOWED, Kind.AGENT_FROZEN}
    | {Kind.RUN_REQUIRED, Kind.RUN_ENDED, Kind.STORE_UNAVAILABLE, Kind.UPSTREAM_TIMEOUT}
)
"""Problems whose messages quote nothing of a request or a reply."""


def _other_dialect(exchange: Exchange) -> str:
    upstream = exchange.upstream
    return "" if upstream is None or upstream is exchange.dialect else upstream.name


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
