"""Which envelopes are granted: none wider than a limit that blocks, nor than what is left above."""

from __future__ import annotations

import pytest

from budgets import Amount, Counter, Limit, LimitBook, OnExceed, Refused, Scope, Subject, Unit, window_named
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.lineage import Lineage
from llm_proxy.identity.names import NameSet
from llm_proxy.runs.envelope import Envelope, bound_of
from llm_proxy.runs.exhausted import message_of, remainder
from llm_proxy.runs.grant import within_limits, within_parents, within_tools

BOOK = LimitBook(
    [
        Limit("bot-day", Scope(agent="bot"), window_named("day"), {Unit.USD: 5_000_000, Unit.REQUESTS: 100}),
        Limit("bot-month", Scope(agent="bot"), window_named("month"), {Unit.REQUESTS: 50}),
        Limit("per-run", Scope(agent="*"), window_named("run"), {Unit.TOOL_CALLS: 9}),
        Limit("crew", Scope(team="crew"), window_named("week"), {Unit.TOKENS: 1_000}),
        Limit("ada", Scope(user="ada"), window_named("day"), {Unit.WRITES: 2}),
        Limit("at-once", Scope(), window_named("at once"), {Unit.CONCURRENCY: 4}),
        Limit("soft", Scope(), window_named("day"), {Unit.OUTPUT_TOKENS: 10}, OnExceed.WARN),
        Limit("cheap", Scope(), window_named("day"), {Unit.INPUT_TOKENS: 10}, OnExceed.DOWNGRADE, "m2"),
        Limit("of-a-model", Scope(model="m"), window_named("day"), {Unit.OUTPUT_TOKENS: 10}),
        Limit("of-another", Scope(agent="other"), window_named("day"), {Unit.OUTPUT_TOKENS: 10}),
    ]
)
BOUNDS = BOOK.bounds(Subject(agent="bot", team="crew", user="ada", run="r"), 1_800_000_000_000_000)


@pytest.mark.parametrize(
    ("maximum", "limit", "said"),
    [
        ({Unit.USD: 5_000_001}, "bot-day", "$5.000001 is wider than limit 'bot-day', which allows $5.000000"),
        ({Unit.REQUESTS: 51}, "bot-month", "51 requests is wider than limit 'bot-month'"),
        ({Unit.TOOL_CALLS: 10}, "per-run", "allows 9 tool_calls (run)"),
        ({Unit.TOKENS: 1_001}, "crew", "allows 1,000 tokens (week)"),
        ({Unit.WRITES: 3}, "ada", "allows 2 writes (day)"),
        ({Unit.CONCURRENCY: 5}, "at-once", "allows 4 concurrency (at once)"),
    ],
)
def test_wider_than_a_limit_that_blocks(maximum: dict[Unit, int], limit: str, said: str) -> None:
    with pytest.raises(ProxyError) as refused:
        within_limits(Envelope(maximum=maximum), BOUNDS)
    [unit] = maximum
    assert refused.value.kind is Kind.POLICY_DENIED
    assert said in refused.value.message
    assert repr(limit) in refused.value.message
    assert refused.value.param == f"envelope.{unit.value}"
    assert not refused.value.retryable


def test_as_wide_as_the_limits_is_granted() -> None:
    most = {Unit.USD: 5_000_000, Unit.REQUESTS: 50, Unit.TOOL_CALLS: 9, Unit.TOKENS: 1_000}
    within_limits(Envelope(maximum={**most, Unit.WRITES: 2, Unit.CONCURRENCY: 4}), BOUNDS)
    within_limits(Envelope(), BOUNDS)


def test_limits_that_do_not_block_the_agent_bound_no_envelope() -> None:
    within_limits(Envelope(maximum={Unit.OUTPUT_TOKENS: 10**9, Unit.INPUT_TOKENS: 10**9}), BOUNDS)


def _above(**left: int) -> tuple[Lineage, dict[str, Counter]]:
    bound = bound_of("bot", "root", Envelope(maximum={Unit.REQUESTS: 10, Unit.USD: 100, Unit.CONCURRENCY: 2}))
    assert bound is not None
    used = Amount(requests=6, micro_usd=30, **left)
    held = Amount(requests=1, micro_usd=20, concurrency=2)
    return Lineage(envelopes=(bound,)), {bound.key: Counter(used, held)}


def test_no_wider_than_what_is_left_above() -> None:
    lineage, counters = _above()
    within_parents(Envelope(maximum={Unit.REQUESTS: 3, Unit.USD: 50, Unit.TOKENS: 10**9}), lineage, counters)
    for unit, most in ((Unit.REQUESTS, 4), (Unit.USD, 51)):
        with pytest.raises(ProxyError, match="left of the envelope of run 'root' above it") as refused:
            within_parents(Envelope(maximum={unit: most}), lineage, counters)
        assert refused.value.kind is Kind.POLICY_DENIED


def test_of_calls_at_once_all_is_left_above() -> None:
    lineage, counters = _above()
    within_parents(Envelope(maximum={Unit.CONCURRENCY: 2}), lineage, counters)
    with pytest.raises(ProxyError, match="3 concurrency"):
        within_parents(Envelope(maximum={Unit.CONCURRENCY: 3}), lineage, counters)


def test_an_envelope_that_was_never_used_is_left_whole() -> None:
    lineage, _ = _above()
    within_parents(Envelope(maximum={Unit.REQUESTS: 10}), lineage, {})
    with pytest.raises(ProxyError, match="10 requests"):
        within_parents(Envelope(maximum={Unit.REQUESTS: 11}), lineage, {})


@pytest.mark.parametrize(
    ("tools", "allowed", "refused"),
    [
        (("a", "b"), ["a", "b"], None),
        (("a", "c"), ["a", "b"], "c"),
        (("crm_read", "crm_*"), ["crm_*"], None),
        (("crm_read*",), ["crm_*"], None),
        (("*",), ["crm_*"], "*"),
        (("c*",), ["crm_*"], "c*"),
        (("*_read",), ["crm_*"], "*_read"),
        (("*",), ["*"], None),
        ((), [], None),
        (("a",), [], "a"),
    ],
)
def test_tools_are_among_those_above(tools: tuple[str, ...], allowed: list[str], refused: str | None) -> None:
    envelope = Envelope(tools=tools)
    if refused is None:
        within_tools(envelope, [(NameSet(allowed), "agent 'bot'")])
        return
    with pytest.raises(ProxyError) as error:
        within_tools(envelope, [(NameSet(["*"]), "nobody"), (NameSet(allowed), "agent 'bot'")])
    assert f"tool {refused!r} is not among those of agent 'bot'" in error.value.message
    assert error.value.kind is Kind.POLICY_DENIED


def _refused(unit: Unit, used: int, held: int, asked: int, maximum: int) -> Refused:
    return Refused("envelope:r", "k", unit, maximum, used, held, asked, None)


def test_what_is_left_of_each_unit_is_said() -> None:
    bound = bound_of("bot", "r", Envelope(maximum={Unit.USD: 500_000, Unit.REQUESTS: 3, Unit.TOOL_CALLS: 5}))
    assert bound is not None
    counter = Counter(Amount(micro_usd=100_000, requests=3, tool_calls=7), Amount(micro_usd=50_000))
    assert remainder(bound.limit, counter) == {Unit.USD: 350_000, Unit.REQUESTS: 0, Unit.TOOL_CALLS: 0}
    message = message_of(_refused(Unit.REQUESTS, 3, 0, 1, 3), bound.limit, counter)
    assert message == (
        "The envelope of run 'r' allows 3 requests: 3 used, 0 held by calls in flight, and this call may "
        "need 1. Left of it: $0.350000, 0 requests, 0 tool_calls. It does not reset: open another run with "
        "POST /v1/runs."
    )
    busy = message_of(_refused(Unit.USD, 100_000, 400_000, 50_000, 500_000), bound.limit, counter)
    assert "may be free in a moment: try again then, or lower max_completion_tokens." in busy
    spent = message_of(_refused(Unit.TOOL_CALLS, 5, 0, 0, 5), bound.limit, counter)
    assert "allows 5 tool_calls: 5 used, 0 held by calls in flight. Left" in spent
    at_once = message_of(_refused(Unit.CONCURRENCY, 0, 2, 1, 2), bound.limit, counter)
    assert "It frees as calls end: send fewer at once." in at_once
