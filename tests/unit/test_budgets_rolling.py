from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets import Limit, LimitBook, Rolling, Scope, Subject, Unit, WindowSpan, ended_us, window_named
from llm_proxy.config.values import known_window

NOW = 1_800_000_000_000_000  # 2027-01-15T08:00:00Z
SECOND = 1_000_000
NAMES = ["1m", "7m", "90m", "24h", "1d", "30d", "4w", "366d", "527040m"]


def rolling(name: str) -> Rolling:
    window = window_named(name, "Europe/Berlin")
    assert isinstance(window, Rolling)
    return window


def buckets(span: WindowSpan):
    assert span.buckets is not None
    return span.buckets


@pytest.mark.parametrize(
    ("name", "seconds", "bucket"),
    [
        ("1m", 60, 2),
        ("90m", 5_400, 169),
        ("24h", 86_400, 2_700),
        ("30d", 2_592_000, 81_000),
        ("1w", 604_800, 18_900),
    ],
)
def test_a_name_gives_a_length_and_buckets_of_its_32nd_part(name: str, seconds: int, bucket: int) -> None:
    window = rolling(name)
    assert (window.name, window.length_us, window.bucket_us) == (name, seconds * SECOND, bucket * SECOND)
    assert not window.per_run
    assert known_window(name) == name


@pytest.mark.parametrize("name", ["0m", "367d", "53w", "527041m", "8785h", "9999999w"])
def test_a_length_out_of_bounds_is_an_error_that_says_what_they_are(name: str) -> None:
    for check in (window_named, known_window):
        with pytest.raises(ValueError, match="1m to 366d"):
            check(name)


@pytest.mark.parametrize(
    "name", ["30", "d", "30s", "1.5h", "-1d", "+1d", "30D", "030d", " 30d", "30d ", "30d\n", "٣d", "dayy", ""]
)
def test_what_is_no_window_is_an_error_that_lists_all_kinds(name: str) -> None:
    with pytest.raises(ValueError, match=r"use one of minute, .*lifetime, or a rolling window such as 90m"):
        window_named(name)
    with pytest.raises(
        ValueError, match=r"must be one of minute, .*lifetime, or a rolling window such as 90m"
    ):
        known_window(name)


def test_a_misspelt_window_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'month'"):
        known_window("mounth")


@given(st.sampled_from(NAMES), st.integers(0, 4 * 10**15))
def test_the_buckets_that_count_cover_every_span_that_ends_in_the_present_one(name: str, now: int) -> None:
    window = rolling(name)
    span = window.span(now, None)
    around = buckets(span)
    length, bucket = window.length_us, window.bucket_us
    assert around.start_us % bucket == around.start_us % SECOND == 0
    assert around.start_us <= now < around.start_us + bucket == span.resets_us
    assert around.start_us - len(around.earlier) * bucket <= now - length
    counted_us = (len(around.earlier) + 1) * bucket
    assert length + bucket <= counted_us < length + 2 * bucket
    assert len(around.later) * bucket >= 10 * SECOND
    for step, key in enumerate(around.earlier, -len(around.earlier)):
        assert window.span(around.start_us + step * bucket, None).key == key
    for step, key in enumerate(around.later, 1):
        assert window.span(around.start_us + step * bucket, None).key == key
    assert list(around.earlier) == sorted(around.earlier)
    assert around.near == around.earlier[-len(around.later) :]


@given(st.sampled_from(NAMES), st.integers(0, 4 * 10**15))
def test_a_bucket_is_counted_until_it_leaves_and_no_longer(name: str, now: int) -> None:
    window = rolling(name)
    span = window.span(now, None)
    leaves = buckets(span).leaves_us()
    assert span.key in buckets(window.span(leaves - 1, None)).earlier
    assert span.key not in buckets(window.span(leaves, None)).earlier
    assert ended_us(f"limit|agent=a|{span.key}") == leaves


def test_later_buckets_reach_to_the_present_one_and_no_span_further() -> None:
    around = buckets(rolling("1m").span(NOW, None)).under("l|")
    assert around.later_by(NOW) == around.later == around.later_by(NOW - 5 * SECOND)
    assert around.later[-1] == "l|1m:2027-01-15T08:00:10Z"
    assert around.later_by(NOW + 3 * SECOND)[-1] == "l|1m:2027-01-15T08:00:12Z"
    assert around.later_by(NOW + 10**12)[-1] == "l|1m:2027-01-15T08:01:00Z"
    assert len(around.later_by(NOW + 10**12)) == 30


def test_a_bound_has_the_keys_of_all_buckets_and_follows_the_clock() -> None:
    book = LimitBook([Limit("l", Scope(agent="*", user="*"), window_named("1m"), {Unit.REQUESTS: 1})])
    [bound] = book.bounds(Subject("a", user="u"), NOW + 1)
    assert bound.key == "l|agent=a|user=u|1m:2027-01-15T08:00:00Z"
    assert bound.keys[0] == "l|agent=a|user=u|1m:2027-01-15T07:59:00Z"
    assert bound.keys[-1] == "l|agent=a|user=u|1m:2027-01-15T08:00:10Z"
    assert len(bound.keys) == 30 + 1 + 5
    assert bound.resets_us == NOW + 62 * SECOND
    [after] = book.bounds(Subject("a", user="u"), NOW + 2 * SECOND)
    assert after.key == "l|agent=a|user=u|1m:2027-01-15T08:00:02Z"
    assert book.bounds(Subject("a", user="u"), NOW + 1) == (bound,)


def test_keys_of_long_names_stay_of_one_counter_each() -> None:
    book = LimitBook([Limit("l", Scope(user="*"), window_named("1m"), {Unit.REQUESTS: 1})])
    [now] = book.bounds(Subject("a", user="u" * 900), NOW)
    [later] = book.bounds(Subject("a", user="u" * 900), NOW + 2 * SECOND)
    assert now.key in later.keys
    assert later.key in now.keys
    assert len(set(now.keys)) == len(now.keys)
    assert {len(key) for key in now.keys} == {500}
    assert ended_us(now.key) == NOW + 62 * SECOND


@pytest.mark.parametrize(
    ("window", "seconds"),
    [("minute", 60), ("hour", 3_600), ("day", None), ("week", None), ("month", None), ("lifetime", None)],
)
def test_when_the_span_of_a_key_is_over(window: str, seconds: int | None) -> None:
    span = window_named(window, "Asia/Kolkata").span(NOW + 30 * 60 * SECOND, None)
    expected = span.resets_us if seconds else None
    assert ended_us(f"l|agent=a|{span.key}") == expected


@pytest.mark.parametrize(
    "key",
    [
        "",
        "|",
        "l|run:minute",
        "l|run:1m:2027-01-15T08:00:00Z",
        "l|1m:",
        "l|minute:x",
        "l|hour:2027-01-15T08",
        "l|999d:2027-01-15T08:00:00Z",
        "l|at once",
    ],
)
def test_what_has_no_end_or_none_that_can_be_read_is_left_alone(key: str) -> None:
    assert ended_us(key) is None
