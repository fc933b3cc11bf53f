"""A refusal by a limit, as its caller is told: what is used, held and left, and when that changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from budgets import AT_ONCE, Bound, Refused, Unit
from llm_proxy.errors import Kind, ProxyError

BUSY_S = 2.0
"""When to ask again where only calls in flight stand in the way: most end sooner than that."""
AT_ONCE_S = 1.0
_WORTH_WAITING_S = 120.0
"""SDKs that retry by themselves wait no longer; they are told not to try."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ASK = "ask an operator to raise it"


def exceeded(refused: Refused, bound: Bound | None, now_us: int) -> ProxyError:
    """The error `budget_exceeded` for what the ledger refused. `bound` is the limit as it bound the call."""
    wait, when, todo = _when(refused, bound, now_us)
    unit = "" if refused.unit is Unit.USD else f" {refused.unit.value}"
    if refused.unit is Unit.CONCURRENCY:
        allows = f"{refused.maximum:,} calls at once: {refused.held:,} are in flight"
    else:
        allows = f"{shown(refused.unit, refused.maximum)}{unit}{_over(bound)}: {_stands(refused)}"
    return ProxyError(
        Kind.BUDGET_EXCEEDED,
        f"Budget {refused.limit_id!r} allows {allows}. {when} {todo}",
        retry_after_s=wait,
        retryable=wait is not None and wait <= _WORTH_WAITING_S,
    )


def shown(unit: Unit, amount: int) -> str:
    """An amount as people read it; money in dollars."""
    if unit is not Unit.USD:
        return f"{amount:,}"
    whole, _, parts = f"{amount / 1e6:,.6f}".partition(".")
    return f"${whole}.{parts.rstrip('0'):0<2}"


def reset_at(resets_us: int, bound: Bound | None) -> str:
    """A moment in the limit's own time zone, to the second."""
    zone: tzinfo = getattr(bound.limit.window, "zone", UTC) if bound is not None else UTC
    local = (_EPOCH + timedelta(microseconds=resets_us)).astimezone(zone)
    name = getattr(zone, "key", None) or "UTC"
    return f"{local:%Y-%m-%d %H:%M:%S} {name}"


def span_text(seconds: float) -> str:
    """A span in its two largest units, as in `3 h 12 min`; never less than it is."""
    left = max(1, -int(-seconds // 1))
    for size, name, smaller, small in _SPANS:
        if left >= size:
            rest = -(-(left % size) // smaller)
            return f"{left // size} {name} {rest} {small}" if rest else f"{left // size} {name}"
    return f"{left} s"


def duration(us: int) -> str:
    """A span as OpenAI's headers have it, a duration of Go in whole seconds: `1s`, `6m0s`, `23h59m59s`."""
    seconds = max(0, -(-us // 1_000_000))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


_SPANS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def _over(bound: Bound | None) -> str:
    if bound is None:
        return ""
    name = bound.limit.window.name
    match name:
        case "run":
            return " per run"
        case "lifetime":
            return " in all"
        case _ if name == AT_ONCE:
            return ""
        case _ if name[0].isdigit():
            return f" in {name}"
        case _:
            return f" per {name}"


def _stands(refused: Refused) -> str:
    used, held, asked = (shown(refused.unit, n) for n in (refused.used, refused.held, refused.asked))
    left = shown(refused.unit, max(0, refused.maximum - refused.used - refused.held))
    told = f"{used} used, {held} held by calls in flight, {left} left"
    return f"{told}, and this call may need {asked}" if refused.asked else told


def _when(refused: Refused, bound: Bound | None, now_us: int) -> tuple[float | None, str, str]:
    """Seconds to wait, None where waiting is no use; when there will be room; and what to do."""
    if refused.unit is Unit.CONCURRENCY:
        return AT_ONCE_S, "It frees as these end.", "Try again in a moment, or send fewer calls at once."
    ways = ["lower max_completion_tokens", _ASK] if refused.unit in _CAPPED else [_ASK]
    if refused.asked > refused.maximum:
        return None, "That is more than it ever allows.", _todo("Send less", ways)
    if refused.busy:
        return BUSY_S, "What is held may be free in a moment.", _todo(f"Try again in {BUSY_S:g} s", ways)
    if refused.resets_us is None:
        of_run = bound is not None and bound.limit.window.per_run
        return None, "It does not reset.", _todo("Start another run" if of_run else "", ways)
    wait = max(1.0, (refused.resets_us - now_us) / 1e6)
    when = f"It resets at {reset_at(refused.resets_us, bound)} (in {span_text(wait)})."
    return wait, when, _todo("Wait", ways)


def _todo(first: str, ways: list[str]) -> str:
    *others, last = [first, *ways] if first else ways
    text = f"{', '.join(others)}, or {last}." if others else f"{last}."
    return text[0].upper() + text[1:]


_CAPPED = frozenset({Unit.USD, Unit.TOKENS, Unit.OUTPUT_TOKENS})
