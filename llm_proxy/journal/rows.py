"""The rows beside a call's records: the call as listings show it, its run, what it is summed up by."""

from __future__ import annotations

from collections.abc import Sequence

from llm_proxy.exchange import Exchange
from llm_proxy.judge import denial_note, released
from llm_proxy.records import bodies
from llm_proxy.records.columns import column
from llm_proxy.records.evidence import CallClose, CallOpen, ResponseRow, RunOpen
from llm_proxy.records.responses import DeniedCall
from llm_proxy.records.view import Status
from llm_proxy.rounds import STRIDE
from llm_proxy.spend.rollup import Grouped, Proposed
from llm_proxy.wire.openai_responses.continued import response_id


def call_row(exchange: Exchange, status: Status) -> CallOpen:
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


def run_row(exchange: Exchange) -> RunOpen:
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
        parent_agent_id=parent_agent(exchange),
        user_verified=exchange.user_verified,
    )


def close_row(exchange: Exchange, now_us: int) -> CallClose:
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
        lost_micro_usd=lost(exchange),
        cost_label=spent.label.value if spent.label else None,
        price=spent.price or None,
        error=exchange.problem.kind if exchange.problem else None,
        id=exchange.id,
    )


def response_rows(exchange: Exchange) -> tuple[ResponseRow, ...]:
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


def grouped(exchange: Exchange, target: str, provider: str) -> Grouped:
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


def proposed(exchange: Exchange, unjudged: Sequence[str]) -> list[Proposed]:
    """The tool calls that were proposed, as the records have them."""
    if exchange.decisions:
        return [Proposed(decision.tool, not released(decision)) for decision in exchange.decisions]
    return [Proposed(tool) for tool in unjudged]


def tags_of(exchange: Exchange) -> str:
    """A call's tags as they're stored and summed up by: sorted, with commas between."""
    return column(",".join(sorted(exchange.hints.tags)), 8_192)


def may_begin(exchange: Exchange) -> bool:
    """False where the run that it's to stand below could not be told: its first call fixes that for good."""
    return exchange.placed or not (exchange.parent_run_id or exchange.hints.run_token)


def parent_agent(exchange: Exchange) -> str:
    """Whose run the parent is; empty where that is a trace link and no more."""
    ancestors = exchange.lineage.ancestors
    return ancestors[0].agent if ancestors else ""


def lost(exchange: Exchange) -> int:
    """What attempts cost of which nothing came."""
    return sum([part.micro_usd for part in exchange.lost if not part.heard])
