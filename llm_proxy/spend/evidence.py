"""What the records of one call say that it cost, and where that must have been counted."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from llm_proxy.chat.events import Usage
from llm_proxy.records.evidence import RecordKind, SpendRow
from llm_proxy.records.view import Status
from llm_proxy.spend.rollup import Proposed

LEDGER = ("micro_usd", "tokens", "input_tokens", "output_tokens", "requests", "tool_calls", "writes")
"""Units that the ledger counts as used, by their field."""


class _Opened(msgspec.Struct, frozen=True):
    bounds: tuple[str, ...] = ()


class _Decision(msgspec.Struct, frozen=True):
    tool: str
    decision: str
    effect: str = "read"
    shadow: bool = False

    @property
    def released(self) -> bool:
        return self.decision == "allow" or self.shadow


class _Verdicts(msgspec.Struct, frozen=True):
    decisions: tuple[_Decision, ...]


class _Closed(msgspec.Struct, frozen=True):
    status: str
    usage: Usage | None = None
    cost_micro_usd: int = 0
    cost_label: str = ""
    lost_micro_usd: int = 0
    requests: int = 0
    tools: tuple[str, ...] = ()


class _Refused(msgspec.Struct, frozen=True):
    closed: _Closed


_opened = msgspec.json.Decoder(_Opened).decode
_verdicts = msgspec.json.Decoder(_Verdicts).decode
_closed = msgspec.json.Decoder(_Closed).decode
_refused = msgspec.json.Decoder(_Refused).decode


class Proven(msgspec.Struct, frozen=True):
    """What a call's records prove. `ended` is false where it has no closing record yet."""

    ended: bool
    status: str
    figures: dict[str, int | str]
    """By column of `state_calls`: what its row must say."""
    counters: tuple[str, ...]
    """The keys of the counters that it counts in."""
    used: tuple[int, ...]
    """What it counts there, in the order of `LEDGER`."""
    proposed: tuple[Proposed, ...]

    def spend(self, day: int) -> SpendRow:
        """The call as the daily sums have it, as far as it's shared among tools."""
        usage = (int(self.figures["input_tokens"]), int(self.figures["output_tokens"]))
        return SpendRow(
            day,
            *(b"", "", "", "", "", "", "", ""),
            input_tokens=usage[0],
            output_tokens=usage[1],
            micro_usd=int(self.figures["micro_usd"]),
        )


def proven(records: Iterable[tuple[str, bytes]]) -> Proven:
    """From the records of one call, (kind, body), in their order. Raises `msgspec.DecodeError`."""
    bounds: tuple[str, ...] = ()
    last: tuple[_Decision, ...] = ()
    closed: _Closed | None = None
    tool_calls = writes = 0
    for kind, body in records:
        match kind:
            case RecordKind.CALL_OPENED:
                bounds = _opened(body).bounds
            case RecordKind.VERDICTS:
                last = _verdicts(body).decisions
                tool_calls += sum(decision.released for decision in last)
                writes += sum(decision.released and decision.effect != "read" for decision in last)
            case RecordKind.CALL_CLOSED:
                closed = _closed(body)
            case RecordKind.CALL_REFUSED:
                closed = _refused(body).closed
            case _:
                pass
    end = closed or _Closed(Status.OPEN)
    usage = end.usage or Usage()
    used = (end.cost_micro_usd, usage.input + usage.output, usage.input, usage.output, end.requests)
    return Proven(
        ended=closed is not None,
        status=end.status,
        figures={
            "status": end.status,
            "cost_label": end.cost_label,
            "micro_usd": end.cost_micro_usd,
            "lost_micro_usd": end.lost_micro_usd,
            "input_tokens": usage.input,
            "output_tokens": usage.output,
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
            "reasoning_tokens": usage.reasoning,
        },
        counters=tuple(dict.fromkeys(bounds)),
        used=(*used, tool_calls, writes),
        proposed=_proposed(end, last),
    )


def _proposed(end: _Closed, judged: tuple[_Decision, ...]) -> tuple[Proposed, ...]:
    """As `journal` counts them: what died in the middle is nobody's tool."""
    if end.status == Status.INTERRUPTED:
        return ()
    if end.tools:
        return tuple(map(Proposed, end.tools))
    return tuple(Proposed(decision.tool, not decision.released) for decision in judged)
