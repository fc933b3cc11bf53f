"""What one call adds to the daily sums. Pure: from the call's own row, so that the two can't disagree."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from llm_proxy.records.columns import column
from llm_proxy.records.evidence import CallClose, SpendRow, ToolSpendRow
from llm_proxy.records.view import CostLabel, Status

DAY_US = 86_400_000_000
MEASURES = tuple(SpendRow._field_defaults)
"""What is added up, in the order of the columns."""
TOOL_MEASURES = tuple(ToolSpendRow._field_defaults)
MOST_TOOLS = 64
"""Tools of one call that are told apart; what comes after is `OTHER_TOOLS`."""
OTHER_TOOLS = "(other tools)"

FAILED = frozenset({Status.FAILED.value, Status.CUT.value, Status.INTERRUPTED.value})
GUESSED = frozenset({CostLabel.ESTIMATED.value, CostLabel.PARTIAL.value})
_REMEMBERED = 8_192


class Grouped(NamedTuple):
    """By what a call's spending is summed up; the order is that of the columns. As `state_calls` has it."""

    agent_id: str
    team: str
    user_id: str
    model: str
    target: str
    provider: str
    tags: str


class Proposed(NamedTuple):
    """A tool call that a model proposed, and whether it was denied."""

    tool: str
    denied: bool = False


@lru_cache(maxsize=_REMEMBERED)
def digest(by: tuple[str, ...]) -> bytes:
    """The 16 bytes that stand for a combination of columns within a day."""
    return blake2b(msgspec.msgpack.encode(by), digest_size=16).digest()


def spend_row(started_us: int, by: Grouped, close: CallClose) -> SpendRow:
    """A call that ended, as its closing row has it. Its day is the UTC day of its start."""
    status, label, money = close.status, close.cost_label, close.micro_usd
    return SpendRow(
        started_us // DAY_US,
        digest(by),
        *by,
        1,
        int(status == Status.REFUSED),
        int(status in FAILED),
        int(close.attempts > 1),
        int(label == CostLabel.UNPRICED),
        close.input_tokens or 0,
        close.output_tokens or 0,
        close.cached_tokens or 0,
        close.cache_write_tokens or 0,
        close.reasoning_tokens or 0,
        money,
        close.lost_micro_usd,
        money if label in GUESSED else 0,
    )


def refused_row(started_us: int, by: Grouped) -> SpendRow:
    """A call that was refused before anything was held for it."""
    return SpendRow(started_us // DAY_US, digest(by), *by, requests=1, refused=1)


def tool_rows(call: SpendRow, proposed: Sequence[Proposed]) -> tuple[ToolSpendRow, ...]:
    """A row per tool that the call proposed: its share of the call's tokens and money.

    Every tool call has the same share, and the first has what is left over, so that the rows add up to the
    call. The first also counts the call. Nothing for a call that proposed none.
    """
    if not proposed:
        return ()
    shares: dict[str, list[int]] = {}
    for tool, denied in proposed:
        name = column(tool)
        if name not in shares and len(shares) >= MOST_TOOLS:
            name = OTHER_TOOLS
        share = shares.setdefault(name, [0, 0])
        share[0] += 1
        share[1] += denied
    parts = [
        divmod(whole, len(proposed)) for whole in (call.input_tokens, call.output_tokens, call.micro_usd)
    ]
    by = (call.agent_id, call.team, call.user_id, call.model, call.target, call.provider, call.tags)
    rows: list[ToolSpendRow] = []
    for tool, (calls, denied) in shares.items():
        first = not rows
        money = [each * calls + (rest if first else 0) for each, rest in parts]
        rows.append(ToolSpendRow(call.day, digest((*by, tool)), *by, tool, int(first), calls, denied, *money))
    return tuple(rows)
