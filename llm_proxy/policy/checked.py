"""Reading a compiled CEL expression back, to see how its loops nest.

A `cel_expr_python` expression serializes to a `google.protobuf.Any` holding a `cel.expr.CheckedExpr`
(https://github.com/google/cel-spec/blob/master/proto/cel/expr/checked.proto and syntax.proto). Only the
fields that lead to sub-expressions are followed.
"""

from __future__ import annotations

from collections.abc import Iterator

_ANY_VALUE = 2
_CHECKED_EXPR = 4

# message → field number → message there
_FIELDS: dict[str, dict[int, str]] = {
    "Expr": {5: "Select", 6: "Call", 7: "List", 8: "Struct", 9: "Comprehension"},
    "Select": {1: "Expr"},
    "Call": {1: "Expr", 3: "Expr"},
    "List": {1: "Expr"},
    "Struct": {2: "Entry"},
    "Entry": {3: "Expr", 4: "Expr"},
    "Comprehension": {2: "Expr", 4: "Expr", 5: "Expr", 6: "Expr", 7: "Expr"},
}
_RANGE = 2
_ACCUMULATOR = 4
_LIST_EXPR = 7


def builds_list_in_loop(serialized: bytes) -> bool:
    """Whether a `map` or `filter` stands in the body of another macro, where its cost is at least squared."""
    checked = next(body for number, body in _messages(serialized) if number == _ANY_VALUE)
    return any(
        _nests("Expr", body, in_loop=False) for number, body in _messages(checked) if number == _CHECKED_EXPR
    )


def _nests(kind: str, message: bytes, *, in_loop: bool) -> bool:
    fields = list(_messages(message))
    if kind == "Comprehension" and in_loop and _accumulates_list(fields):
        return True
    for number, body in fields:
        inner = _FIELDS[kind].get(number)
        loop = in_loop or (kind == "Comprehension" and number != _RANGE)
        if inner and _nests(inner, body, in_loop=loop):
            return True
    return False


def _accumulates_list(comprehension: list[tuple[int, bytes]]) -> bool:
    """`map` and `filter` start from an empty list; `all`, `exists` and `exists_one` from a bool or an int."""
    return any(
        inner == _LIST_EXPR
        for number, body in comprehension
        if number == _ACCUMULATOR
        for inner, _ in _messages(body)
    )


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message (https://protobuf.dev/programming-guides/encoding)."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                _, at = _varint(data, at)
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
