"""Taking members and elements out of a JSON document as edits: commas right, every other byte as it was."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from llm_proxy.wire.spans import Edit, Span, array_spans, object_spans

Path = tuple[str | int, ...]
"""Keys and indexes from the top of a document; an index below 0 counts from the end."""

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_array = msgspec.json.Decoder(list[msgspec.Raw]).decode


def without(body: bytes, spans: Mapping[str, Span], gone: Collection[Path]) -> list[Edit]:
    """Edits that take the values at `gone` out of `body`, whose top-level values stand at `spans`.

    Paths that lead nowhere are left out; those below another of them go with it. Edits don't overlap.
    """
    return _members(body, spans, body.index(b"{") + 1, body.rindex(b"}"), gone)


def _objects(body: bytes, span: Span) -> Mapping[str, Span]:
    return object_spans(body, _object(body[slice(*span)]), span[0])


def _arrays(body: bytes, span: Span) -> tuple[Span, ...]:
    return array_spans(body, span[0], _array(body[slice(*span)]))


def _members(
    body: bytes, spans: Mapping[str, Span], start: int, end: int, gone: Collection[Path]
) -> list[Edit]:
    keys = list(spans)
    whole = {keys.index(path[0]) for path in gone if len(path) == 1 and path[0] in spans}  # pyright: ignore
    edits = _gaps(body, list(spans.values()), whole, start, end)
    for index, key in enumerate(keys):
        if index not in whole:
            edits += _below(body, spans[key], [path[1:] for path in gone if path[0] == key])
    return edits


def _below(body: bytes, span: Span, gone: Collection[Path]) -> list[Edit]:
    if not gone:
        return []
    start, end = span[0] + 1, span[1] - 1
    match body[span[0] : span[0] + 1]:
        case b"{":
            return _members(body, _objects(body, span), start, end, gone)
        case b"[":
            places = _arrays(body, span)
            paths = [
                (index, path[1:]) for path in gone if (index := _index(path[0], len(places))) is not None
            ]
            whole = {index for index, rest in paths if not rest}
            edits = _gaps(body, places, whole, start, end)
            for index in dict.fromkeys(index for index, _ in paths if index not in whole):
                edits += _below(body, places[index], [rest for at, rest in paths if at == index])
            return edits
        case _:
            return []


def _index(step: str | int, size: int) -> int | None:
    if isinstance(step, str) or not -size <= step < size:
        return None
    return step % size


def _gaps(body: bytes, places: Sequence[Span], gone: Collection[int], start: int, end: int) -> list[Edit]:
    """The slices that hold the values at `gone` and one comma for each, keys included.

    `start` to `end` is what stands between the brackets.
    """
    if not gone:
        return []
    first = next((index for index in range(len(places)) if index not in gone), None)
    if first is None:
        return [(start, end, b"")]
    edits: list[Edit] = [(places[i - 1][1], places[i][1], b"") for i in sorted(gone) if i > first]
    if first:
        edits.append((start, body.index(b",", places[first - 1][1]) + 1, b""))
    return edits
