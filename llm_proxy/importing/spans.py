"""Money over a duration, as a budget over one of our windows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

from llm_proxy.importing.report import Notes
from llm_proxy.importing.source import Field

_MICRO = Decimal("0.000001")
_MOST_USD = Decimal(10**9)
_WORDS = {"hourly": "1h", "daily": "24h", "weekly": "7d", "monthly": "30d"}
_DURATION = re.compile(r"(\d{1,6})(mo|[smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "mo": 30 * 86_400}
_EXACT = {
    "1m": "minute",
    "60m": "hour",
    "1h": "hour",
    "24h": "day",
    "1d": "day",
    "7d": "week",
    "1w": "week",
    "30d": "month",
    "1mo": "month",
}
"""LiteLLM too begins these on the clock and calendar: a week on Monday, `30d` on the first of the month."""
_WINDOWS = (("minute", 60), ("hour", 3_600), ("day", 86_400), ("week", 604_800), ("month", 30 * 86_400))


@dataclass(frozen=True, slots=True)
class Limit:
    """`usd` is decimal text, to the micro-dollar."""

    usd: str
    window: str


@dataclass(frozen=True, slots=True)
class _Span:
    window: str
    share: Decimal = Decimal(1)
    """Of the money, for the window."""
    note: str = ""


def limit_of(
    money: Field, duration: Field | None, label: str, notes: Notes, spent: Decimal = Decimal(0)
) -> Limit | None:
    """The budget that comes nearest without ever allowing more; None where there is none. Speaks of both.

    `spent` is taken off where the budget is for ever: nothing else would remember it.
    """
    span = _span(duration)
    if money.number is None or money.number < 0 or span is None:
        for field in (money, duration):
            if field is not None:
                notes.unsupported(field, "is no amount over a duration such as 30d, 1h or 1mo")
        return None
    left = spent if span.window == "lifetime" else Decimal(0)
    usd = min(max(Decimal(str(money.number)) - left, Decimal(0)) * span.share, _MOST_USD)
    note = f"less the {left} USD that were spent" if left else span.note
    if note:
        notes.approximate(money, f"{label}.usd", note)
    else:
        notes.exact(money, f"{label}.usd")
    if duration is not None and span.note:
        notes.approximate(duration, f"{label}.window = {span.window}", span.note)
    elif duration is not None:
        notes.exact(duration, f"{label}.window = {span.window}")
    return Limit(_plain(usd), span.window)


def _span(duration: Field | None) -> _Span | None:
    if duration is None:
        return _Span("lifetime")
    text = (duration.text or "").strip().lower()
    text = _WORDS.get(text, text)
    if text in _EXACT:
        return _Span(_EXACT[text])
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not seconds:
        return None
    for window, length in _WINDOWS:
        if seconds <= length:
            return _Span(window, note=f"no window is {text} long: it is for each {window}, never more")
    share = Decimal(_WINDOWS[-1][1]) / seconds
    return _Span("month", share, f"no window is {text} long: that share of the amount for each month")


def _plain(usd: Decimal) -> str:
    text = f"{usd.quantize(_MICRO, ROUND_FLOOR):f}"
    return text.rstrip("0").rstrip(".")
