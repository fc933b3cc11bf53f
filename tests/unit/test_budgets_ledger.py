from __future__ import annotations

import pytest
from sqlalchemy.dialects import mysql

from budgets import (
    UNITS,
    ZERO,
    Amount,
    Bound,
    Counter,
    Hold,
    Left,
    Limit,
    OnExceed,
    Scope,
    Settle,
    SqlLedger,
    Take,
    Unit,
    decide,
    remaining,
    window_named,
)


def bound(id_: str, resets_us: int | None = None, on_exceed=OnExceed.BLOCK, **maximum: int) -> Bound:
    most = {Unit(unit): figure for unit, figure in maximum.items()}
    return Bound(Limit(id_, Scope(), window_named("day"), most, on_exceed), id_, resets_us)


def test_remaining_names_the_tightest_limit_per_unit() -> None:
    bounds = (bound("a", 5, requests=10), bound("b", 9, requests=8, tokens=100), bound("c", tokens=20))
    counters = {
        "a": Counter(used=Amount(requests=6), held=Amount(requests=1)),
        "c": Counter(used=Amount(tokens=25)),
    }
    assert remaining(bounds, counters) == (
        Left(Unit.REQUESTS, "a", 10, 3, 5),
        Left(Unit.TOKENS, "c", 20, 0, None),
    )


def test_of_equal_remainders_the_last_to_reset_is_named() -> None:
    soon, late, never = bound("soon", 5, tokens=1), bound("late", 9, tokens=1), bound("never", tokens=1)
    assert remaining((soon, late), {})[0].limit_id == "late"
    assert remaining((late, soon), {})[0].limit_id == "late"
    assert remaining((late, never, soon), {})[0].limit_id == "never"


def test_limits_that_only_warn_and_other_units_are_not_shown() -> None:
    assert remaining((bound("a", on_exceed=OnExceed.WARN, tokens=1), bound("b", usd=1)), {}) == ()


def test_deciding_changes_nothing_that_it_was_given() -> None:
    row = (0,) * 2 * len(UNITS)
    counters, bounds = {"a": row}, (bound("a", requests=5),)
    decision = decide([Hold("h", bounds, Amount(requests=1), ZERO, 10)], counters, {}, 0)
    assert counters == {"a": row}
    assert decision.counters["a"] != list(row)
    assert list(decision.opened) == ["h"]


def test_negative_amounts_and_floors_over_the_hold_are_errors() -> None:
    with pytest.raises(ValueError, match="hold h"):
        Hold("h", (), Amount(tokens=1), Amount(tokens=2), 0)
    with pytest.raises(ValueError, match="hold h"):
        Hold("h", (), Amount(tokens=-1), Amount(tokens=-1), 0)
    with pytest.raises(ValueError, match="call h"):
        Settle("h", Amount(micro_usd=-1))
    with pytest.raises(ValueError, match="call h"):
        Take("h", (), Amount(writes=-1))


def test_a_database_that_can_not_keep_a_ledger_is_named() -> None:
    with pytest.raises(ValueError, match="'mysql': use sqlite or postgresql"):
        SqlLedger(mysql.dialect())
