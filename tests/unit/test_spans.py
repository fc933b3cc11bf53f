"""Positions of values in JSON bytes: exact for any document, refused where a key occurs twice."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.wire.spans import DuplicateKey, array_spans, object_spans, refuse_duplicates, splice

RAWS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw]).decode

SPACE = st.text(alphabet=" \t\n\r", max_size=3)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def rendered(draw: st.DrawFn, value: object) -> str:
    """One of the many ways to write a value: odd whitespace, escaped or plain strings."""

    def space() -> str:
        return draw(SPACE)

    if isinstance(value, dict):
        inner = ",".join(
            f"{space()}{draw(rendered(key))}{space()}:{space()}{draw(rendered(item))}{space()}"
            for key, item in value.items()
        )
        return "{" + (inner or space()) + "}"
    if isinstance(value, list):
        return (
            "[" + (",".join(f"{space()}{draw(rendered(item))}{space()}" for item in value) or space()) + "]"
        )
    if isinstance(value, str) and draw(st.booleans()):
        return '"' + "".join(rf"\u{unit:04x}" for unit in utf16(value)) + '"'
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


def utf16(text: str) -> list[int]:
    data = text.encode("utf-16-be")
    return [int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2)]


@given(st.data(), st.dictionaries(TEXT, VALUES, max_size=5), SPACE)
def test_object_spans_are_where_the_values_are(
    data: st.DataObject, document: dict[str, object], lead: str
) -> None:
    body = (lead + data.draw(rendered(document)) + lead).encode()
    spans = object_spans(body, RAWS(body))
    assert {key: json.loads(body[start:end]) for key, (start, end) in spans.items()} == document
    assert list(spans) == list(document)


@given(st.data(), st.lists(VALUES, max_size=5), SPACE)
def test_array_spans_are_where_the_values_are(data: st.DataObject, document: list[object], lead: str) -> None:
    body = (lead + data.draw(rendered(document)) + lead).encode()
    spans = array_spans(body, 0, RAW_LIST(body))
    assert [json.loads(body[start:end]) for start, end in spans] == document


@given(st.data(), st.dictionaries(TEXT, VALUES, min_size=1, max_size=5))
def test_replacing_values_changes_them_and_no_other_byte(
    data: st.DataObject, document: dict[str, object]
) -> None:
    body = data.draw(rendered(document)).encode()
    spans = object_spans(body, RAWS(body))
    keys = data.draw(st.sets(st.sampled_from(list(document))))
    edited = splice(body, [(*spans[key], b'"new"') for key in keys])
    assert json.loads(edited) == {key: "new" if key in keys else value for key, value in document.items()}
    outside = [body[b:d] for (_, b), (d, _) in zip(spans.values(), list(spans.values())[1:], strict=False)]
    position = 0
    for piece in outside:
        position = edited.index(piece, position) + len(piece)


@given(st.data(), st.dictionaries(TEXT, VALUES, min_size=1, max_size=4))
def test_a_repeated_key_is_refused_wherever_it_stands(
    data: st.DataObject, document: dict[str, object]
) -> None:
    key = data.draw(st.sampled_from(list(document)))
    members = list(document.items())
    members.insert(data.draw(st.integers(0, len(members))), (key, data.draw(VALUES)))
    body = (
        "{" + ",".join(data.draw(rendered(k)) + ":" + data.draw(rendered(v)) for k, v in members) + "}"
    ).encode()
    with pytest.raises(DuplicateKey):
        object_spans(body, RAWS(body))
    with pytest.raises(DuplicateKey):
        refuse_duplicates(b'{"outer": [' + body + b"]}")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","\\u006dodel":"b"}',
        b'{"\\u006dodel":"a","model":"a"}',
        b'{"model":12,"model":1}',
        b'{"model":1,"model":12}',
        b'{"x":1,"model":1,"y":2,"model":1}',
        b'{"model":1,"model":1,"y":2}',
    ],
)
def test_a_hidden_twin_is_found_and_named(body: bytes) -> None:
    with pytest.raises(DuplicateKey) as caught:
        object_spans(body, RAWS(body))
    assert caught.value.key == "model"


def test_spans_start_where_they_are_told() -> None:
    body = b'{"a": {"b": [1, 2]}}'
    inner = object_spans(body, RAWS(b'{"b": [1, 2]}'), 6)
    assert body[slice(*inner["b"])] == b"[1, 2]"


def test_an_array_of_other_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="byte 0"):
        array_spans(b"[1,2]", 0, RAW_LIST(b"[1,3]"))


def test_splice_without_edits_is_the_same_object() -> None:
    body = b"{}"
    assert splice(body, []) is body


def test_splice_refuses_overlaps() -> None:
    with pytest.raises(ValueError, match="overlap"):
        splice(b"abcdef", [(0, 3, b""), (2, 4, b"")])


def test_splice_replaces_and_inserts_in_order() -> None:
    assert splice(b"abc", [(3, 3, b"!"), (1, 2, b"B"), (3, 3, b"?"), (0, 0, b">")]) == b">aBc!?"


def test_distinct_keys_pass_and_huge_integers_too() -> None:
    refuse_duplicates(b'{"a": {"a": [{"a": 1}, {"a": %s}]}}' % (b"9" * 5000))
