"""How long replies are expected to be, from the last few hundred."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.counting.lengths import ENOUGH, LEAST, MOST, ReplyLengths


def heard(*tokens: int, key: str = "openai/m") -> ReplyLengths:
    lengths = ReplyLengths()
    for one in tokens:
        lengths.observe(key, one)
    return lengths


def test_nothing_is_expected_of_a_model_that_hardly_spoke() -> None:
    assert heard(*[2_000] * (ENOUGH - 1)).expected(["openai/m"]) is None
    assert heard(*[2_000] * ENOUGH).expected(["openai/m"]) == 2_000
    assert heard(*[2_000] * ENOUGH).expected(["openai/other"]) is None


def test_short_replies_are_expected_to_be_longer() -> None:
    assert heard(*[5] * ENOUGH).p99("openai/m") == 5
    assert heard(*[5] * ENOUGH).expected(["openai/m"]) == LEAST


@pytest.mark.parametrize(("count", "p99"), [(50, 50), (100, 99), (200, 198), (500, 495)])
def test_one_of_a_hundred_is_longer(count: int, p99: int) -> None:
    assert heard(*range(1, count + 1)).p99("openai/m") == p99


def test_the_longest_of_a_routes_targets_counts_and_those_unknown_dont() -> None:
    lengths = heard(*[2_000] * ENOUGH)
    for _ in range(ENOUGH):
        lengths.observe("openai/long", 9_000)
    lengths.observe("openai/new", 30_000)
    assert lengths.expected(["openai/m", "openai/long", "openai/new"]) == 9_000


@given(st.lists(st.integers(1, 40), min_size=ENOUGH, max_size=3 * MOST))
def test_the_last_replies_count_and_no_others(tokens: list[int]) -> None:
    last = sorted(tokens[-MOST:])
    p99 = heard(*tokens).p99("openai/m")
    assert p99 is not None
    assert sum(one > p99 for one in last) * 100 <= len(last)
    assert sum(one >= p99 for one in last) * 100 > len(last)


def test_callers_names_dont_fill_the_memory() -> None:
    lengths = ReplyLengths()
    for name in range(1_500):
        for _ in range(ENOUGH):
            lengths.observe(f"openai/{name}", 2_000)
    assert lengths.p99("openai/999") == 2_000
    assert lengths.p99("openai/1000") is None
