"""Reading a compiled CEL expression back as a tree.

A `cel_expr_python` expression serializes to a `google.protobuf.Any` holding a `cel.expr.CheckedExpr`
(https://github.com/google/cel-spec/blob/master/proto/cel/expr/checked.proto and syntax.proto). Only what
tells costs is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_ANY_VALUE = 2
_REFERENCES, _CHECKED_EXPR = 2, 4
_CONST, _STRUCT, _STRING_CONST = 3, 8, 6
_PLAIN: dict[int, tuple[str, int, tuple[int, ...]]] = {
    4: ("ident", 1, ()),
    5: ("select", 2, (1,)),
    6: ("call", 2, (1, 3)),
    7: ("list", 0, (1,)),
    9: ("macro", 3, (2, 4, 5, 6, 7)),
}
"""By field of an Expr: the kind, and the fields of its name and of its parts."""


@dataclass(frozen=True, slots=True)
class Node:
    """One expression. `kind` is const, ident, select, call, list, struct or macro.

    `name` is an identifier's, a function's, or a macro's accumulator. A call's `parts` are its target
    and its arguments; a macro's are its range, its start, and what runs for each item.
    """

    kind: str
    name: str = ""
    parts: tuple[Node, ...] = ()
    overloads: tuple[str, ...] = ()
    text: str | None = None
    """A constant's, where it's a string."""

    @property
    def builds_list(self) -> bool:
        """Whether it's a `map` or a `filter`: they start from an empty list, others from a bool or an int."""
        return self.kind == "macro" and self.parts[1].kind == "list"


def read_tree(serialized: bytes) -> Node:
    """The tree of an expression's `serialize()`."""
    checked = next(body for number, body in _messages(serialized) if number == _ANY_VALUE)
    references: dict[int, tuple[str, ...]] = {}
    root = b""
    for number, body in _messages(checked):
        if number == _REFERENCES:
            reference = next((inner for field, inner in _messages(body) if field == 2), b"")
            overloads = (inner.decode() for field, inner in _messages(reference) if field == 3)
            references[_number(body, 1)] = tuple(overloads)
        elif number == _CHECKED_EXPR:
            root = body
    return _node(root, references)


def _node(expression: bytes, references: dict[int, tuple[str, ...]]) -> Node:
    for number, body in _messages(expression):
        fields = list(_messages(body))
        if number in _PLAIN:
            kind, name, parts = _PLAIN[number]
            overloads = references.get(_number(expression, 2), ()) if kind == "call" else ()
            return Node(kind, _text(fields, name), _nodes(fields, parts, references), overloads)
        if number == _STRUCT:
            entries = [pair for field, entry in fields if field == 2 for pair in _messages(entry)]
            return Node("struct", parts=_nodes(entries, (3, 4), references))
        if number == _CONST:
            found = (inner.decode() for field, inner in fields if field == _STRING_CONST)
            return Node("const", text=next(found, None))
    return Node("const")


def _nodes(
    fields: list[tuple[int, bytes]], wanted: tuple[int, ...], references: dict[int, tuple[str, ...]]
) -> tuple[Node, ...]:
    """The expressions in these fields, in the order of `wanted`."""
    return tuple(_node(body, references) for number in wanted for field, body in fields if field == number)


def _text(fields: list[tuple[int, bytes]], wanted: int) -> str:
    return next((body.decode() for field, body in fields if field == wanted), "")


def _number(message: bytes, wanted: int) -> int:
    return next((value for field, value in _fields(message) if field == wanted and isinstance(value, int)), 0)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message."""
    return ((field, value) for field, value in _fields(data) if isinstance(value, bytes))


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """All fields that are varints or length-delimited (https://protobuf.dev/programming-guides/encoding)."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
            case 1:
                at += 8
            case 2:
                size, at = _varint(data, at)
                yield key >> 3, data[at : at + size]
                at += size
            case 5:
                at += 4
            case wire:
                raise ValueError(f"a compiled expression holds the unknown wire type {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
