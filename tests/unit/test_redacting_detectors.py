"""Detectors find what has a checksum or a shape of its own, and leave what only looks alike."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.policy.vocabulary import Detector
from llm_proxy.redacting.checksums import IBAN_LENGTHS, iban_holds, luhn_holds
from llm_proxy.redacting.detectors import find

KINDS: tuple[Detector, ...] = ("card_number", "iban", "email", "phone", "secret")
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/ab\nab==\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"


def found(kind: Detector, text: str) -> list[str]:
    return [text[start:end] for start, end in find(kind, text)]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("card_number", "4111111111111111"),
        ("card_number", "4111 1111 1111 1111"),
        ("card_number", "4111-1111-1111-1111"),
        ("card_number", "378282246310005"),
        ("card_number", "3782 822463 10005"),
        ("card_number", "6304 0000 0000 0000 000"),
        ("iban", "DE89370400440532013000"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "gb29 nwbk 6016 1331 9268 19"),
        ("iban", "NO93 8601 1117 947"),
        ("iban", "MT84MALT011000012345MTLCAST001S"),
        ("email", "jo.doe+tag@mail.example.co.uk"),
        ("email", "müller@exämple.de"),
        ("email", "a@b.xn--p1ai"),
        ("phone", "+49 30 1234567"),
        ("phone", "+1 (202) 555-0143"),
        ("secret", "sk-proj-abc123DEF456ghi789JKL"),
        ("secret", "AKIAIOSFODNN7EXAMPLE"),
        ("secret", "ghp_0123456789abcdefghijABCDEFGHIJ012345"),
        ("secret", "xoxb-123456789012-abcdefGHIJ"),
        ("secret", JWT),
        ("secret", PEM),
        ("secret", PEM.replace("\n", "\\n")),
    ],
)
def test_a_value_is_found_whole_among_words(kind: Detector, value: str) -> None:
    assert found(kind, value) == [value]
    assert found(kind, f"say {value}, and ({value}).") == [value, value]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("card_number", "4111 1111 1111 1112"),
        ("card_number", "0000 0000 0000 0000"),
        ("card_number", "order 41111111111111111111111"),
        ("card_number", "4111_1111_1111_1111"),
        ("iban", "DE88 3704 0044 0532 0130 00"),
        ("iban", "XX89 3704 0044 0532 0130 00"),
        ("iban", "DE8937040044053201300"),
        ("iban", "aDE89370400440532013000"),
        ("email", "a@b"),
        ("email", "@example.com"),
        ("email", "a@b..com"),
        ("phone", "2024-11-21"),
        ("phone", "030 1234567"),
        ("phone", "3+4567890"),
        ("phone", "+12345"),
        ("secret", "sk-xxxxxxxxxxxxxxxxxxxxxxxx"),
        ("secret", "risk-assessment-of-the-project-plan"),
        ("secret", "AKIA is a prefix"),
        ("secret", "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"),
    ],
)
def test_what_only_looks_alike_is_left(kind: Detector, text: str) -> None:
    assert found(kind, text) == []


def test_a_card_number_behind_digits_that_are_none_is_found() -> None:
    assert found("card_number", "No. 1234 4111 1111 1111 1111") == ["4111 1111 1111 1111"]
    assert found("card_number", "4111 1111 1111 1111 123") == ["4111 1111 1111 1111"]


def test_a_private_key_without_its_end_is_found_as_far_as_it_goes() -> None:
    cut = PEM[: PEM.index("-----END")]
    assert found("secret", cut + "é rest") == [cut]


@given(st.lists(st.integers(0, 9), min_size=12, max_size=18))
def test_one_digit_in_ten_completes_a_card_number(digits: list[int]) -> None:
    written = "".join(map(str, digits))
    holding = [last for last in "0123456789" if luhn_holds(written + last)]
    assert len(holding) == 1 or len(set(written)) == 1


@given(st.sampled_from(sorted(IBAN_LENGTHS)), st.text("0123456789ABCXYZ", min_size=30, max_size=30))
def test_one_pair_of_check_digits_completes_an_account(country: str, account: str) -> None:
    body = account[: IBAN_LENGTHS[country] - 4]
    holding = [n for n in range(2, 99) if iban_holds(f"{country}{n:02}{body}")]
    assert len(holding) == 1
    assert found("iban", f"to {country}{holding[0]:02}{body}.") == [f"{country}{holding[0]:02}{body}"]


@given(st.text(max_size=300))
def test_what_is_found_lies_in_the_text_in_order(text: str) -> None:
    for kind in KINDS:
        spans = find(kind, text)
        assert all(0 <= start < end <= len(text) for start, end in spans)
        assert all(one[1] <= other[0] for one, other in pairwise(spans))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "piece", ["a", "1", "1 ", "4111 ", "DE11 ", "a@", "a.", "x@a.", "+1 ", "sk-", "eyJ.", "-", "-----BEGIN "]
)
def test_no_input_makes_them_slow(kind: Detector, piece: str) -> None:
    text = piece * (250_000 // len(piece))
    began = time.thread_time()
    find(kind, text)
    assert time.thread_time() - began < 0.5
