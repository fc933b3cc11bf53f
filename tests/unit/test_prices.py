"""Prices: exact rates, costs rounded up once, and the table as it comes."""

from __future__ import annotations

import json
from decimal import ROUND_CEILING, Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.events import Usage
from llm_proxy.upstream.prices import DEFAULT_MAX_OUTPUT, Price, PriceBook, PriceRow, table_path

ROW = {
    "input_cost_per_token": 1.5e-07,
    "output_cost_per_token": 6e-07,
    "cache_read_input_token_cost": 7.5e-08,
    "cache_creation_input_token_cost": 2e-07,
    "output_cost_per_reasoning_token": 7e-07,
    "max_output_tokens": 16_384,
}
PRICE = Price(
    input=150_000, output=600_000, cached=75_000, cache_write=200_000, reasoning=700_000, max_output=16_384
)


def table(tmp_path: Path, **rows: object) -> Path:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(rows))
    return path


def test_rates_are_kept_exactly(tmp_path: Path) -> None:
    assert PriceBook({"m": ROW}, table(tmp_path)).find("openai", "m") == PRICE


def test_every_kind_of_token_has_its_own_rate() -> None:
    usage = Usage(input=1_000, cached=300, cache_write=200, output=100, reasoning=40)
    pico = 500 * 150_000 + 300 * 75_000 + 200 * 200_000 + 60 * 600_000 + 40 * 700_000
    assert PRICE.micro_usd(usage) == -(-pico // 10**6) == 202


@pytest.mark.parametrize(
    ("usage", "micro_usd"),
    [
        (Usage(), 0),
        (Usage(input=1), 1),
        (Usage(input=10_000_000), 1_500_000),
        (Usage(input=5, cached=10), 1),
        (Usage(output=5, reasoning=10), 7),
    ],
)
def test_a_cost_is_rounded_up_once(usage: Usage, micro_usd: int) -> None:
    assert PRICE.micro_usd(usage) == micro_usd


tokens = st.integers(0, 10**7)
rates = st.integers(0, 10**10)
prices = st.builds(
    Price,
    input=rates,
    output=rates,
    cached=rates,
    cache_write=rates,
    reasoning=rates,
    max_output=st.just(100),
)


@given(prices, tokens, tokens, st.data())
def test_no_usage_costs_more_than_the_worst(
    price: Price, input_: int, output: int, data: st.DataObject
) -> None:
    cached = data.draw(st.integers(0, input_))
    usage = Usage(
        input=input_,
        output=output,
        cached=cached,
        cache_write=data.draw(st.integers(0, input_ - cached)),
        reasoning=data.draw(st.integers(0, output)),
    )
    assert price.micro_usd(usage) <= price.worst_micro_usd(input_, output)


@given(st.decimals("1e-12", "1", places=12), tokens)
def test_a_rate_written_as_a_decimal_costs_what_it_says(rate: Decimal, count: int) -> None:
    book = PriceBook({"m": {"input_cost_per_token": float(rate)}}, Path("/nowhere"))
    price = book.find("x", "m")
    assert price is not None
    exact = (Decimal(repr(float(rate))) * count * 10**6).to_integral_value(ROUND_CEILING)
    assert abs(price.micro_usd(Usage(input=count)) - int(exact)) <= 1


def test_a_row_without_its_own_cache_rates_uses_the_plain_ones(tmp_path: Path) -> None:
    path = table(
        tmp_path, m={"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_tokens": "n/a"}
    )
    price = PriceBook({}, path).find("openai", "m")
    assert price == Price(
        input=10**6,
        output=2 * 10**6,
        cached=10**6,
        cache_write=10**6,
        reasoning=2 * 10**6,
        max_output=DEFAULT_MAX_OUTPUT,
    )


@pytest.mark.parametrize(
    ("row", "largest"),
    [
        ({"max_output_tokens": 10, "max_tokens": 20}, 10),
        ({"max_tokens": 20.0}, 20),
        ({"max_output_tokens": 0, "max_tokens": 20}, 20),
        ({"max_output_tokens": "many"}, DEFAULT_MAX_OUTPUT),
        ({}, DEFAULT_MAX_OUTPUT),
    ],
)
def test_the_largest_reply(tmp_path: Path, row: dict[str, object], largest: int) -> None:
    price = PriceBook({}, table(tmp_path, m={"input_cost_per_token": 0, **row})).find("openai", "m")
    assert price is not None
    assert price.max_output == largest


def test_the_config_comes_before_the_table_and_the_provider_before_the_bare_name(tmp_path: Path) -> None:
    rows = {
        name: {"input_cost_per_token": cost} for name, cost in (("m", 1e-6), ("azure/m", 2e-6), ("n", 3e-6))
    }
    book = PriceBook({"n": {"input_cost_per_token": 4e-6}}, table(tmp_path, **rows))
    found = [book.find(*key) for key in (("openai", "m"), ("azure", "m"), ("azure", "n"))]
    assert [price and price.input for price in found] == [10**6, 2 * 10**6, 4 * 10**6]


def test_what_nobody_prices_has_no_price(tmp_path: Path) -> None:
    book = PriceBook({}, table(tmp_path, m={"mode": "chat"}, demo={"input_cost_per_token": 1}))
    assert book.find("openai", "unknown") is None
    assert book.find("openai", "m") is None
    assert book.find("scripted", "demo") is None


def test_the_table_is_let_go_after_loading_unless_calls_choose_models(tmp_path: Path) -> None:
    path = table(tmp_path, m={"input_cost_per_token": 1e-6}, n={"input_cost_per_token": 1e-6})
    fixed, wild = PriceBook({}, path), PriceBook({}, path)
    fixed.load([("openai", "m")])
    wild.load([("openai", "*")])
    path.unlink()
    assert fixed.find("openai", "m") is not None
    assert wild.find("openai", "n") is not None
    with pytest.raises(FileNotFoundError):
        fixed.find("openai", "n")


def test_names_that_callers_choose_are_not_remembered_for_ever(tmp_path: Path) -> None:
    book = PriceBook({}, table(tmp_path, m={"input_cost_per_token": 1e-6}))
    for n in range(25_000):
        assert book.find("openai", f"m-{n}") is None
    assert len(book._known) <= 10_000
    assert book.find("openai", "m") is not None


def test_every_row_of_the_packaged_table_can_be_read() -> None:
    rows = msgspec.json.decode(table_path().read_bytes(), type=dict[str, msgspec.Raw])
    unread: list[str] = []
    for name, row in rows.items():
        try:
            msgspec.json.decode(row, type=PriceRow)
        except msgspec.ValidationError:
            unread.append(name)
    assert unread in ([], ["sample_spec"])
    price = PriceBook({}).find("openai", "gpt-4o-mini")
    assert price is not None
    assert price.output > price.input > price.cached > 0
