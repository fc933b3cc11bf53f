"""How long an upstream asks us to wait: `Retry-After` and the vendors' own reset headers, as seconds.

Sources: RFC 9110 section 10.2.3; OpenAI `retry-after-ms`, `x-ratelimit-reset-*` (Go durations such as
`6m0s`, `20ms`); Anthropic `anthropic-ratelimit-*-reset` (RFC 3339).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?\Z")
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RESETS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
)


def parse_retry_after(value: str, now_epoch_s: float) -> float | None:
    """Seconds to wait from a `Retry-After` value (seconds or HTTP date); None where it says neither.

    A date in the past is 0.
    """
    value = value.strip()
    if _NUMBER.match(value):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
        return _until(when, now_epoch_s)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def retry_after_from(headers: Mapping[str, str], now_epoch_s: float) -> float | None:
    """Seconds to wait from a reply's headers (lower-case names, or a case-insensitive mapping).

    `retry-after-ms` is finer than `retry-after`, so it goes first. Reset headers count only where their
    `remaining` twin is 0; of several, the longest wait.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _NUMBER.match(milliseconds):
        return float(milliseconds) / 1000
    asked = parse_retry_after(headers.get("retry-after", ""), now_epoch_s)
    if asked is not None:
        return asked
    resets = [
        wait
        for remaining, reset in _RESETS
        if headers.get(remaining, "").strip() == "0"
        and (wait := _parse_reset(headers.get(reset, "").strip(), now_epoch_s)) is not None
    ]
    return max(resets, default=None)


def _parse_reset(value: str, now_epoch_s: float) -> float | None:
    if _NUMBER.match(value):
        return float(value)
    parts = _DURATION.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    try:
        return _until(datetime.fromisoformat(value), now_epoch_s)
    except (ValueError, OverflowError):
        return None


def _until(when: datetime, now_epoch_s: float) -> float:
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, aware.timestamp() - now_epoch_s)
