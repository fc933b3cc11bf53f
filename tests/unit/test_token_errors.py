"""The measured error of counts: it rises at once, fades slowly, is capped, and outlives a failing store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.counting.error import ENOUGH, FADES, LEAST, MOST, Measured, TokenErrors, error_key, merged
from llm_proxy.counting.tokenizers import ONE

KEY = error_key("openai", "m")


def test_before_an_answer_a_count_stands_as_it_is_or_by_what_is_supposed() -> None:
    errors = TokenErrors()
    assert errors.raised(KEY, 1_000, ONE) == 1_000
    assert errors.raised(KEY, 1_001, 1_350_000) == 1_352


def test_one_answer_raises_it_at_once_and_none_lowers_it_below_the_count() -> None:
    errors = TokenErrors()
    assert errors.observe(KEY, 1_000, 1_200) == 1.2
    assert errors.raised(KEY, 1_000, ONE) == 1_200
    low = error_key("openai", "low")
    assert errors.observe(low, 1_000, 700) == 0.7
    assert errors.raised(low, 1_000, ONE) == 1_000
    assert errors.raised(error_key("other", "m"), 1_000, ONE) == 1_000


@pytest.mark.parametrize(("counted", "reported"), [(LEAST - 1, 500), (0, 500), (1_000, 0), (1_000, -1)])
def test_what_says_nothing_of_the_count_is_not_taken(counted: int, reported: int) -> None:
    errors = TokenErrors()
    assert errors.observe(KEY, counted, reported) is None
    assert errors.take() == {}


def test_what_was_supposed_holds_until_enough_answers_came() -> None:
    errors = TokenErrors()
    for _ in range(ENOUGH - 1):
        errors.observe(KEY, 1_000, 1_100)
    assert errors.factor(KEY, 1_350_000) == 1_350_000
    errors.observe(KEY, 1_000, 1_100)
    assert errors.factor(KEY, 1_350_000) == 1_100_000


def test_it_is_never_raised_without_end() -> None:
    errors = TokenErrors()
    errors.observe(KEY, 100, 10**12)
    assert errors.factor(KEY, ONE) == MOST


def test_the_worst_fades_towards_the_mean_and_not_below() -> None:
    errors = TokenErrors()
    errors.observe(KEY, 1_000, 2_000)
    before = errors.factor(KEY, ONE)
    for _ in range(FADES * 20):
        errors.observe(KEY, 1_000, 1_100)
        now = errors.factor(KEY, ONE)
        assert 1_100_000 <= now <= before
        before = now
    assert before < 1_110_000


@given(st.lists(st.integers(500_000, 4_000_000), min_size=2, max_size=40), st.data())
def test_rows_added_in_any_portions_have_the_same_answers_and_a_mean_within_rounding(
    ratios: list[int], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(ratios) - 1))

    def folded(some: list[int]) -> Measured:
        one = Measured(1, some[0], some[0])
        for ratio in some[1:]:
            one = one.then(ratio)
        return one

    whole, parts = folded(ratios), merged(folded(ratios[:cut]), folded(ratios[cut:]))
    mean = sum(ratios) // len(ratios)
    for one in (whole, parts):
        assert one.samples == len(ratios)
        assert abs(one.mean - mean) <= len(ratios)
        assert min(ratios) - len(ratios) <= one.mean <= one.worst <= max(ratios)


def test_what_is_taken_counts_meanwhile_and_comes_back_where_it_was_not_written() -> None:
    errors = TokenErrors()
    errors.observe(KEY, 1_000, 1_500)
    taken = errors.take()
    assert taken == {KEY: Measured(1, 1_500_000, 1_500_000)}
    assert errors.factor(KEY, ONE) == 1_500_000
    errors.observe(KEY, 1_000, 1_100)
    errors.keep()
    again = errors.take()
    assert (again[KEY].samples, again[KEY].mean) == (2, 1_300_000)
    assert 1_490_000 < again[KEY].worst < 1_500_000
    errors.hear({KEY: Measured(50, 1_200_000, 1_700_000)})
    assert (errors.take(), errors.factor(KEY, ONE)) == ({}, 1_700_000)
