"""The refusal by an envelope, as its caller is told: what is used up, and what is left of all the rest."""

from __future__ import annotations

from dataclasses import replace

from budgets import Counter, Limit, Refused, SqlLedger, Unit
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.identity.lineage import ENVELOPE
from llm_proxy.runs.envelope import figure, told, told_all
from llm_proxy.runs.lookup import RunLookup

_CAPPED = frozenset({Unit.USD, Unit.TOKENS, Unit.OUTPUT_TOKENS})


async def explained(lookup: RunLookup, exchange: Exchange, error: ProxyError) -> ProxyError:
    """`error` itself, or, where it's an envelope that has no room, one that says what is left of it."""
    refused = exchange.refused
    if refused is None:
        return error
    bound = next((b for b in exchange.lineage.envelopes if b.key == refused.bound_key), None)
    if bound is None:
        return error
    key = bound.key
    try:
        counters = await lookup.ask(lambda connection: SqlLedger(connection.dialect).peek(connection, [key]))
    except ProxyError:
        return error
    message = message_of(refused, bound.limit, counters.get(key, Counter()))
    return replace(error, message=message)


def remainder(limit: Limit, counter: Counter) -> dict[Unit, int]:
    """What is left of each unit: never below 0, and what is held is not left."""
    return {
        unit: max(0, most - counter.used.get(unit) - counter.held.get(unit))
        for unit, most in limit.maximum.items()
    }


def message_of(refused: Refused, limit: Limit, counter: Counter) -> str:
    unit = refused.unit
    run = limit.id.removeprefix(ENVELOPE)
    used, held, asked = (figure(unit, n) for n in (refused.used, refused.held, refused.asked))
    stands = f"{used} used, {held} held by calls in flight"
    if refused.asked:
        stands += f", and this call may need {asked}"
    left = told_all(remainder(limit, counter))
    if unit is Unit.CONCURRENCY:
        when = "It frees as calls end: send fewer at once"
    elif refused.busy:
        when = "What is held may be free in a moment: try again then"
    else:
        when = "It does not reset: open another run with POST /v1/runs"
    lower = ", or lower max_completion_tokens" if unit in _CAPPED and refused.asked else ""
    allows = f"The envelope of run {run!r} allows {told(unit, refused.maximum)}: {stands}."
    return f"{allows} Left of it: {left}. {when}{lower}."
