"""The shape of values seen, as a JSON Schema: types, keys and sizes with headroom, and never a value."""

from __future__ import annotations

import re
from collections import Counter

from llm_proxy.policy.canonical import Json

MOST_KEYS = 48
"""Keys of an object beyond which they are taken for data, as are keys that are no names."""
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.-]{0,63}")
_MOST_TEXT = 65_536
_LARGE = 1e15
"""Numbers from here on get no bound."""
_MOST_ITEMS = 64
_TYPES = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


class Shape:
    """What was seen at one place. Memory: one of these for each place that has a name."""

    def __init__(self) -> None:
        self.seen = 0
        self._types: Counter[str] = Counter()
        self._longest = 0
        self._least = self._most = 0.0
        self._items: Shape | None = None
        self._most_items = 0
        self._keys: dict[str, Shape] = {}
        self._map: Shape | None = None
        """The values, where the keys are data."""

    def add(self, value: Json) -> None:
        self.seen += 1
        self._types[_TYPES[type(value)]] += 1
        match value:
            case str():
                self._longest = max(self._longest, len(value))
            case bool() | None:
                pass
            case int() | float():
                self._least, self._most = min(self._least, value), max(self._most, value)
            case list():
                self._most_items = max(self._most_items, len(value))
                self._items = self._items or Shape()
                for item in value:
                    self._items.add(item)
            case dict():
                for name, item in value.items():
                    self._at(name).add(item)

    def _at(self, name: str) -> Shape:
        if self._map is None and not self._is_name(name):
            self._map = Shape()
            for known in self._keys.values():
                self._map.join(known)
            self._keys.clear()
        return self._map or self._keys.setdefault(name, Shape())

    def _is_name(self, name: str) -> bool:
        known = name in self._keys
        return known or (len(self._keys) < MOST_KEYS and _NAME.fullmatch(name) is not None)

    def join(self, other: Shape) -> None:
        """Adds all that `other` saw."""
        self.seen += other.seen
        self._types.update(other._types)
        self._longest = max(self._longest, other._longest)
        self._least, self._most = min(self._least, other._least), max(self._most, other._most)
        self._most_items = max(self._most_items, other._most_items)
        if other._items is not None:
            self._items = self._items or Shape()
            self._items.join(other._items)
        for name, shape in other._keys.items():
            self._at(name).join(shape)
        if other._map is not None:
            self._at("").join(other._map)  # the empty text is no name, so that all keys become data

    def schema(self) -> dict[str, Json]:
        """What fits everything seen, with room: lengths double, numbers up to the next power of ten."""
        types = sorted(self._types)
        if "number" in types and "integer" in types:
            types.remove("integer")
        if not types:
            return {}
        made: dict[str, Json] = {"type": types[0] if len(types) == 1 else [*types]}
        if "string" in types:
            made["maxLength"] = min(_room(self._longest, 32), _MOST_TEXT)
        if "integer" in types or "number" in types:
            made |= self._of_numbers()
        if self._items is not None:
            made["maxItems"] = _room(self._most_items, 8)
            made["items"] = self._items.schema()
        if "object" in types:
            made |= self._of_objects()
        return made

    def _of_numbers(self) -> dict[str, Json]:
        made: dict[str, Json] = {}
        if -self._least < _LARGE:
            made["minimum"] = -_ten(-self._least) if self._least < 0 else 0
        if self._most < _LARGE:
            made["maximum"] = _ten(self._most)
        return made

    def _of_objects(self) -> dict[str, Json]:
        if self._map is not None:
            return {"additionalProperties": self._map.schema()}
        objects = self._types["object"]
        needed: list[Json] = [name for name, shape in self._keys.items() if shape.seen == objects]
        made: dict[str, Json] = {"additionalProperties": False}
        if needed:
            made["required"] = needed
        if self._keys:
            made["properties"] = {name: shape.schema() for name, shape in self._keys.items()}
        return made

    def told(self) -> list[str]:
        """The keys of the object, and how often each was there, for people."""
        if self._map is not None:
            return ["keys that are data"]
        objects = max(1, self._types["object"])
        return [
            name if shape.seen == objects else f"{name} ({shape.seen * 100 // objects} %)"
            for name, shape in self._keys.items()
        ]


def fitting(schema: Json) -> Json:
    """A made-up value for a schema such as these, or for a plain one that somebody else wrote."""
    if not isinstance(schema, dict):
        return None
    choices, kind = schema.get("enum"), schema.get("type")
    if isinstance(choices, list) and choices:
        return choices[0]
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    made: dict[str, Json] = {
        "string": "x" * max(1, _whole(schema.get("minLength"))),
        "integer": _whole(schema.get("minimum")),
        "number": _whole(schema.get("minimum")),
        "boolean": False,
    }
    if kind == "array":
        return [fitting(schema.get("items"))] * min(_whole(schema.get("minItems")), _MOST_ITEMS)
    if kind == "object":
        return _fitting_object(schema)
    return schema["const"] if "const" in schema else made.get(str(kind))


def _fitting_object(schema: dict[str, Json]) -> Json:
    properties, needed = schema.get("properties"), schema.get("required")
    known = properties if isinstance(properties, dict) else {}
    names = needed if isinstance(needed, list) else []
    return {name: fitting(known.get(name, {"type": "string"})) for name in names if isinstance(name, str)}


def _whole(value: Json) -> int:
    """A bound of a schema, as far as it's a whole number that a made-up value can keep."""
    return min(value, 4_096) if isinstance(value, int) else 0


def _room(seen: int, least: int) -> int:
    """The next power of two that leaves as much again."""
    return max(least, 1 << (2 * seen - 1).bit_length()) if seen else least


def _ten(seen: float) -> int:
    """The next power of ten above."""
    most = 10
    while most <= seen:
        most *= 10
    return most
