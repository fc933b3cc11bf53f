"""What is recorded is shown without anything that a terminal acts on; money and times are readable."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cli.text import clean, clip, cost, duration, line, money
from llm_proxy.records.view import CostLabel


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_acts_on_is_left(text: str) -> None:
    shown = clean(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs") and c != "\n"]
    assert not [
        c for c in shown if unicodedata.bidirectional(c) in ("RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI")
    ]
    shown.encode()
    assert clean(shown) == shown


@given(st.text(st.characters()))
def test_a_line_is_one_line(text: str) -> None:
    assert len(line(text).splitlines()) <= 1


@given(st.text(st.characters(categories=("L", "N", "P"))))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("a\rb", "a␍b"),
        ("a\r\nb", "a\nb"),
        ("\x9b31m", "\ufffd31m"),
        ("pay\u202egnp.exe", "pay\ufffdgnp.exe"),
        ("hi\U000e0041there", "hi\ufffdthere"),
        ("\ud800", "\ufffd"),
        ("[bold]x[/bold] :smile:", "[bold]x[/bold] :smile:"),
        ("col\tcol", "col    col"),
    ],
)
def test_hostile_text_is_shown_and_does_nothing(hostile: str, shown: str) -> None:
    assert clean(hostile) == shown


@given(st.text(max_size=300), st.integers(1, 200))
def test_a_clip_says_how_much_it_left_out(text: str, most: int) -> None:
    shown = clip(text, most)
    if len(text) <= most:
        assert shown == text
    else:
        assert shown.endswith(f" … ({len(text) - most:,} more characters)")


@pytest.mark.parametrize(
    ("micro", "shown"),
    [
        (0, "$0.00"),
        (1, "$0.000001"),
        (9_966, "$0.009966"),
        (250_000, "$0.25"),
        (1_500_000, "$1.50"),
        (1_234_567_890_000, "$1,234,567.89"),
        (-2_500_000, "-$2.50"),
    ],
)
def test_money_is_exact(micro: int, shown: str) -> None:
    assert money(micro) == shown


def test_a_cost_says_how_well_it_is_known() -> None:
    shown = [cost(2_000, label) for label in (*CostLabel, None)]
    assert shown == ["$0.002", "~$0.002", "≥$0.002", "unpriced", "$0.002"]
    assert cost(0, None) == ""


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.004, "0.00 s"), (59.9, "59.90 s"), (192, "3 min 12 s"), (7_500, "2 h 05 min")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
