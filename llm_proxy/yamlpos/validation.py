"""Turning pydantic's complaints about a document into issues with positions and suggestions."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llm_proxy.yamlpos.document import Document, Issue, KeyPath, Yaml


def issues_from_validation(
    error: ValidationError, document: Document, model: type[BaseModel], under: KeyPath = ()
) -> tuple[Issue, ...]:
    """One issue per complaint, in file order; unknown keys come with the nearest known one.

    `model` is what was validated, from the value at `under` in the document. Where a union failed, only the
    branch that came closest is reported. No value of the file is quoted, since it may be a secret.
    """
    details = error.errors(include_url=False, include_context=True)
    found = [_Located(detail, document.data, under) for detail in details]
    issues = {_issue(one, document, model, under) for one in _closest_branches(found)}
    return tuple(sorted(issues, key=lambda issue: (issue.line, issue.column, issue.key, issue.message)))


class _Located:
    """An error with its location split into the document's path and the names pydantic put in between."""

    def __init__(self, detail: ErrorDetails, data: Yaml, under: KeyPath) -> None:
        self.detail = detail
        path = under
        here = _at(data, under)
        self.branch: tuple[KeyPath, str] | None = None
        loc = detail["loc"]
        for n, part in enumerate(loc):
            last = n == len(loc) - 1
            if last and detail["type"] == "missing":
                path = (*path, part)
            elif _has(here, part):
                here = _child(here, part)
                path = (*path, part)
            elif self.branch is None and part != "[key]":
                self.branch = (path, str(part))
        self.path = path


def _closest_branches(found: Sequence[_Located]) -> Iterator[_Located]:
    scores: dict[KeyPath, dict[str, tuple[bool, int]]] = {}
    for one in found:
        if one.branch:
            at, label = one.branch
            wrong_shape, count = scores.setdefault(at, {}).get(label, (False, 0))
            scores[at][label] = (wrong_shape or _refused_whole(one, at), count + 1)
    best = {at: min(labels, key=lambda name: labels[name]) for at, labels in scores.items()}
    return (one for one in found if one.branch is None or best[one.branch[0]] == one.branch[1])


def _refused_whole(one: _Located, at: KeyPath) -> bool:
    """Whether a branch refused the value's own shape: further off than one that read into it."""
    return one.path == at and one.detail["type"] != "missing"


def _issue(one: _Located, document: Document, model: type[BaseModel], under: KeyPath) -> Issue:
    detail = one.detail
    match detail["type"]:
        case "extra_forbidden":
            known = sorted(_known_keys(model, one.path[len(under) : -1]))
            return document.issue(one.path, "unknown key" + hint(str(one.path[-1]), known))
        case "missing":
            return document.issue(one.path, "is required", document.position(one.path[:-1]))
        case "literal_error" | "enum":
            expected = str(detail.get("ctx", {}).get("expected", ""))
            return document.issue(one.path, f"must be {expected}" + _nearest(detail, expected))
        case _:
            message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            return document.issue(one.path, message)


def hint(word: str, known: Sequence[str]) -> str:
    """The end of a complaint about an unknown name: the nearest known one, else all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f": did you mean {near[0]!r}?"
    return f"; known here: {', '.join(known)}" if known else ""


def _nearest(detail: ErrorDetails, expected: str) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    near = difflib.get_close_matches(str(detail["input"]), choices, n=1, cutoff=0.6)
    return f": did you mean {near[0]!r}?" if near else ""


def _known_keys(model: type[BaseModel], path: KeyPath) -> set[str]:
    """The keys that any model standing at `path` under `model` knows."""
    here: list[object] = [model]
    for part in path:
        here = [inner for kind in _flat(here) for inner in _inside(kind, part)]
    names: set[str] = set()
    for kind in _flat(here):
        if _is_model(kind):
            names |= {field.alias or name for name, field in kind.model_fields.items()}
    return names


def _is_model(kind: object) -> typing.TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _flat(kinds: Iterable[object]) -> Iterator[object]:
    """Every kind with unions, `Annotated` and type aliases taken apart."""
    for kind in kinds:
        origin = typing.get_origin(kind)
        if origin in (typing.Union, types.UnionType):
            yield from _flat(typing.get_args(kind))
        elif origin is typing.Annotated:
            yield from _flat(typing.get_args(kind)[:1])
        elif hasattr(kind, "__value__"):
            yield from _flat([getattr(kind, "__value__")])  # noqa: B009 (an alias of `type X = …`, 3.12 on)
        else:
            yield kind


def _inside(kind: object, part: str | int) -> Iterator[object]:
    if _is_model(kind):
        for name, field in kind.model_fields.items():
            if part in (field.alias, name):
                yield field.annotation
        return
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        yield from args[1:2]
    elif isinstance(origin, type) and issubclass(origin, (Sequence, set, frozenset)):
        yield from (arg for arg in args if arg is not Ellipsis)


def _at(data: Yaml, path: KeyPath) -> Yaml:
    for part in path:
        data = _child(data, part)
    return data


def _has(data: Yaml, part: str | int) -> bool:
    if isinstance(data, dict):
        return part in data
    return isinstance(data, list) and isinstance(part, int) and 0 <= part < len(data)


def _child(data: Yaml, part: str | int) -> Yaml:
    if isinstance(data, dict):
        return data.get(str(part))
    return data[part] if isinstance(data, list) and isinstance(part, int) else None
