"""Rolling windows: any span of the length, over memory, a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import pytest

from budgets import (
    ZERO,
    Amount,
    Bound,
    Counter,
    Held,
    LedgerStore,
    Left,
    LimitBook,
    OnExceed,
    Refused,
    Settle,
    Settled,
    Take,
    Taken,
    TopUp,
    Unit,
    counted,
    remaining,
)
from tests.contract.ledgers import NOW as ROUND
from tests.contract.ledgers import ONE, Watching, bounds_of, hold, limit
from tests.contract.ledgers import store as store
from tests.contract.ledgers import watching as watching

pytest_plugins = ["tests.postgres"]

SECOND = 1_000_000
MINUTE = 60 * SECOND
BUCKET = 2 * SECOND
NOW = ROUND + SECOND
"""In the middle of a bucket: one of a minute's window lasts 2 s and begins at an even second."""
EASED = MINUTE + BUCKET
"""From a bucket's beginning until it counts no more."""


def rolling(now_us: int, window: str = "1m", **maximum: int) -> tuple[Bound, ...]:
    return bounds_of(limit("daily", window, OnExceed.BLOCK, None, **maximum), now_us=now_us)


def test_what_was_used_counts_for_the_whole_length_and_then_no_more(store: LedgerStore) -> None:
    store.apply([hold("a", rolling(NOW, requests=2)), Settle("a", ONE)], NOW)
    later = NOW + 30 * SECOND
    assert isinstance(store.apply([hold("b", rolling(later, requests=2))], later)[0], Held)
    last = NOW + MINUTE - 1
    [refused] = store.apply([hold("c", rolling(last, requests=2))], last)
    assert isinstance(refused, Refused)
    assert (refused.used, refused.held, refused.maximum) == (1, 1, 2)
    assert refused.resets_us == ROUND + EASED
    early = ROUND + EASED - 1
    assert isinstance(store.apply([hold("d", rolling(early, requests=2))], early)[0], Refused)
    eased = ROUND + EASED
    assert isinstance(store.apply([hold("e", rolling(eased, requests=2))], eased)[0], Held)


def test_a_refusal_says_when_enough_of_the_oldest_has_left(store: LedgerStore) -> None:
    for second in (0, 10, 20):
        now = NOW + second * SECOND
        store.apply(
            [hold(f"h{second}", rolling(now, tokens=300)), Settle(f"h{second}", Amount(tokens=100))], now
        )
    now = NOW + 30 * SECOND
    for tokens, second in [(1, 0), (100, 0), (101, 10), (201, 20), (999, 20)]:
        [refused] = store.apply(
            [hold(f"t{tokens}", rolling(now, tokens=300), Amount(tokens=tokens), ZERO)], now
        )
        assert isinstance(refused, Refused)
        assert refused.resets_us == ROUND + second * SECOND + EASED, tokens
        assert refused.left == (Left(Unit.TOKENS, "daily", 300, 0, ROUND + EASED),)


def test_what_is_left_says_when_the_first_of_it_leaves(store: LedgerStore) -> None:
    bounds = rolling(NOW, requests=5, tokens=1_000)
    [held] = store.apply([hold("a", bounds, ONE)], NOW)
    now = NOW + 20 * SECOND
    bounds = rolling(now, requests=5, tokens=1_000)
    [held] = store.apply([hold("b", bounds, Amount(requests=1, tokens=10), ONE)], now)
    expected = (
        Left(Unit.REQUESTS, "daily", 5, 3, ROUND + EASED),
        Left(Unit.TOKENS, "daily", 1_000, 990, ROUND + 20 * SECOND + EASED),
    )
    assert held == Held(expected)
    counters = store.peek(bounds[0].keys)
    assert remaining(bounds, counters) == expected
    assert counted(bounds[0], counters) == Counter(held=Amount(requests=2, tokens=10))


def test_a_hold_settles_in_the_bucket_in_which_it_was_taken(store: LedgerStore) -> None:
    first = rolling(NOW, requests=1)
    store.apply([hold("a", first)], NOW)
    late = NOW + 50 * SECOND
    assert isinstance(store.apply([Settle("a", ONE)], late)[0], Settled)
    assert store.peek([first[0].key]) == {first[0].key: Counter(used=ONE)}
    eased = ROUND + EASED
    assert isinstance(store.apply([hold("b", rolling(eased, requests=1))], eased)[0], Held)


def test_what_a_call_takes_late_counts_with_it_and_passes_no_maximum_of_any_span(store: LedgerStore) -> None:
    call, one = Amount(tool_calls=1), rolling(NOW, tool_calls=3)
    store.apply([hold("a", one, ZERO, ZERO)], NOW)
    now = NOW + 40 * SECOND
    others = rolling(now, tool_calls=3)
    assert isinstance(store.apply([Take("b", others, Amount(tool_calls=2))], now)[0], Taken)
    assert isinstance(store.apply([Take("a", one, call)], now)[0], Taken)
    [refused] = store.apply([Take("a", one, call)], now)
    assert isinstance(refused, Refused)
    assert (refused.used, refused.maximum) == (3, 3)
    # Those of the others are in every span that this call and they could share, and in no other.
    now = NOW + 80 * SECOND
    [taken] = store.apply([Take("c", rolling(now, tool_calls=3), call)], now)
    assert isinstance(taken, Taken)
    assert isinstance(store.apply([Take("a", one, Amount(tool_calls=1))], now)[0], Refused)


def test_a_call_that_others_overtook_is_checked_against_what_they_hold(store: LedgerStore) -> None:
    """It was bound before the bucket changed and is written after: by a slow writer, or by another clock."""
    mine = rolling(NOW, requests=1)
    now = NOW + 9 * SECOND
    assert isinstance(store.apply([hold("other", rolling(now, requests=1))], now)[0], Held)
    for seen_at in (NOW, now):
        [refused] = store.apply([hold(f"mine{seen_at}", mine)], seen_at)
        assert isinstance(refused, Refused)
        assert refused.held == 1


def test_topping_up_counts_in_the_bucket_of_the_hold(store: LedgerStore) -> None:
    mine = rolling(NOW, tokens=200)
    store.apply([hold("a", mine)], NOW)
    now = NOW + 45 * SECOND
    store.apply([hold("b", rolling(now, tokens=200), Amount(tokens=60), ZERO)], now)
    assert isinstance(store.apply([TopUp("a", mine, Amount(tokens=41))], now)[0], Refused)
    assert isinstance(store.apply([TopUp("a", mine, Amount(tokens=40))], now)[0], Held)
    assert store.peek([mine[0].key])[mine[0].key].held.tokens == 140


@pytest.mark.parametrize(
    ("window", "seconds"), [("90m", 5_400), ("24h", 86_400), ("30d", 30 * 86_400), ("4w", 28 * 86_400)]
)
def test_a_window_of_any_length_counts_as_long_as_it_says(
    store: LedgerStore, window: str, seconds: int
) -> None:
    store.apply([hold("a", rolling(NOW, window, requests=1)), Settle("a", ONE)], NOW)
    for share, kind in [(0.5, Refused), (1, Refused), (1 + 2 / 32 + 0.001, Held)]:
        now = NOW + int(seconds * share) * SECOND
        [result] = store.apply([hold(f"b{share}", rolling(now, window, requests=1))], now)
        assert isinstance(result, kind), share


def test_a_level_of_a_rolling_limit_is_reached_by_the_sum_and_again_when_it_was_left(
    watching: Watching,
) -> None:
    limits = [limit(window="1m", warn_at=0.5, tokens=100)]
    store = watching(LimitBook(limits))

    def used(id_: str, tokens: int, second: int) -> list[tuple[int, int]]:
        now = NOW + second * SECOND
        [held, settled] = store.apply(
            [
                hold(id_, bounds_of(*limits, now_us=now), Amount(tokens=tokens), ZERO),
                Settle(id_, Amount(tokens=tokens)),
            ],
            now,
        )
        assert isinstance(held, Held)
        assert isinstance(settled, Settled)
        return [(crossed.level, crossed.used) for crossed in settled.crossed]

    assert used("a", 30, 0) == []
    assert used("b", 19, 20) == []
    assert used("c", 1, 40) == [(50, 50)]
    assert used("d", 9, 50) == []
    assert used("e", 10, 70) == [], "the first 30 have left, and 39 are counted"
    assert used("f", 21, 71) == [(50, 60)]
