"""What several replies report of their usage, added up: JSON objects of numbers, in whatever dialect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.members import NULL

_value = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def added_up(usages: Iterable[bytes]) -> bytes:
    """One object with the sum of each number, however deep; of any other value the last one stands."""
    total: Any = None
    for raw in usages:
        try:
            total = _added(total, _value(raw))
        except CANNOT_READ:
            continue
    return NULL if total is None else _encode(total)


def _added(one: Any, other: Any) -> Any:
    match one, other:
        case dict(), dict():
            mine, more = cast(dict[str, Any], one), cast(dict[str, Any], other)
            return {key: _added(mine.get(key), more.get(key)) for key in dict.fromkeys([*mine, *more])}
        case (bool(), _) | (_, bool()):
            pass
        case ((int() | float()), (int() | float())):
            return one + other
        case _:
            pass
    return one if other is None else other
