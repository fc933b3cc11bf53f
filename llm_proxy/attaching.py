"""Receipts in a header of a whole reply, where the policy says so: one for each call that it releases."""

from __future__ import annotations

from urllib.parse import quote

from llm_proxy.exchange import Exchange
from llm_proxy.judge import Rules
from llm_proxy.receipts.issue import Committed, Receipts

MOST_CALLS = 8
MOST_BYTES = 8_000
"""Servers in between take headers of 8 KiB or 16 KiB in all."""


def attach_receipts(exchange: Exchange, rules: Rules | None, receipts: Receipts, now_us: int) -> None:
    """Sets what `x-receipts` says: `tool_call_id=receipt`, comma-separated, the ids percent-encoded.

    All of the reply's released calls or none: past `MOST_CALLS` or `MOST_BYTES` they're to be asked for.
    """
    assert exchange.request is not None
    if rules is None or exchange.request.stream or not rules.engine.policy.file.receipts:
        return
    released = [decision for decision in exchange.decisions if decision.released]
    if len(released) > MOST_CALLS:
        return
    assert exchange.caller is not None
    agent = exchange.caller.agent.id
    pairs: list[str] = []
    for decision in released:
        judged = Committed(agent, exchange.run_id, exchange.id, decision, decision.digest, now_us)
        if (token := receipts.receipt(judged, now_us)) is not None:
            pairs.append(f"{quote(decision.tool_call_id, safe='')}={token}")
    told = ", ".join(pairs)
    exchange.receipts = told if len(told) <= MOST_BYTES else ""
