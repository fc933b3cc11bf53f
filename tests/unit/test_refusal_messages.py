"""What a caller is told where a limit has no room: the words, the wait, and the headers."""

from __future__ import annotations

import re

import pytest

from budgets import (
    AT_ONCE,
    Bound,
    Left,
    Limit,
    LimitBook,
    OnExceed,
    Refused,
    Scope,
    Subject,
    Unit,
    window_named,
)
from llm_proxy.errors import Kind
from llm_proxy.exchange import Downgrade, Exchange
from llm_proxy.http.sinks import respond_error
from llm_proxy.reactions.refusal import duration, exceeded, span_text
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from routing.retry_after import retry_after_from
from tests.stores import NOW

SECOND = 1_000_000


def bound(window: str, unit: Unit = Unit.REQUESTS, most: int = 10, zone: str = "UTC") -> Bound:
    limit = Limit("daily", Scope(), window_named(window, zone), {unit: most}, OnExceed.BLOCK)
    (found,) = LimitBook([limit]).bounds(Subject("bot", run="r"), NOW)
    return found


def refused(
    unit: Unit = Unit.REQUESTS,
    *,
    used: int,
    held: int = 0,
    asked: int = 1,
    most: int = 10,
    resets_s: int | None,
) -> Refused:
    resets_us = None if resets_s is None else NOW + resets_s * SECOND
    return Refused("daily", "key", unit, most, used, held, asked, resets_us)


@pytest.mark.parametrize(
    ("case", "window", "wait_s", "retryable", "says"),
    [
        (refused(used=10, resets_s=60), "minute", 60, True, "allows 10 requests per minute: 10 used, 0 held"),
        (refused(used=10, resets_s=7200), "day", 7200, False, "(in 2 h). Wait, or ask an operator"),
        (refused(used=9, held=1, resets_s=7200), "day", 2, True, "may be free in a moment"),
        (refused(used=10, resets_s=None), "run", None, False, "does not reset. Start another run, or ask"),
        (refused(used=10, resets_s=None), "lifetime", None, False, "10 requests in all"),
        (
            refused(Unit.CONCURRENCY, used=0, held=10, resets_s=None),
            AT_ONCE,
            1,
            True,
            "allows 10 calls at once: 10 are in flight. It frees as these end.",
        ),
        (refused(Unit.TOKENS, used=1, asked=11, resets_s=60), "day", None, False, "more than it ever allows"),
        (
            refused(Unit.USD, used=4_200_000, held=500_000, asked=900_000, most=5_000_000, resets_s=61),
            "month",
            61,
            True,
            "allows $5.00 per month: $4.20 used, $0.50 held by calls in flight, $0.30 left, "
            "and this call may need $0.90. It resets at ",
        ),
        (refused(Unit.TOOL_CALLS, used=10, asked=0, resets_s=60), "hour", 60, True, "0 left. It resets at"),
        (refused(used=10, resets_s=1800), "24h", 1800, False, "10 requests in 24h"),
    ],
)
def test_the_message_says_what_stands_and_when_it_changes(
    case: Refused,
    window: str,
    wait_s: float | None,
    retryable: bool,
    says: str,
) -> None:
    error = exceeded(case, bound(window, case.unit, case.maximum), NOW)
    assert (error.kind, error.status) == (Kind.BUDGET_EXCEEDED, 429)
    assert says in error.message
    assert error.message.startswith("Budget 'daily' allows ")
    assert re.search(r"[.] [A-Z][^.]*[^.]\.$", error.message), "it ends in what to do"
    assert (error.retry_after_s, error.retryable) == (wait_s, retryable)


def test_the_reset_is_told_in_the_limits_own_zone() -> None:
    case = refused(used=10, resets_s=3600)
    assert "It resets at 2027-01-15 09:00:00 UTC (in 1 h)." in exceeded(case, bound("day"), NOW).message
    berlin = exceeded(case, bound("day", zone="Europe/Berlin"), NOW).message
    assert "It resets at 2027-01-15 10:00:00 Europe/Berlin (in 1 h)." in berlin
    assert "2027-01-15 09:00:00 UTC" in exceeded(case, None, NOW).message


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3_600, "1 h"), (3_661, "1 h 2 min"),
     (86_400, "1 d"), (90_000, "1 d 1 h")],
)  # fmt: skip
def test_a_span_in_words(seconds: float, text: str) -> None:
    assert span_text(seconds) == text


@pytest.mark.parametrize(
    ("us", "text", "seconds"),
    [(-1, "0s", 0), (0, "0s", 0), (1, "1s", 1), (59 * SECOND, "59s", 59), (360 * SECOND, "6m0s", 360),
     (3_600 * SECOND, "1h0m0s", 3_600), (86_399 * SECOND + 1, "24h0m0s", 86_400)],
)  # fmt: skip
def test_a_duration_is_written_as_openai_does(us: int, text: str, seconds: int) -> None:
    assert duration(us) == text
    if seconds:
        told = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": text}
        assert retry_after_from(told, 0.0) == seconds


async def headers_of(case: Refused, window: str) -> dict[str, str]:
    exchange = Exchange("id", NOW, OPENAI_CHAT, clock0=0.0)
    exchange.left = case.left
    exchange.downgraded = Downgrade(("a", "b"), "big", "small")
    sent: list[dict[str, object]] = []

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    await respond_error(exchange, send, exceeded(case, bound(window, case.unit, case.maximum), NOW))
    headers = sent[0]["headers"]
    assert isinstance(headers, list)
    return {name.decode(): value.decode() for name, value in headers}


async def test_a_refusal_has_the_headers_of_the_tightest_limits() -> None:
    left = (
        Left(Unit.REQUESTS, "daily", 10, 0, NOW + 90 * SECOND),
        Left(Unit.TOKENS, "other", 5_000, 17, None),
    )
    case = Refused("daily", "key", Unit.REQUESTS, 10, 10, 0, 1, NOW + 90 * SECOND, left)
    told = await headers_of(case, "day")
    assert {k: v for k, v in told.items() if k.startswith(("x-r", "retry", "x-should", "x-down"))} == {
        "retry-after": "90",
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m30s",
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": "17",
        "x-downgraded-by": "a, b",
    }


async def test_one_that_waiting_cannot_cure_says_so() -> None:
    told = await headers_of(refused(used=10, resets_s=None), "run")
    assert told["x-should-retry"] == "false"
    assert "retry-after" not in told
