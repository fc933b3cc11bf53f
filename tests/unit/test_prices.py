"""The price book: exact rates, overrides, the table as it comes, and the version of each price."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.events import Usage
from llm_proxy.pricing.book import PriceBook, package_version, table_path
from llm_proxy.pricing.names import RateName, token_rate
from llm_proxy.pricing.price import DEFAULT_MAX_OUTPUT
from llm_proxy.pricing.rates import Rates
from llm_proxy.pricing.row import listed, price_of, written
from llm_proxy.pricing.told import Told

ROW = {
    "input_cost_per_token": 1.5e-07,
    "output_cost_per_token": 6e-07,
    "cache_read_input_token_cost": 7.5e-08,
    "cache_creation_input_token_cost": 2e-07,
    "output_cost_per_reasoning_token": 7e-07,
    "max_output_tokens": 16_384,
}


def table(tmp_path: Path, **rows: object) -> Path:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(rows))
    return path


def all_rows() -> dict[str, dict[str, Any]]:
    return msgspec.json.decode(table_path().read_bytes(), type=dict[str, dict[str, Any]])


def test_rates_are_kept_exactly(tmp_path: Path) -> None:
    price = PriceBook({"m": ROW}, table(tmp_path)).find("openai", "m")
    assert price is not None
    assert price.max_output == 16_384
    assert price.standard == Rates(
        input=150_000,
        output=600_000,
        cached=75_000,
        cache_write=200_000,
        cache_write_hour=200_000,
        reasoning=700_000,
        audio_input=150_000,
        audio_output=600_000,
        image_input=150_000,
        image_output=600_000,
        cached_audio=75_000,
        cached_image=75_000,
    )


def test_a_row_without_its_own_cache_rates_uses_the_plain_ones(tmp_path: Path) -> None:
    path = table(
        tmp_path, m={"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_tokens": "n/a"}
    )
    price = PriceBook({}, path).find("openai", "m")
    assert price is not None
    assert (price.standard, price.max_output) == (Rates.plain(10**6, 2 * 10**6), DEFAULT_MAX_OUTPUT)


@given(st.decimals("1e-12", "1", places=12), st.integers(0, 10**7))
def test_a_rate_written_as_a_decimal_costs_what_it_says(rate: Decimal, count: int) -> None:
    price = PriceBook({"m": {"input_cost_per_token": float(rate)}}, Path("/nowhere")).find("x", "m")
    assert price is not None
    exact = (Decimal(repr(float(rate))) * count * 10**6).to_integral_value(ROUND_CEILING)
    assert abs(price.micro_usd(Usage(input=count)) - int(exact)) <= 1


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
    assert [price and price.standard.input for price in found] == [10**6, 2 * 10**6, 4 * 10**6]
    assert [price and price.version.split(":")[0] for price in found] == ["table", "table", "config"]


def test_what_nobody_prices_has_no_price(tmp_path: Path) -> None:
    elsewhere = {"input_cost_per_token_priority": 1e-6, "cache_read_input_token_cost": 1e-7}
    rows = {"m": {"mode": "chat"}, "n": elsewhere, "demo": {"input_cost_per_token": 1}}
    book = PriceBook({}, table(tmp_path, **rows))
    assert book.find("openai", "unknown") is None
    assert book.find("openai", "m") is None
    assert book.find("openai", "n") is None, "a tier's price alone is none"
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


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("input_cost_per_token", RateName("input_cost_per_token")),
        ("output_cost_per_token_above_128k_tokens", RateName("output_cost_per_token", 128_000)),
        ("input_cost_per_token_above_32000_tokens", RateName("input_cost_per_token", 32_000)),
        ("cache_read_input_token_cost_flex", RateName("cache_read_input_token_cost", 0, "flex")),
        (
            "cache_creation_input_token_cost_above_1hr_above_200k_tokens",
            RateName("cache_creation_input_token_cost_above_1hr", 200_000),
        ),
        (
            "input_cost_per_token_above_272k_tokens_priority",
            RateName("input_cost_per_token", 272_000, "priority"),
        ),
        ("input_cost_per_token_above_200k_token", None),
        ("input_cost_per_token_cheap", None),
        ("input_cost_per_image", None),
        ("input_dbu_cost_per_token", None),
    ],
)
def test_names_of_rates(name: str, rate: RateName | None) -> None:
    assert token_rate(name) == rate


_LEFT = re.compile(
    r"input_dbu_|output_dbu_|citation_|input_cost_per_token_cache_hit|explicit_cache|video_token"
    r"|cache_creation_input_audio_token_cost|per_(second|character|image)_above"
)
"""Rates of tokens that are known not to be read: Databricks' own units, aliases, and what no usage tells."""


def test_no_rate_of_tokens_in_the_packaged_table_is_passed_over_in_silence() -> None:
    """A newer table with a threshold, a tier or a kind that isn't known here fails this test."""
    names = {
        name
        for row in all_rows().values()
        for name, value in row.items()
        if "cost" in name and "token" in name and "_1k_" not in name and isinstance(value, int | float)
    }
    assert [name for name in sorted(names) if token_rate(name) is None and not _LEFT.search(name)] == []


def test_every_row_of_the_packaged_table_makes_a_price_or_none() -> None:
    rows = all_rows()
    prices = {name: price_of(listed(row), "p", name) for name, row in rows.items()}
    unpriced = [name for name, price in prices.items() if price is None and rows[name].get("mode") == "chat"]
    plain = [name for name in unpriced if rows[name].get("input_cost_per_token") is not None]
    assert plain == []
    assert sum(price is not None for price in prices.values()) > 3_000
    for price in prices.values():
        for bands in price.tiers.values() if price else ():
            assert [band.above for band in bands] == sorted({band.above for band in bands}, reverse=True)
            assert bands[-1].above == 0


# Versions


def test_the_version_is_of_the_source_the_model_and_the_rates(tmp_path: Path) -> None:
    def version(row: dict[str, Any], model: str = "m") -> str:
        price = PriceBook({model: row}, table(tmp_path)).find("openai", model)
        assert price is not None
        return price.version

    assert re.fullmatch(r"config:[0-9a-f]{12}", version(ROW))
    assert version(ROW) == version(dict(reversed(ROW.items())))
    assert version({**ROW, "max_output_tokens": 16_384.0}) == version(ROW)
    assert len({version(ROW), version(ROW, "n"), version({**ROW, "output_cost_per_token": 6.1e-7})}) == 3
    assert version({**ROW, "output_cost_per_token_flex": 1e-7}) != version(ROW)
    price = PriceBook({}).find("openai", "gpt-4o-mini")
    assert price is not None
    assert re.fullmatch(rf"litellm-{re.escape(package_version())}:[0-9a-f]{{12}}", price.version)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-5.4"),
        ("anthropic", "claude-opus-4-8"),
        ("dashscope", "qwen-flash"),
        ("openai", "sora-2"),
    ],
)
def test_what_the_store_keeps_of_a_price_makes_the_same_price_again(provider: str, model: str) -> None:
    price = PriceBook({}).find(provider, model)
    assert price is not None
    kept = msgspec.json.decode(written(price.listed), type=dict[str, float])
    assert price_of(kept, provider, model, price.version.split(":")[0]) == price


def test_a_version_is_told_until_its_row_is_committed(tmp_path: Path) -> None:
    book, told = PriceBook({"m": ROW, "n": ROW}, table(tmp_path)), Told()
    m, n = book.find("openai", "m"), book.find("openai", "n")
    assert m is not None
    assert n is not None

    def versions(rows: Iterable[Any]) -> list[str]:
        return [row.version for row in rows]

    rows = told.rows([m, None, m], 5)
    assert versions(rows) == [m.version]
    assert (rows[0].provider, rows[0].model, rows[0].at_us) == ("openai", "m", 5)
    assert versions(told.rows([m], 6)) == [m.version], "the first was not committed"
    told.committed(rows)
    assert told.rows([m], 7) == ()
    assert versions(told.rows([m, n], 8)) == [n.version]
    assert book.version(n.version) is n
    assert book.version("config:0") is None
