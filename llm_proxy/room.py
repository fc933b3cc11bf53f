"""Money for asking a model once more within one call: what its hold has left, and more where need be."""

from __future__ import annotations

from msgspec import structs

from budgets import ZERO, Amount, Held, Refused, TopUp
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.quote import Quote
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.writer import Writer

_SHRINKS = 4


async def held_again(writer: Writer, exchange: Exchange, worst: Quote, used: Amount) -> Quote | None:
    """Holds what asking once more may cost, beyond the `used` so far: as a whole, or made to fit.

    None where there is no room, or nobody can tell. What the hold set aside and was not used is taken first.
    """
    asked = worst
    for _ in range(_SHRINKS + 1):
        more = _beyond(asked, used, exchange.held)
        outcome = await _topped_up(writer, exchange, more)
        if isinstance(outcome, Held):
            exchange.held += more
            exchange.topped_up += more
            return asked
        if outcome is None:
            return None
        left_over = (exchange.held - used).max(ZERO).get(outcome.unit)
        smaller = asked.shrunk(structs.replace(outcome, held=outcome.held - left_over))
        if smaller is None:
            return None
        asked = smaller
    return None


async def held_more(writer: Writer, exchange: Exchange, more: Amount) -> bool:
    """Holds `more` for a call as it stands; False where there is no room, or nobody can tell."""
    if not isinstance(await _topped_up(writer, exchange, more), Held):
        return False
    exchange.held += more
    exchange.topped_up += more
    return True


def _beyond(asked: Quote, used: Amount, held: Amount) -> Amount:
    """What has to be held on top. The call itself counts as the one request that it is."""
    needed = structs.replace(asked.amount(), requests=0, concurrency=0) + used
    return (needed - structs.replace(held, requests=0, concurrency=0)).max(ZERO)


async def _topped_up(writer: Writer, exchange: Exchange, more: Amount) -> Held | Refused | None:
    if more.is_zero:
        return Held(left=exchange.left)
    job = Job(lambda found: Wrote(found.results[0]), ops=(TopUp(exchange.id, exchange.bounds, more),))
    try:
        outcome = await writer.submit(job)
    except ProxyError:
        return None
    return outcome if isinstance(outcome, Held | Refused) else None
