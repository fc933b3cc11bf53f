"""Values of the config that is imported, with their paths: what isn't of the kind asked for is None."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from llm_proxy.yamlpos import KeyPath, Yaml

_SWITCHES = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


@dataclass(frozen=True, slots=True)
class Field:
    """Any value of the source. What is absent, null or of another kind is None, or holds nothing."""

    value: Yaml
    path: KeyPath = ()

    def get(self, key: str) -> Field | None:
        """The entry `key` of a mapping, where it is there and not null."""
        found = self.value.get(key) if isinstance(self.value, dict) else None
        return None if found is None else Field(found, (*self.path, key))

    def at(self, key: str) -> Field:
        """The same; where it isn't there, a field that holds nothing."""
        return self.get(key) or Field(None, (*self.path, key))

    def entries(self) -> list[tuple[str, Field]]:
        """Those of a mapping that are not null."""
        if not isinstance(self.value, dict):
            return []
        return [(key, Field(v, (*self.path, key))) for key, v in self.value.items() if v is not None]

    def items(self) -> list[Field]:
        """Those of a list."""
        if not isinstance(self.value, list):
            return []
        return [Field(item, (*self.path, n)) for n, item in enumerate(self.value)]

    def leaves(self) -> Iterator[Field]:
        return (Field(value, path) for path, value in leaves(self.value, self.path))

    @property
    def empty(self) -> bool:
        return self.value in (None, "", [], {})

    @property
    def text(self) -> str | None:
        """Text that isn't empty."""
        return self.value if isinstance(self.value, str) and self.value else None

    @property
    def switch(self) -> bool | None:
        """On or off; LiteLLM reads YAML 1.1, where `yes` and `off` are switches too."""
        if isinstance(self.value, str):
            return _SWITCHES.get(self.value.lower())
        return self.value if isinstance(self.value, bool) else None

    @property
    def number(self) -> float | None:
        """A finite number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            return None
        return self.value if math.isfinite(self.value) else None

    def whole(self, least: int, most: int) -> int | None:
        """A number without a fraction, from `least` to `most`."""
        number = self.number
        if number is None or number != int(number) or not least <= number <= most:
            return None
        return int(number)


def leaves(value: Yaml, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Yaml]]:
    """Every scalar, and every mapping or list without entries, with its path, in the file's order."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for n, inner in enumerate(value):
            yield from leaves(inner, (*path, n))
    else:
        yield path, value
