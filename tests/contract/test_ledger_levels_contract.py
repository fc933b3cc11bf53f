"""Levels that somebody wants to hear of, over memory, a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import pytest

from budgets import (
    ZERO,
    Amount,
    Crossed,
    Expire,
    Expired,
    Limit,
    LimitBook,
    OnExceed,
    Result,
    Settle,
    Settled,
    Take,
    Taken,
    Unit,
)
from tests.contract.ledgers import LEASE, NOW, Watching, bounds_of, hold, limit
from tests.contract.ledgers import watching as watching

pytest_plugins = ["tests.postgres"]


def crossed(result: Result) -> list[tuple[str, Unit, int, int]]:
    assert isinstance(result, Settled | Taken | Expired)
    return [(c.limit_id, c.unit, c.level, c.used) for c in result.crossed]


def settle(store, id_: str, tokens: int, *limits: Limit, run: str = "r1") -> Result:
    ops = [
        hold(id_, bounds_of(*limits, run=run), Amount(tokens=tokens), ZERO),
        Settle(id_, Amount(tokens=tokens)),
    ]
    return store.apply(ops, NOW)[1]


def test_a_level_is_reported_by_the_settlement_that_reaches_it_and_by_no_other(watching: Watching) -> None:
    limits = [limit(warn_at=0.8, tokens=100)]
    store = watching(LimitBook(limits))
    key = bounds_of(*limits)[0].key
    assert crossed(settle(store, "a", 79, *limits)) == []
    reached = settle(store, "b", 1, *limits)
    assert reached == Settled((Crossed("daily", key, Unit.TOKENS, 80, 80, 100),))
    assert crossed(settle(store, "c", 20, *limits)) == []


def test_a_limit_that_only_warns_has_its_maximum_for_a_second_level(watching: Watching) -> None:
    limits = [limit(on_exceed=OnExceed.WARN, warn_at=0.5, tokens=100, writes=0)]
    store = watching(LimitBook(limits))
    assert crossed(settle(store, "a", 49, *limits)) == []
    assert crossed(settle(store, "b", 60, *limits)) == [
        ("daily", Unit.TOKENS, 50, 109),
        ("daily", Unit.TOKENS, 100, 109),
    ]
    assert crossed(settle(store, "c", 500, *limits)) == []
    taken = store.apply([Take("c", bounds_of(*limits), Amount(writes=1))] * 2, NOW)
    assert [crossed(result) for result in taken] == [[("daily", Unit.WRITES, 1, 1)], []]


def test_a_blocking_limit_is_not_reported_for_its_maximum(watching: Watching) -> None:
    limits = [limit(tokens=100), limit("low", warn_at=0.1, usd=100)]
    assert crossed(settle(watching(LimitBook(limits)), "a", 100, *limits)) == []


def test_what_is_taken_and_what_expires_reach_levels_too(watching: Watching) -> None:
    limits = [limit(warn_at=0.5, tool_calls=4), limit("run", "run", warn_at=1.0, requests=1)]
    store = watching(LimitBook(limits))
    bounds = bounds_of(*limits)
    take = Take("a", bounds, Amount(tool_calls=1))
    _, first, second, third = store.apply([hold("a", bounds), take, take, take], NOW)
    assert [crossed(result) for result in (first, second, third)] == [
        [],
        [("daily", Unit.TOOL_CALLS, 2, 2)],
        [],
    ]
    [expired] = store.apply([Expire(LEASE)], LEASE)
    assert crossed(expired) == [("run", Unit.REQUESTS, 1, 1)]


def test_what_is_held_reaches_no_level(watching: Watching) -> None:
    limits = [limit(warn_at=0.5, tokens=100)]
    store = watching(LimitBook(limits))
    store.apply([hold("a", bounds_of(*limits))], NOW)
    assert crossed(store.apply([Settle("a", Amount(tokens=10))], NOW)[0]) == []


def test_each_counter_of_a_limit_reaches_its_own(watching: Watching) -> None:
    limits = [limit("run", "run", warn_at=0.5, tokens=10)]
    store = watching(LimitBook(limits))
    long = "r" * 600
    for run in ("r1", "r2", long, f"{long}2"):
        assert crossed(settle(store, f"a{len(run)}{run[-1]}", 5, *limits, run=run)) == [
            ("run", Unit.TOKENS, 5, 5)
        ]


def test_two_limits_of_one_id_have_levels_of_their_own(watching: Watching) -> None:
    limits = [limit(warn_at=0.5, tokens=100), limit(window="lifetime", warn_at=0.5, tokens=20)]
    assert crossed(settle(watching(LimitBook(limits)), "a", 10, *limits)) == [("daily", Unit.TOKENS, 10, 10)]


def test_levels_follow_a_changed_maximum_and_a_restart_repeats_none(watching: Watching) -> None:
    store = watching(LimitBook([limit(warn_at=0.5, tokens=100)]))
    assert crossed(settle(store, "a", 50, limit(tokens=100))) == [("daily", Unit.TOKENS, 50, 50)]
    again = watching(LimitBook([limit(warn_at=0.5, tokens=120)]))
    if again.peek([bounds_of(limit(tokens=1))[0].key]):  # a memory's counters end with it
        assert crossed(settle(again, "b", 9, limit(tokens=120))) == []
        assert crossed(settle(again, "c", 1, limit(tokens=120))) == [("daily", Unit.TOKENS, 60, 60)]


@pytest.mark.parametrize(
    ("share", "most", "level"), [(0.07, 100, 7), (0.1, 3, 1), (0.8, 5, 4), (1.0, 3, 3), (0.001, 5, 1)]
)
def test_a_level_is_the_share_as_it_was_written_rounded_up(
    watching: Watching, share: float, most: int, level: int
) -> None:
    limits = [limit(warn_at=share, tokens=most)]
    store = watching(LimitBook(limits))
    if level > 1:
        assert crossed(settle(store, "a", level - 1, *limits)) == []
    assert crossed(settle(store, "b", 1, *limits)) == [("daily", Unit.TOKENS, level, level)]


def test_without_limits_to_watch_nothing_is_reported(watching: Watching) -> None:
    limits = [limit(warn_at=0.5, tokens=2)]
    assert crossed(settle(watching(), "a", 2, *limits)) == []
