"""Argument texts have one reading or none."""

from __future__ import annotations

import pytest

from llm_proxy.policy.arguments import BadArgs, parse_arguments


def parse(text: str, max_bytes: int = 65_536, max_depth: int = 16) -> object:
    return parse_arguments(text, max_bytes=max_bytes, max_depth=max_depth)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": 1, "\\u0061": 2}', "twice"),
        ('{"x": {"a": 1, "a": 1}}', "twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "too large for a double"),
        ('{"a": -1e999}', "too large for a double"),
        ('{"a": 9223372036854775808}', "64 bits"),
        ('{"a": -9223372036854775809}', "64 bits"),
        ('{"a": 1' + "0" * 5000 + "}", "64 bits"),
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ('{"a": "\ud800"}', "surrogate"),
        ('{"a": "x\\u0000y"}', "U+0000"),
        ('{"x\\u0000y": 1}', "U+0000"),
        ("[1]", "not a JSON object"),
        ('"{}"', "not a JSON object"),
        ("null", "not a JSON object"),
        (" ", "not valid JSON"),
        ('{"a": 1} {}', "not valid JSON"),
        ('\ufeff{"a": 1}', "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ('{"a": 01}', "not valid JSON"),
        ('{"a": 1,}', "not valid JSON"),
        ('{"a": "\t"}', "not valid JSON"),
        ('{"a": [' + "0," * 1000 + "0]}", "more than 1000 items"),
        ("{" + ",".join(f'"k{n}": 0' for n in range(1001)) + "}", "more than 1000 items"),
    ],
)
def test_refused(text: str, words: str) -> None:
    result = parse(text)
    assert isinstance(result, BadArgs)
    assert words in result.why


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("{}", {}),
        (' {"a": [1, 2.5, null, true, "é"]}\n', {"a": [1, 2.5, None, True, "é"]}),
        ('{"a": 9223372036854775807, "b": -9223372036854775808}', {"a": 2**63 - 1, "b": -(2**63)}),
        ('{"a": "\\ud83d\\ude00"}', {"a": "😀"}),
        ('{"a": "[[[[[[[[[[[[[[[[[[[[[["}', {"a": "[" * 22}),
        ('{"a": "\\"[[[[[[[[[[[[[[[[[[[[["}', {"a": '"' + "[" * 21}),
    ],
)
def test_read(text: str, value: object) -> None:
    assert parse(text) == value


def test_depth_counts_the_object_itself() -> None:
    assert parse('{"a": ' + "[" * 15 + "]" * 15 + "}") == {"a": _nested(15)}
    assert isinstance(parse('{"a": ' + "[" * 16 + "]" * 16 + "}"), BadArgs)


def _nested(depth: int) -> list[object]:
    return [_nested(depth - 1)] if depth > 1 else []


def test_siblings_do_not_add_to_the_depth() -> None:
    assert parse('{"a": [' + ",".join(["[]"] * 100) + "]}") == {"a": [[]] * 100}


def test_bytes_not_characters_are_counted() -> None:
    assert isinstance(parse('{"a": "' + "é" * 50 + '"}', max_bytes=100), BadArgs)
    assert parse('{"a": "' + "e" * 50 + '"}', max_bytes=100) == {"a": "e" * 50}


def test_hostile_nesting_never_recurses() -> None:
    for text in ("[" * 1_000_000, '{"a":' * 200_000, '"' + "[" * 1_000_000):
        assert isinstance(parse(text, max_bytes=2_000_000), BadArgs)
