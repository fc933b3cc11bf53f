"""Masks on text that comes in any pieces: no value gets out, nothing else changes, and little waits."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.policy.vocabulary import Replacement
from llm_proxy.redacting.masking import Guard, TextMask
from llm_proxy.redacting.rules import Rule, redacted
from llm_proxy.redacting.values import Kept, kept, words_of

KEY = b"k" * 32
VALUES = ("85000", "John Smith", "Müller-Straße 5", "张伟", "4711-0815")
CARD, IBAN, MAIL = "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00", "jo.doe@example.com"
MASK: Replacement = "mask"


def guard(*, detects: bool = True) -> Guard:
    pieces: list[Kept] = [piece for value in VALUES for piece in kept(value, KEY)]
    return Guard(
        KEY,
        {piece.hash: MASK for piece in pieces},
        frozenset(piece.length for piece in pieces),
        (("card_number", MASK), ("iban", MASK), ("email", MASK), ("secret", MASK)) if detects else (),
    )


GUARDS = {True: guard(), False: guard(detects=False)}
SPELT = st.sampled_from(
    [
        *VALUES,
        *("85,000", "85 000", "8\u200b5000", "**85**000", "JOHN   smith", "John\nSmith", "\uff2aohn smith"),
        *("mu\u0308ller strasse 5", "MÜLLER-STRASSE 5", CARD, IBAN, MAIL, CARD.replace(" ", "")),
    ]
)
PLAIN = st.sampled_from(
    [
        "She",
        "85001",
        "185000",
        "Johnny",
        "Smithson",
        "12 34",
        "a@b",
        "DE11",
        "4111",
        "-",
        "…",
        "\n\n",
        "é",
        "(",
        "5",
    ]
)
TEXTS = st.lists(SPELT | PLAIN | st.text(max_size=6), max_size=12).map(" | ".join)
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=20)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    pieces: list[str] = []
    at = n = 0
    while at < len(text):
        pieces.append(text[at : at + cuts[n % len(cuts)]])
        at += cuts[n % len(cuts)]
        n += 1
    return pieces


def folded(text: str) -> str:
    return "".join([word.folded for word in words_of(text)])


@settings(max_examples=300)
@given(TEXTS, CUTS, st.booleans())
def test_pieces_make_no_difference_and_no_value_gets_out(text: str, cuts: list[int], detects: bool) -> None:
    once, mask = TextMask(GUARDS[detects]), TextMask(GUARDS[detects])
    whole = once.feed(text) + once.end()
    got = ""
    for piece in pieces_of(text, cuts):
        got += mask.feed(piece)
        assert mask.waiting <= 600
    got += mask.end()
    assert got == whole
    again = TextMask(GUARDS[detects])
    assert again.feed(whole) + again.end() == whole, "a value is left"


@given(st.lists(PLAIN, max_size=12).map(" ; ".join), CUTS)
def test_text_without_values_stays_as_it_is(text: str, cuts: list[int]) -> None:
    mask = TextMask(GUARDS[True])
    assert "".join([mask.feed(piece) for piece in pieces_of(text, cuts)]) + mask.end() == text


@given(SPELT, st.integers(0, 30), CUTS)
def test_a_value_never_stands_whole_where_something_is_said_inside_of_it(
    value: str, at: int, cuts: list[int]
) -> None:
    mask = TextMask(GUARDS[True])
    got = mask.feed("It is " + value[:at]) + mask.pause()
    got += "".join([mask.feed(piece) for piece in pieces_of(value[at:] + " indeed.", cuts)]) + mask.end()
    assert folded(value) not in folded(got)


@given(CUTS)
def test_what_waits_is_no_longer_than_the_longest_value(cuts: list[int]) -> None:
    mask = TextMask(GUARDS[False])
    longest = max(GUARDS[False].lengths)
    for piece in pieces_of("so it goes on and on, with nothing in it to hide. " * 5, cuts):
        mask.feed(piece)
        assert len(folded(mask._held)) <= longest


def test_what_would_wait_too_long_is_masked_up_to_the_next_blank() -> None:
    mask = TextMask(GUARDS[True])
    key = "sk-" + "a1B2c3D4e5" * 3_000
    assert mask.feed("key " + key) + mask.feed("XYZ9 more") + mask.end() == "key [redacted] more"


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "b", 'q"', "é"]), inner, max_size=3)
        ),
        max_leaves=12,
    ),
    st.booleans(),
)
def test_a_field_rule_changes_that_field_alone(document: object, ascii_: bool) -> None:
    rule = Rule("r", "*", ("a", "b"), None, "mask", None)
    text, _ = redacted([rule], json.dumps(document, ensure_ascii=ascii_), KEY)
    assert json.loads(text) == _expected(document, ("a", "b"))


def _expected(value: object, path: tuple[str, ...]) -> object:
    if isinstance(value, list):
        return [_expected(item, path) for item in value]
    if not path:
        return value if value is None else "[redacted]"
    if isinstance(value, dict):
        return {key: _expected(item, path[1:]) if key == path[0] else item for key, item in value.items()}
    return value
