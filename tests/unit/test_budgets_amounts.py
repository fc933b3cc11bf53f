from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets import UNITS, ZERO, Amount, Unit, micro_usd
from budgets.amounts import LARGEST


def test_amounts_add_subtract_and_take_the_larger_unit_by_unit() -> None:
    a, b = Amount(micro_usd=5, tokens=10, writes=1), Amount(micro_usd=7, tokens=4)
    assert a + b == Amount(micro_usd=12, tokens=14, writes=1)
    assert a - b == Amount(micro_usd=-2, tokens=6, writes=1)
    assert a.max(b) == Amount(micro_usd=7, tokens=10, writes=1)
    assert ZERO.is_zero
    assert not (a - b).is_zero


def test_every_unit_has_its_own_field_in_order() -> None:
    assert [unit.field for unit in UNITS] == list(Amount.__struct_fields__)
    amount = Amount(*range(1, len(UNITS) + 1))
    assert [amount.get(unit) for unit in UNITS] == list(amount.values()) == list(range(1, len(UNITS) + 1))
    assert amount.get(Unit.USD) == amount.micro_usd


@pytest.mark.parametrize(
    ("dollars", "expected"),
    [
        (5, 5_000_000),
        (0, 0),
        (0.1, 100_000),
        (0.29, 290_000),
        (1e-6, 1),
        ("0.000001", 1),
        ("2_000", 2_000_000_000),
        ("1.50000000", 1_500_000),
        (Decimal("12.345678"), 12_345_678),
        (1e9, 10**15),
    ],
)
def test_dollars_become_micro_dollars_exactly(dollars: float | str | Decimal, expected: int) -> None:
    assert micro_usd(dollars) == expected


@pytest.mark.parametrize(
    ("dollars", "why"),
    [
        (0.0000001, "six decimals"),
        ("1.0000005", "six decimals"),
        (-1, "0 or more"),
        (float("nan"), "0 or more"),
        ("inf", "0 or more"),
        (True, "not an amount of dollars"),
        ("five", "not an amount of dollars"),
        (LARGEST, "more than can be counted"),
    ],
)
def test_what_is_not_an_exact_amount_is_an_error_that_says_why(dollars: float | str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        micro_usd(dollars)


@given(st.integers(0, 10**15))
def test_any_whole_number_of_micro_dollars_survives_being_written_down(micro: int) -> None:
    assert micro_usd(f"{micro // 10**6}.{micro % 10**6:06}") == micro
    if micro < 10**12:
        assert micro_usd(micro / 10**6) == micro
