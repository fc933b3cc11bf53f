"""Reading YAML strictly, with positions and suggestions."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_proxy.yamlpos import Document, DocumentErrors, Issue, issues_from_validation, load_yaml


def refusal(text: str | bytes) -> Issue:
    with pytest.raises(DocumentErrors) as caught:
        load_yaml(text, "f.yaml")
    return caught.value.issues[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("2_000_000", 2_000_000),
        ("-1.5e3", -1500.0),
        (".5", 0.5),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("off", "off"),
        ("007", "007"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        ("'1'", "1"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_read_as_the_core_schema_says(text: str, value: object) -> None:
    data = load_yaml(f"a: {text}").data
    assert data == {"a": value}
    assert isinstance(data, dict)
    assert type(data["a"]) is type(value)


def test_keys_are_strings() -> None:
    assert load_yaml("on: 1\n1: 2\ntrue: 3\nnull: 4").data == {"on": 1, "1": 2, "true": 3, "null": 4}


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert load_yaml("# nothing\n").data == {}


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "written twice (first in line 1)"),
        ("a:\n  b: [1, {c: 1, c: 2}]\n", 2, 17, "written twice"),
        ("a: 1\nb: [\n", 3, 1, "not valid YAML"),
        ("[" * 500, 1, 65, "nested deeper"),
        ("&a [*a]", 1, 1, "expands to too much"),
        ("a: !!python/object/apply:os.system [x]", 1, 4, "tags are not supported"),
        ("a: !!python/name:os.system x", 1, 4, "tags are not supported"),
        ("a: 1e999", 1, 4, "64 bits"),
        ("a: 99999999999999999999", 1, 4, "64 bits"),
        ("? [1]\n: 2", 1, 3, "not a plain string"),
        ("a: *nope", 1, 4, "not valid YAML"),
        ("--- 1\n--- 2\n", 2, 1, "not valid YAML"),
        (b"a: \xff", 1, 1, "not UTF-8"),
        ("x: 1\ny: {<<: 3}", 2, 9, "must name a mapping"),
    ],
)
def test_refusals_say_where(text: str | bytes, line: int, column: int, words: str) -> None:
    issue = refusal(text)
    assert (issue.line, issue.column) == (line, column)
    assert words in issue.message


def test_an_alias_bomb_is_refused() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "expands to too much" in refusal("\n".join(rows)).message


def test_merges_yield_to_written_keys() -> None:
    document = load_yaml("base: &b {x: 1, y: 2}\nc:\n  <<: *b\n  y: 3\n")
    assert document.data == {"base": {"x": 1, "y": 2}, "c": {"x": 1, "y": 3}}
    assert document.position(("c", "y")) == (4, 3)


def test_a_missing_file_is_an_issue(tmp_path: Path) -> None:
    with pytest.raises(DocumentErrors, match="can't be read"):
        load_yaml(tmp_path / "none.yaml")


def test_positions_are_of_keys_items_and_parents() -> None:
    document = load_yaml("a:\n  - b: 1\n  -   c: {d: 2}\n")
    assert document.position(("a",)) == (1, 1)
    assert document.position(("a", 0)) == (2, 5)
    assert document.position(("a", 1, "c", "d")) == (3, 11)
    assert document.position(("a", 1, "c", "nothing", "here")) == (3, 7)
    assert document.value_position(("a", 1, "c", "d")) == (3, 14)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("k: abc def", (1, 5), (1, 8)),
        ("k: 'it''s x'", (1, 6), (1, 11)),
        ('k: "a\\u0041\\n b"', (1, 4), (1, 14)),
        ("k: |\n   one\n   two x\n", (2, 5), (3, 8)),
        ("k: >\n  one\n  two\n", (1, 5), (1, 4)),
        ("k: one\n  two\n", (1, 5), (1, 4)),
    ],
)
def test_places_inside_a_scalar(text: str, place: tuple[int, int], expected: tuple[int, int]) -> None:
    assert load_yaml(text).inside(("k",), *place) == expected


def test_the_hook_sees_string_values_only() -> None:
    seen: list[object] = []

    def hook(text: str, path: object, position: object) -> str:
        seen.append((text, path, position))
        return text.upper()

    document = load_yaml("a: 1\nb: x\nc: [y, 'z']\n", scalar=hook)
    assert document.data == {"a": 1, "b": "X", "c": ["Y", "Z"]}
    assert seen == [("x", ("b",), (2, 4)), ("y", ("c", 0), (3, 5)), ("z", ("c", 1), (3, 8))]


def test_every_complaint_of_the_hook_is_an_issue() -> None:
    def hook(text: str, path: object, position: object) -> str:
        raise ValueError(f"no {text}")

    with pytest.raises(DocumentErrors) as caught:
        load_yaml("a: x\nb: y\n", "f.yaml", hook)
    assert [str(issue) for issue in caught.value.issues] == ["f.yaml:1:4: a: no x", "f.yaml:2:4: b: no y"]


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    colour: str
    kind: str = Field(default="", alias="as")


class Twig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    length: int


class Tree(BaseModel):
    model_config = ConfigDict(extra="forbid")
    parts: dict[str, list[Leaf | Twig]] = {}
    crown: Leaf | None = None
    height: int = 0


def complaints(text: str) -> list[str]:
    document: Document = load_yaml(text, "f.yaml")
    with pytest.raises(ValidationError) as caught:
        Tree.model_validate(document.data)
    return [str(issue) for issue in issues_from_validation(caught.value, document, Tree)]


def test_unknown_keys_suggest_the_nearest_even_in_unions() -> None:
    found = complaints("hieght: 3\nparts:\n  left:\n    - {colour: red, az: x}\n    - lenght: 3\n")
    assert found[0] == "f.yaml:1:1: hieght: unknown key: did you mean 'height'?"
    assert "f.yaml:4:21: parts.left[0].az: unknown key; known here: as, colour, length" in found
    assert "f.yaml:5:7: parts.left[1].lenght: unknown key: did you mean 'length'?" in found


def test_an_unlike_key_lists_the_known_ones() -> None:
    assert complaints("zzz: 3") == ["f.yaml:1:1: zzz: unknown key; known here: crown, height, parts"]


def test_missing_keys_stand_at_their_parent() -> None:
    assert complaints("height: 1\ncrown: {}\n") == ["f.yaml:2:1: crown.colour: is required"]


def test_only_the_closest_branch_of_a_union_is_reported() -> None:
    assert complaints("parts: {a: [{length: long}]}") == [
        "f.yaml:1:14: parts.a[0].length: must be a valid integer, unable to parse string as an integer"
    ]


def test_no_value_is_quoted() -> None:
    assert "s3cret" not in "".join(complaints("height: s3cret-value\ncrown: s3cret-value\n"))
