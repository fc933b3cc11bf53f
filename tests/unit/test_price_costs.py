"""What usage costs: every kind of token at its own rate, once, by tier and length of the prompt."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from llm_proxy.chat.events import Usage
from llm_proxy.pricing import tiers
from llm_proxy.pricing.book import PriceBook
from llm_proxy.pricing.names import STANDARD, TIERS
from llm_proxy.pricing.price import Band, Price
from llm_proxy.pricing.rates import Rates
from llm_proxy.wire.passthrough import Units

PRICE = Price.of(
    Rates(
        input=150_000,
        output=600_000,
        cached=75_000,
        cache_write=200_000,
        cache_write_hour=300_000,
        reasoning=700_000,
        audio_input=1_000_000,
        audio_output=2_000_000,
        image_input=400_000,
        image_output=3_000_000,
        cached_audio=90_000,
        cached_image=80_000,
    )
)


@cache
def book() -> PriceBook:
    return PriceBook({})


def test_every_kind_of_token_has_its_own_rate() -> None:
    usage = Usage(
        input=1_000,
        cached=300,
        cached_audio=30,
        cached_image=20,
        cache_write=200,
        cache_write_hour=50,
        audio_input=130,
        image_input=60,
        output=100,
        reasoning=40,
        audio_output=25,
        image_output=15,
    )
    cached = 30 * 90_000 + 20 * 80_000 + 250 * 75_000
    written = 50 * 300_000 + 150 * 200_000
    fresh = 100 * 1_000_000 + 40 * 400_000 + 360 * 150_000
    said = 40 * 700_000 + 25 * 2_000_000 + 15 * 3_000_000 + 20 * 600_000
    assert PRICE.micro_usd(usage) == -(-(cached + written + fresh + said) // 10**6) == 374


@pytest.mark.parametrize(
    ("usage", "micro_usd"),
    [
        (Usage(), 0),
        (Usage(input=1), 1),
        (Usage(input=10_000_000), 1_500_000),
        (Usage(input=100, cached=200), 8),
        (Usage(input=100, cached=60, cache_write=60), 13),
        (Usage(input=100, cache_write=50, cache_write_hour=80), 23),
        (Usage(output=5, reasoning=10), 4),
        (Usage(output=5, reasoning=3, audio_output=9, image_output=9), 7),
        (Usage(input=10, audio_input=90, image_input=90), 10),
        (Usage(input=10, image_input=90), 4),
        (Usage(input=10, cached=10, cached_audio=20, audio_input=20), 1),
    ],
)
def test_a_part_larger_than_its_whole_is_cut_and_a_cost_is_rounded_up_once(
    usage: Usage, micro_usd: int
) -> None:
    assert PRICE.micro_usd(usage) == micro_usd


MILLION = 10**6
REAL = [
    # provider, model, tier, usage, micro-dollars worked out by hand from the table's fields
    ("openai", "gpt-4o-mini", "", Usage(input=10_000, cached=4_000, output=2_000, reasoning=500), 2_400),
    ("openai", "gpt-4o-mini", "priority", Usage(input=10_000, cached=4_000, output=2_000), 4_000),
    ("openai", "gpt-4o-mini", "batch", Usage(input=10_000, cached=4_000, output=2_000), 1_350),
    ("openai", "gpt-4o-mini", "flex", Usage(input=10_000, output=2_000), 2_700),
    (
        "anthropic",
        "claude-haiku-4-5",
        "",
        Usage(input=10_000, cached=3_000, cache_write=2_000, cache_write_hour=500, output=1_000),
        13_175,
    ),
    ("anthropic", "claude-haiku-5-5", "", Usage(input=100_000, output=1_000), 10_500),
    ("anthropic", "claude-haiku-5-5", "", Usage(input=100_001, cached=50_000, output=1_000), 30_001),
    (
        "anthropic",
        "claude-haiku-5-5",
        "",
        Usage(input=200_000, cache_write=100_000, cache_write_hour=100_000),
        150_000,
    ),
    ("anthropic", "claude-haiku-5-5", "batch", Usage(input=200_000, output=1_000), 51_250),
    ("anthropic", "claude-opus-4-8", "fast", Usage(input=1_000, cached=400, output=100), 11_400),
    ("openai", "gpt-5.4", "", Usage(input=272_000, output=1_000), 695_000),
    ("openai", "gpt-5.4", "", Usage(input=272_001, output=1_000), 1_382_505),
    ("openai", "gpt-5.4", "flex", Usage(input=300_000, output=1_000), 761_250),
    ("openai", "gpt-5.4", "fast", Usage(input=1_000, output=100), 8_000),
    ("openai", "gpt-6-astra", "ultrafast", Usage(input=1_000, output=100), 90_000),
    ("openai", "gpt-6-astra", "ultrafast", Usage(input=MILLION, output=0), 120_000_000),
    ("gemini", "gemini-2.5-pro", "batch", Usage(input=200_001, output=1_000), 130_001),
    ("gemini", "gemini-2.5-pro", "flex", Usage(input=200_001, output=1_000), 515_003),
    ("gemini", "gemini-2.5-pro", "priority", Usage(input=200_001, output=1_000), 927_005),
    ("vertex_ai", "gemini-2.5-flash", "", Usage(input=1_000, audio_input=400, output=100, reasoning=50), 830),
    (
        "vertex_ai",
        "gemini-2.5-flash",
        "priority",
        Usage(input=1_000, audio_input=400, output=100, reasoning=50),
        1_494,
    ),
    (
        "vertex_ai",
        "gemini-2.5-flash",
        "",
        Usage(input=1_000, cached=500, cached_audio=200, audio_input=200),
        179,
    ),
    ("gemini", "gemini-3-pro-image", "", Usage(input=100, output=1_500, image_output=1_290), 157_520),
    ("openai", "gpt-image-1", "", Usage(input=60, image_input=50, output=1_000), 40_550),
    ("openai", "gpt-4o-mini-tts", "", Usage(input=100, output=1_000, audio_output=900), 11_860),
    ("dashscope", "qwen-flash", "", Usage(input=256_000, cached=56_000, output=1_000), 13_200),
    ("dashscope", "qwen-flash", "", Usage(input=256_001, cached=56_001, output=1_000), 66_001),
    ("xai", "grok-4.20-0309-reasoning", "", Usage(input=199_999, output=100), 250_249),
    ("xai", "grok-4.20-0309-reasoning", "", Usage(input=200_000, output=100), 500_500),
    ("minimax", "MiniMax-M3", "", Usage(input=512_001, output=1_000), 309_601),
    ("sail", "moonshotai/Kimi-K3", "balanced", Usage(input=1_000, cached=400, output=100), 2_280),
    ("openai", "text-embedding-3-small", "", Usage(input=1_000), 20),
    ("deepseek", "deepseek-chat", "", Usage(input=1_000, cached=500, output=100), 196),
]


@pytest.mark.parametrize(("provider", "model", "tier", "usage", "micro_usd"), REAL)
def test_real_rows(provider: str, model: str, tier: str, usage: Usage, micro_usd: int) -> None:
    price = book().find(provider, model)
    assert price is not None
    assert price.micro_usd(usage, tier) == micro_usd
    assert micro_usd <= price.dearest(usage.input, tier).micro_usd(usage.input, usage.output)


@pytest.mark.parametrize(
    ("model", "units", "micro_usd"),
    [
        ("sora-2", Units(milliseconds=4_000), 400_000),
        ("tts-1", Units(characters=1_000), 15_000),
        ("whisper-1", Units(milliseconds=60_000), 6_000),
    ],
)
def test_real_rows_that_price_pieces(model: str, units: Units, micro_usd: int) -> None:
    price = book().find("openai", model)
    assert price is not None
    assert price.flat_micro_usd(units) == micro_usd


def test_an_override_has_every_rate_too() -> None:
    row = {
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 2e-6,
        "input_cost_per_token_above_64k_tokens": 3e-6,
        "input_cost_per_token_above_64k_tokens_flex": 2e-6,
        "output_cost_per_token_flex": 1e-6,
        "cache_creation_input_token_cost_above_1hr": 5e-6,
        "input_cost_per_audio_token": 7e-6,
    }
    price = PriceBook({"openai/gpt-4o-mini": row}).find("openai", "gpt-4o-mini")
    assert price is not None
    assert price.micro_usd(Usage(input=64_000, output=10)) == 64_020
    assert price.micro_usd(Usage(input=64_001, output=10)) == 192_023
    assert price.micro_usd(Usage(input=64_001, output=10), "flex") == 128_012
    assert price.micro_usd(Usage(input=10, output=10), "flex") == 20
    assert price.micro_usd(Usage(input=10, cache_write=10, cache_write_hour=4)) == 26
    assert price.micro_usd(Usage(input=10, audio_input=4)) == 34
    assert price.micro_usd(Usage(input=10), "priority") == 10, "a tier that the price doesn't know"


@pytest.mark.parametrize(
    ("asked", "reachable"),
    [
        ("", {""}),
        ("default", {""}),
        ("standard_only", {""}),
        ("flex", {"", "flex"}),
        ("batch", {"", "batches"}),
        ("priority", {"", "priority"}),
        ("fast", {"", "priority"}),
        ("auto", {"", "flex", "priority", "batches"}),
        ("something new", {"", "flex", "priority", "batches"}),
    ],
)
def test_tiers_that_a_request_may_lead_to(asked: str, reachable: set[str]) -> None:
    assert set(tiers.reachable(asked, ("", "flex", "priority", "batches"))) == reachable


# Never dearer than what was held

_KINDS = [name for name in Rates.__dataclass_fields__ if "dearest" not in name]
rates = st.builds(Rates, **dict.fromkeys(_KINDS, st.integers(0, 10**10)))
tokens = st.integers(0, 10**6)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Any rates in any tiers, with thresholds, dearer above them or cheaper."""
    found: dict[str, tuple[Band, ...]] = {}
    for tier in (STANDARD, *draw(st.sets(st.sampled_from(TIERS), max_size=3))):
        above = sorted(draw(st.sets(st.integers(1, 10**6), max_size=2)), reverse=True)
        found[tier] = (*(Band(start, draw(rates)) for start in above), Band(0, draw(rates)))
    return Price(found)


usages = st.builds(Usage, **{name: st.integers(0, 2 * 10**6) for name in Usage.__struct_fields__})


@given(
    prices(),
    usages,
    st.sampled_from(["", "default", "auto", "odd", "batch", *TIERS]),
    st.booleans(),
    tokens,
    tokens,
    st.data(),
)
def test_no_usage_within_what_was_held_costs_more_than_its_worst_case(
    price: Price, usage: Usage, asked: str, hour: bool, more_in: int, more_out: int, data: st.DataObject
) -> None:
    """Without `hour` nothing is written to the cache for one, since the request asks for none."""
    if not hour:
        usage = structs.replace(usage, cache_write_hour=0)
    held = price.dearest(usage.input + more_in, asked, hour=hour)
    worst = held.micro_usd(usage.input + more_in, usage.output + more_out)
    for tier in tiers.reachable(asked, price.tiers):
        assert price.micro_usd(usage, tier) <= worst
    answered = data.draw(st.sampled_from([asked, "", "default"]))
    assert price.micro_usd(usage, tiers.known(answered, price.tiers) or "") <= worst


@given(prices(), tokens)
def test_an_hour_in_the_cache_is_held_only_where_it_is_asked_for_and_dearer(price: Price, size: int) -> None:
    usual, hour = price.dearest(size, "auto", hour=False), price.dearest(size, "auto")
    assert usual.output == hour.output
    assert usual.input <= hour.input
    if not price.dearer_by_the_hour:
        assert usual == hour


def test_only_the_dearest_of_all_kinds_tells_whether_an_hour_matters() -> None:
    haiku = book().find("anthropic", "claude-haiku-4-5")
    assert haiku is not None
    assert haiku.dearer_by_the_hour
    assert haiku.dearest(10, hour=False) == (1_250_000, 5_000_000)
    assert haiku.dearest(10) == (2_000_000, 5_000_000)
    sound = Price.of(Rates(input=1, cache_write=2, cache_write_hour=4, audio_input=5))
    assert not sound.dearer_by_the_hour
    mini = book().find("openai", "gpt-4o-mini")
    assert mini is not None
    assert not mini.dearer_by_the_hour


@given(prices(), usages)
def test_no_kind_is_counted_twice(price: Price, usage: Usage) -> None:
    """Where all kinds cost the same, a call costs that, whatever its parts are said to be."""
    same = Price.of(Rates.plain(10**6, 2 * 10**6))
    assert same.micro_usd(usage) == usage.input + 2 * usage.output
    assert price.micro_usd(usage) >= 0
