"""A YAML document as plain data, with where each key stands in its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

Yaml: TypeAlias = "bool | int | float | str | list[Yaml] | dict[str, Yaml] | None"
KeyPath: TypeAlias = tuple[str | int, ...]


class Position(NamedTuple):
    """A place in a file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Issue:
    """One complaint about a file. `key` is the dotted path (`rules[2].when`), empty for the whole file."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        key = f" {self.key}:" if self.key else ""
        return f"{self.file}:{self.line}:{self.column}:{key} {self.message}"


class DocumentErrors(Exception):
    """A file that can't be used, with every reason found; at least one issue."""

    def __init__(self, issues: Sequence[Issue]) -> None:
        self.issues = tuple(issues)
        super().__init__("\n".join(str(issue) for issue in self.issues))


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an entry's key (or, in a list, its item) and its value start; `raw` is a scalar's source text."""

    key: Position
    value: Position
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """`data` as read, plus positions. A path that isn't there has its nearest parent's position."""

    file: str
    data: Yaml
    spots: Mapping[KeyPath, Spot] = field(default_factory=dict[KeyPath, Spot])

    def position(self, path: KeyPath) -> Position:
        """Where the key (or list item) of `path` stands."""
        return self._spot(path).key

    def value_position(self, path: KeyPath) -> Position:
        return self._spot(path).value

    def inside(self, path: KeyPath, line: int, column: int) -> Position:
        """Where line and column (from 1) of a scalar's *text* stand in the file.

        Exact for one-line scalars and literal blocks (`|`); the start of the value for folded ones.
        """
        spot = self._spot(path)
        if path not in self.spots or not spot.raw:
            return spot.value
        if spot.raw[0] == "|":
            return _inside_literal(spot, line, column)
        if "\n" in spot.raw or line != 1:
            return spot.value
        return Position(spot.value.line, spot.value.column + _raw_offset(spot.raw, column - 1))

    def issue(self, path: KeyPath, message: str, at: Position | None = None) -> Issue:
        """An issue about `path`, at its key unless a position is given."""
        line, column = at or self.position(path)
        return Issue(self.file, line, column, dotted(path), message)

    def _spot(self, path: KeyPath) -> Spot:
        for end in range(len(path), -1, -1):
            spot = self.spots.get(path[:end])
            if spot is not None:
                return spot
        return Spot(Position(1, 1), Position(1, 1))


def dotted(path: KeyPath) -> str:
    """`("rules", 2, "when")` → `rules[2].when`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _inside_literal(spot: Spot, line: int, column: int) -> Position:
    body = spot.raw.split("\n")[1:]
    indent = next((len(row) - len(row.lstrip(" ")) for row in body if row.strip()), 0)
    return Position(spot.value.line + line, indent + column)


_ESCAPE_LENGTH = {"x": 4, "u": 6, "U": 10}


def _raw_offset(raw: str, offset: int) -> int:
    """How far into the source `raw` of a one-line scalar the character number `offset` of its value is."""
    quote = raw[0]
    if quote not in "'\"":
        return min(offset, len(raw))
    at = 1
    for _ in range(offset):
        if quote == "'" and raw.startswith("''", at):
            at += 2
        elif quote == '"' and raw[at : at + 1] == "\\":
            at += _ESCAPE_LENGTH.get(raw[at + 1 : at + 2], 2)
        else:
            at += 1
    return min(at, len(raw))
