"""A picture's tokens, against the figures that vendors' documents and bills give."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.counting.tokenizers import ANY, CL100K, O200K, ONE, tokenizer_of


def tokens(model: str, width: int, height: int, detail: str = "", provider: str = "openai") -> int:
    return tokenizer_of(provider, model).vision(width, height, detail)


@pytest.mark.parametrize(
    ("model", "size", "detail", "expected"),
    [
        ("gpt-4o", (1_024, 1_024), "high", 765),
        ("gpt-4o", (2_048, 4_096), "high", 1_105),
        ("gpt-4o", (4_096, 8_192), "low", 85),
        ("gpt-4o", (512, 512), "", 255),
        ("gpt-4o", (0, 0), "", 85 + 8 * 170),
        ("gpt-4o-mini", (1_024, 1_024), "auto", 2_833 + 4 * 5_667),
        ("gpt-4o-mini", (1_024, 1_024), "low", 2_833),
        ("gpt-4.1", (1_024, 1_024), "", 765),
        ("gpt-5", (1_024, 1_024), "high", 70 + 4 * 140),
        ("gpt-5-2025-08-07", (1_024, 1_024), "low", 70),
        ("o1", (1_024, 1_024), "", 75 + 4 * 150),
        ("o3", (0, 0), "low", 75),
        ("gpt-4.1-mini", (1_024, 1_024), "", 1_659),
        ("gpt-4.1-mini", (2_400, 1_800), "", 2_353),  # 1,452 patches; billed 2,362 with ten of words
        ("gpt-4.1-nano", (1_024, 1_024), "", 2_520),
        ("o4-mini", (1_024, 1_024), "", 1_762),
        ("gpt-5-mini", (1_024, 1_024), "", 1_659),
        ("gpt-5.5", (2_560, 1_440), "", 4_320),
        ("gpt-6-mini", (1_920, 1_080), "high", 2_448),
        ("gpt-6", (4_032, 3_024), "", 14_364),
    ],
)
def test_openai(model: str, size: tuple[int, int], detail: str, expected: int) -> None:
    assert tokens(model, *size, detail) == expected


@pytest.mark.parametrize(
    ("model", "size", "expected"),
    [
        ("claude-3-5-sonnet-20241022", (1_092, 1_092), 1_590),
        ("claude-haiku-4-5", (200, 200), 64),
        ("claude-sonnet-4-20250514", (8_000, 8_000), 1_600),
        ("claude-opus-4-1", (0, 0), 1_600),
        ("claude-opus-4-7", (1_920, 1_080), 2_765),
        ("claude-opus-4-7", (4_000, 3_000), 4_784),
        ("claude-sonnet-5", (0, 0), 4_784),
        ("gemini-2.5-pro", (384, 384), 258),
        ("gemini-2.5-pro", (960, 540), 6 * 258),
        ("gemini-2.0-flash", (768, 768), 4 * 258),
        ("gemini-3-pro-preview", (4_000, 3_000), 1_120),
    ],
)
def test_others(model: str, size: tuple[int, int], expected: int) -> None:
    provider = "anthropic" if model.startswith("claude") else "gemini"
    assert tokens(model, *size, provider=provider) == expected


FAMILIES = [
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-5",
    "gpt-4.1-mini",
    "gpt-5.4",
    "claude-haiku-4-5",
    "claude-opus-4-7",
    "m",
]


@given(
    st.sampled_from(FAMILIES), st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from(["", "high"])
)
def test_no_picture_is_free_and_none_costs_more_than_the_largest(
    model: str, width: int, height: int, detail: str
) -> None:
    assert 0 < tokens(model, width, height, detail) <= tokens(model, 0, 0, detail)


@given(st.sampled_from([*FAMILIES, "gemini-2.5-flash"]), st.integers(1, 9_000), st.integers(1, 9_000))
def test_a_picture_lying_on_its_side_costs_the_same(model: str, width: int, height: int) -> None:
    assert tokens(model, width, height) == tokens(model, height, width)


@pytest.mark.parametrize(
    ("provider", "model", "encoding"),
    [
        ("openai", "gpt-4o", O200K),
        ("openai", "gpt-4.1-mini", O200K),
        ("openai", "gpt-4", CL100K),
        ("azure", "gpt-4-turbo", CL100K),
        ("openai", "gpt-3.5-turbo", CL100K),
        ("openai", "text-embedding-3-small", CL100K),
        ("openai", "ft:gpt-4o-mini:acme::id", O200K),
        ("openai", "o3", O200K),
        ("mistral", "mistral-large", O200K),
    ],
)
def test_the_encoding_is_the_models(provider: str, model: str, encoding: str) -> None:
    assert tokenizer_of(provider, model).encoding == encoding


@pytest.mark.parametrize(
    ("provider", "model", "prior"),
    [
        ("openai", "gpt-4o", 1.0),
        ("openai", "llama-3.3-70b", 1.0),
        ("azure", "gpt-4o", 1.0),
        ("scripted", "m", 1.0),
        ("anthropic", "claude-haiku-4-5", 1.35),
        ("anthropic", "claude-3-opus-20240229", 1.35),
        ("anthropic", "claude-instant-1.2", 1.35),
        ("anthropic", "claude-sonnet-4-20250514", 1.35),
        ("vertex_ai", "claude-sonnet-4@20250514", 1.35),
        ("bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0", 1.35),
        ("openai", "anthropic/claude-sonnet-4.5", 1.35),
        ("anthropic", "claude-opus-4-7", 2.0),
        ("anthropic", "claude-opus-4-10-20270101", 2.0),
        ("anthropic", "claude-sonnet-5", 2.0),
        ("anthropic", "claude-mythos-preview", 2.0),
        ("anthropic", "something", 2.0),
        ("gemini", "gemini-2.5-pro", 1.25),
        ("openrouter", "google/gemini-3-pro", 1.25),
        ("mistral", "mistral-large", 1.3),
    ],
)
def test_what_is_supposed_of_a_tokenizer_before_it_was_measured(
    provider: str, model: str, prior: float
) -> None:
    assert tokenizer_of(provider, model).prior == prior * ONE


def test_what_is_not_known_is_one_way_to_count() -> None:
    assert tokenizer_of("openai", "a") is tokenizer_of("scripted", "b") is tokenizer_of("", "") is ANY
