"""What is said of arguments that don't fit their schema quotes the schema, and nothing of the arguments."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.policy.args_schema import compile_schema

KNOWN: dict[str, Any] = {
    "a": {"type": "integer"},
    "b": {"enum": ["x", "y"]},
    "c": {"type": "string", "pattern": "^[a-z]+$"},
}
CASES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"properties": KNOWN, "additionalProperties": False},
        {"SECRET": 1},
        "at /: an argument that the schema doesn't know",
    ),
    ({"unevaluatedProperties": False}, {"SECRET": 1}, "at /: an argument that the schema doesn't know"),
    ({"propertyNames": {"maxLength": 2}}, {"SECRET": 1}, "at /: the name of an argument doesn't fit"),
    (
        {"additionalProperties": {"type": "integer"}},
        {"SECRET": "SECRET"},
        'at /*: the value is not of type "integer"',
    ),
    ({"properties": KNOWN}, {"a": "SECRET"}, 'at /a: the value is not of type "integer"'),
    ({"properties": KNOWN}, {"b": "SECRET"}, 'at /b: the value is not one of "x" or "y"'),
    ({"properties": KNOWN}, {"c": "SECRET"}, 'at /c: the value does not match "^[a-z]+$"'),
    ({"required": ["id"]}, {"SECRET": 1}, 'at /: "id" is a required property'),
    (
        {"properties": {"list": {"items": {"type": "integer"}}}},
        {"list": [1, "SECRET"]},
        'at /list/1: the value is not of type "integer"',
    ),
    (
        {"patternProperties": {"^S": {"properties": {"a": {"type": "integer"}}}}},
        {"SECRET": {"a": "SECRET"}},
        'at /*/a: the value is not of type "integer"',
    ),
]


@pytest.mark.parametrize(("schema", "arguments", "words"), CASES)
def test_a_complaint_quotes_the_schema_alone(
    schema: dict[str, Any], arguments: dict[str, Any], words: str
) -> None:
    assert compile_schema(schema).complaint(arguments) == words


def test_what_fits_has_none() -> None:
    assert compile_schema({"properties": KNOWN}).complaint({"a": 1, "b": "x", "c": "abc"}) == ""
