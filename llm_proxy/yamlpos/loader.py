"""Reading YAML strictly: plain data and positions, with duplicate keys, tags and expansion bombs refused.

Scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema) rather than 1.1, so
that `on` is a key and `1e-6` a number, with two departures: `2_000_000` is a number, and `007`, `.inf` and
`.nan` are strings. Mapping keys are always strings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, cast

import yaml

from llm_proxy.yamlpos.document import Document, DocumentErrors, Issue, KeyPath, Position, Spot, Yaml

ScalarHook: TypeAlias = Callable[[str, KeyPath, Position], str]
"""Given a string value, its path and where it starts; returns its replacement, or raises ValueError(why)."""

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 200_000
"""Nodes after aliases are expanded."""

_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_MERGE = "tag:yaml.org,2002:merge"
_CONTAINERS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


class _TooDeep(yaml.YAMLError):
    def __init__(self, mark: yaml.Mark) -> None:
        self.problem_mark = mark
        self.problem = f"is nested deeper than {MAX_DEPTH} levels"


class _Composer(yaml.SafeLoader):
    """SafeLoader with our scalars and a depth cap; used for its nodes only, never to construct objects."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _TooDeep(cast("yaml.Mark", self.peek_event().start_mark))  # pyright: ignore[reportUnknownMemberType]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern, _first in (
    (_NULL, r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    (_BOOL, r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    (_INT, r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+)$", list("-+0123456789")),
    (
        _FLOAT,
        r"^[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*\.[0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$",
        list("-+.0123456789"),
    ),
    (_MERGE, r"^<<$", ["<"]),
):
    for _char in _first:
        _Composer.yaml_implicit_resolvers.setdefault(_char, []).append((_tag, re.compile(_pattern)))


def load_yaml(source: Path | bytes | str, file: str = "", scalar: ScalarHook | None = None) -> Document:
    """Read one document from a path, or from bytes or text that came from `file`.

    `scalar` sees every string value (keys excepted), quoted or not. An empty file is `{}`.
    Raises DocumentErrors with everything that is wrong, unreadable files included.
    """
    name = file or (str(source) if isinstance(source, Path) else "<text>")
    text = source if isinstance(source, str) else _read(source, name)
    if len(text) > MAX_BYTES:
        raise DocumentErrors([Issue(name, 1, 1, "", f"is larger than {MAX_BYTES} characters: split it")])
    root = _compose(text, name)
    if root is None:
        return Document(name, {})
    builder = _Builder(name, text, scalar)
    data = builder.build(root, (), _position(root))
    if builder.issues:
        raise DocumentErrors(builder.issues)
    return Document(name, data, builder.spots)


def _read(source: Path | bytes, name: str) -> str:
    try:
        raw = source.read_bytes() if isinstance(source, Path) else source
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentErrors(
            [Issue(name, 1, 1, "", f"is not UTF-8 (byte {error.start}): save it as UTF-8")]
        ) from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DocumentErrors([Issue(name, 1, 1, "", f"can't be read: {why}")]) from error


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        return _Composer(text).get_single_node()
    except yaml.YAMLError as error:
        mark = cast("yaml.Mark | None", getattr(error, "problem_mark", None))
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "can't be parsed"
        raise DocumentErrors([Issue(name, line, column, "", f"is not valid YAML: {problem}")]) from error


def _position(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)


class _Builder:
    """Turns nodes into data, once per document."""

    def __init__(self, file: str, text: str, scalar: ScalarHook | None) -> None:
        self._file = file
        self._text = text
        self._scalar = scalar
        self._nodes = 0
        self.issues: list[Issue] = []
        self.spots: dict[KeyPath, Spot] = {}

    def build(self, node: yaml.Node, path: KeyPath, key: Position) -> Yaml:
        self._nodes += 1
        if self._nodes > MAX_NODES or len(path) > MAX_DEPTH:
            self._complain(node, path, "expands to too much: aliases repeat or contain themselves")
            raise DocumentErrors(self.issues)
        if isinstance(node, yaml.ScalarNode):
            raw = self._text[node.start_mark.index : node.end_mark.index]
            self.spots[path] = Spot(key, _position(node), raw)
            return self._value(node, path)
        self.spots[path] = Spot(key, _position(node))
        if node.tag not in _CONTAINERS:
            self._complain(node, path, f"has the tag {node.tag}: tags are not supported")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        items = cast("list[yaml.Node]", node.value)
        return [self.build(item, (*path, n), _position(item)) for n, item in enumerate(items)]

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Yaml]:
        own: dict[str, Yaml] = {}
        merged: list[yaml.Node] = []
        for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            if key.tag == _MERGE:
                merged += (
                    cast("list[yaml.Node]", value.value) if isinstance(value, yaml.SequenceNode) else [value]
                )
            elif not isinstance(key, yaml.ScalarNode):
                self._complain(key, path, "has a key that is not a plain string")
            elif (name := cast("str", key.value)) in own:
                first = self.spots[(*path, name)].key.line
                self._complain(key, (*path, name), f"is written twice (first in line {first}): remove one")
            else:
                own[name] = self.build(value, (*path, name), _position(key))
        return self._with_merged(own, merged, path)

    def _with_merged(self, own: dict[str, Yaml], merged: list[yaml.Node], path: KeyPath) -> dict[str, Yaml]:
        """`<<`: keys written out win over merged ones, and earlier merges over later ones."""
        for source in merged:
            if not isinstance(source, yaml.MappingNode):
                self._complain(source, (*path, "<<"), "must name a mapping, or a list of mappings")
                continue
            kept = {
                at: spot for at, spot in self.spots.items() if at[: len(path)] == path and len(at) > len(path)
            }
            for name, value in self._mapping(source, path).items():
                own.setdefault(name, value)
            self.spots |= kept
        return own

    def _value(self, node: yaml.ScalarNode, path: KeyPath) -> Yaml:
        text = cast("str", node.value)
        match node.tag:
            case "tag:yaml.org,2002:null":
                return None
            case "tag:yaml.org,2002:bool":
                return text.lower() == "true"
            case "tag:yaml.org,2002:int":
                return self._number(node, path, lambda: int(text.replace("_", ""), _base(text)))
            case "tag:yaml.org,2002:float":
                return self._number(node, path, lambda: float(text.replace("_", "")))
            case "tag:yaml.org,2002:str" | "tag:yaml.org,2002:merge":
                return self._string(node, path, text)
            case other:
                self._complain(node, path, f"has the tag {other}: tags are not supported")
                return None

    def _number(self, node: yaml.Node, path: KeyPath, read: Callable[[], int | float]) -> Yaml:
        try:
            number = read()
            if abs(number) < 2**63 and math.isfinite(number):
                return number
        except ValueError:
            pass  # an explicit !!int over words, or more digits than int() reads: answered below
        self._complain(node, path, "is not a number that fits 64 bits")
        return None

    def _string(self, node: yaml.Node, path: KeyPath, text: str) -> str:
        if self._scalar is None:
            return text
        try:
            return self._scalar(text, path, _position(node))
        except ValueError as error:
            self._complain(node, path, str(error))
            return text

    def _complain(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self.issues.append(Document(self._file, None).issue(path, message, _position(node)))


def _base(text: str) -> int:
    digits = text.lstrip("+-")
    return 16 if digits.startswith("0x") else 8 if digits.startswith("0o") else 10
