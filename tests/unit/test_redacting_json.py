"""Detectors in JSON: a value is found however it is escaped, and what is left is JSON that says all else."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.policy.vocabulary import Detector, Replacement
from llm_proxy.redacting.recorded import RecordMask
from llm_proxy.redacting.rules import Rule, redacted

KEY = b"k" * 32
CARD, MAIL, IBAN = "4111 1111 1111 1111", "ada@example.com", "DE89 3704 0044 0532 0130 00"
VALUES = [
    ("iban", IBAN),
    ("iban", "DE89370400440532013000"),
    ("phone", "+49 170 1234567"),
    ("email", MAIL),
    ("email", f"{'a' * 64}@example.com"),
    ("card_number", CARD),
]


def rule(kind: str, how: str = "mask") -> Rule:
    return Rule(kind, "*", (), cast("Detector", kind), cast("Replacement", how), None)


def after(text: str, *rules: Rule) -> str:
    return redacted(rules, text, KEY)[0]


@pytest.mark.parametrize(("kind", "value"), VALUES)
@pytest.mark.parametrize("how", ["mask", "token", "remove"])
@pytest.mark.parametrize("blank", ["\n", "\t", '"', "\\"])
def test_a_value_behind_an_escape_is_found_and_the_json_stays(
    kind: str, value: str, how: str, blank: str
) -> None:
    said = after(json.dumps({"note": f"Pay to:{blank}{value}{blank}!"}), rule(kind, how))
    note = json.loads(said)["note"]
    assert value not in note
    assert note.startswith(f"Pay to:{blank}")
    assert note.endswith(f"{blank}!")


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_a_token_is_the_same_behind_an_escape(kind: str, value: str) -> None:
    plain, escaped = (after(json.dumps({"v": blank + value}), rule(kind, "token")) for blank in (" ", "\n"))
    assert json.loads(plain)["v"].strip() == json.loads(escaped)["v"].strip()


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_a_value_behind_an_escape_is_found_where_nothing_reads_the_json(kind: str, value: str) -> None:
    said = after(f'The tool said {{"note": "to:\\n{value}"}}', rule(kind))
    assert said == 'The tool said {"note": "to:\\n[redacted]"}'


def test_each_rule_replaces_its_own_in_a_string_with_escapes() -> None:
    text = json.dumps({"note": f"\U0001f4b3\n{CARD}\tof\n{MAIL}"})
    said = after(text, rule("email"), rule("card_number", "last4"))
    assert said == '{"note": "\\ud83d\\udcb3\\n****1111\\tof\\n[redacted]"}'


@pytest.mark.parametrize(
    "number", ["4111111111111111", "4111111111111111.0", "4111111111111111e0", "-4111111111111111"]
)
@pytest.mark.parametrize("around", ["[1.5, %s]", '{"n": %s, "m": 2}', "[%s"])
def test_a_number_becomes_a_string_whole(number: str, around: str) -> None:
    assert after(around % number, rule("card_number")) == around % '"[redacted]"'


def test_digits_between_commas_within_a_string_are_no_number() -> None:
    said = after('{"csv": "7,4111111111111111,8", "n": [ 4111111111111111 ]}', rule("card_number"))
    assert json.loads(said) == {"csv": "7,[redacted],8", "n": ["[redacted]"]}


RULES = (rule("card_number"), rule("email"), rule("iban"))
_words = st.sampled_from(
    ["\n", "\t", '"', "\\", "/", "\u00e9", "\U0001f600", ",", " ", "x", CARD, MAIL, IBAN, "1"]
)
_texts = st.lists(_words, max_size=8).map(lambda words: "".join(["(", *words]))
_numbers = st.sampled_from([0, 1.5, -7, 4111111111111111, -4111111111111111])
_documents = st.recursive(
    _texts | _numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", '"', "\n"]), inner),
    max_leaves=8,
)


def each(value: Any) -> Any:
    """The document with each of its strings redacted by itself, as plain text."""
    match value:
        case str():
            return after(value, *RULES)
        case list():
            return [each(item) for item in cast("list[Any]", value)]
        case dict():
            return {key: each(item) for key, item in cast("dict[str, Any]", value).items()}
        case _:
            return "[redacted]" if abs(value) > 99 else value


@given(_documents, st.booleans())
def test_a_document_is_redacted_as_its_strings_are(document: Any, ascii_: bool) -> None:
    said = after(json.dumps([document], ensure_ascii=ascii_), *RULES)
    assert json.loads(said) == [each(document)]


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_records_are_masked_behind_an_escape(kind: str, value: str) -> None:
    body = json.dumps({"content": f"to:\n{value}"}).encode()
    masked = RecordMask(KEY, (rule(kind),)).content(body)
    assert masked is not None
    assert json.loads(masked) == {"content": "to:\n[redacted]"}


@pytest.mark.parametrize("number", ["4111111111111111", "4111111111111111.0", "-4111111111111111"])
def test_numbers_in_records(number: str) -> None:
    masked = RecordMask(KEY, (rule("card_number"),)).content(f'{{"input": {{"n": {number}}}}}'.encode())
    assert masked is not None
    assert "4111" not in json.loads(masked)["input"]["n"]
