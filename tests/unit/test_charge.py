"""What is guessed of a call's use never passes its hold, and what was reported is charged as it stands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets import Amount, Bound, Limit, Scope, Unit, window_named
from llm_proxy.charge import charged
from llm_proxy.chat.events import Usage
from llm_proxy.exchange import Exchange, Spent
from llm_proxy.intake import Intake
from llm_proxy.records.view import CostLabel
from llm_proxy.settle import amount, total
from llm_proxy.wire.dialects import DIALECTS

TOKEN_UNITS = (Unit.USD, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS)
HELD = Amount(micro_usd=500, tokens=300, input_tokens=100, output_tokens=200, requests=1)


def guess(input_: int, output: int, cost: int) -> Spent:
    return Spent(Usage(input=input_, output=output), cost, CostLabel.PARTIAL)


def told(input_: int, output: int, cost: int) -> Spent:
    return Spent(Usage(input=input_, output=output), cost, CostLabel.REPORTED, told=True)


def call(*units: Unit, lost: tuple[Spent, ...] = (), counted: int | None = 100, **more: Any) -> Exchange:
    bounds: tuple[Bound, ...] = ()
    if units:
        most = dict.fromkeys(units, 10**9)
        limit = Limit(id="l", scope=Scope(), window=window_named("day", "UTC"), maximum=most)
        bounds = (Bound(limit, "key", None),)
    exchange = Exchange("id", 1, DIALECTS[more.get("dialect", "openai_chat")], clock0=0.0, held=HELD)
    exchange.bounds = bounds
    exchange.lost = list(lost)
    exchange.intake = Intake((), (), (), (), counted)
    return exchange


def figures(spent: Spent) -> tuple[int, int, int]:
    return spent.usage.input, spent.usage.output, spent.micro_usd


def test_what_fits_is_left_as_it_is() -> None:
    spent = guess(100, 200, 500)
    assert charged(call(*TOKEN_UNITS), spent) == spent


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (Unit.USD, (150, 400, 500)),
        (Unit.TOKENS, (150, 150, 900)),
        (Unit.INPUT_TOKENS, (100, 400, 900)),
        (Unit.OUTPUT_TOKENS, (150, 200, 900)),
    ],
)
def test_a_guess_is_cut_to_the_hold_in_what_a_limit_counts(
    unit: Unit, expected: tuple[int, int, int]
) -> None:
    assert figures(charged(call(unit), guess(150, 400, 900))) == expected


@pytest.mark.parametrize(
    "exchange",
    [
        call(Unit.REQUESTS),
        call(),
        call(*TOKEN_UNITS, counted=None),
        call(*TOKEN_UNITS, dialect="passthrough"),
    ],
    ids=["requests-only", "no-limit", "not-counted", "by-the-piece"],
)
def test_where_no_tokens_were_held_a_guess_stands(exchange: Exchange) -> None:
    assert figures(charged(exchange, guess(150, 400, 900))) == (150, 400, 900)


def test_what_was_reported_stands_however_much_it_is() -> None:
    assert figures(charged(call(*TOKEN_UNITS), told(150, 400, 900))) == (150, 400, 900)


def test_a_lost_guess_has_what_the_report_leaves_and_the_record_shows_the_same() -> None:
    exchange = call(*TOKEN_UNITS, lost=(guess(100, 90, 300),))
    assert figures(charged(exchange, told(40, 150, 350))) == (100, 200, 500)
    assert figures(exchange.lost[0]) == (60, 50, 150)
    over = call(*TOKEN_UNITS, lost=(guess(100, 90, 300),))
    assert figures(charged(over, told(140, 250, 950))) == (140, 250, 950)
    assert figures(over.lost[0]) == (0, 0, 0)


def test_what_was_held_for_a_second_prompt_is_not_taken_by_a_report_of_more() -> None:
    exchange = call(*TOKEN_UNITS, lost=(guess(50, 20, 90),))
    exchange.floor = Amount(micro_usd=50, tokens=50, input_tokens=50)
    assert figures(charged(exchange, told(400, 100, 700))) == (450, 120, 750)


def test_what_is_part_of_the_prompt_is_cut_with_it() -> None:
    usage = Usage(input=150, output=400, cached=120, cache_write=30, reasoning=390, audio_output=10)
    cut = charged(call(*TOKEN_UNITS), Spent(usage, 900, CostLabel.ESTIMATED, price="v", tier="flex"))
    assert cut.usage == Usage(
        input=100, output=200, cached=100, cache_write=30, reasoning=200, audio_output=10
    )
    assert (cut.label, cut.price, cut.tier) == (CostLabel.ESTIMATED, "v", "flex")


parts = st.builds(
    lambda make, *figures: make(*figures),
    st.sampled_from([guess, told]),
    *[st.integers(0, 400)] * 2,
    st.integers(0, 900),
)


@given(parts, st.lists(parts, max_size=3), st.sets(st.sampled_from(TOKEN_UNITS)))
def test_guesses_never_pass_the_hold_nor_take_from_a_report(
    last: Spent, lost: list[Spent], units: set[Unit]
) -> None:
    exchange = call(*units, lost=tuple(lost))
    spent = amount(charged(exchange, last), requests=1)
    plain = amount(total(last, lost), requests=1)
    reported = [amount(part, requests=1) for part in (last, *lost) if part.told]
    guessed = [amount(part, requests=1) for part in (last, *lost) if not part.told]
    for unit in TOKEN_UNITS:
        known = sum(each.get(unit) for each in reported)
        most = plain.get(unit)
        if unit in units:
            most = HELD.get(unit) if known <= HELD.get(unit) else known + HELD.get(unit)
        assert known <= spent.get(unit) <= min(most, plain.get(unit))
        if units == {unit} and known <= HELD.get(unit):
            assert spent.get(unit) == min(most, known + sum(each.get(unit) for each in guessed))
    assert sum(part.micro_usd for part in exchange.lost) <= spent.micro_usd
