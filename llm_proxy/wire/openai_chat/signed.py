"""OpenAI chat completions, the sealed reasoning of a message and where it stands."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.dialect import Signed
from llm_proxy.wire.lenient import array, lenient
from llm_proxy.wire.spans import DuplicateKey, Span, array_spans, object_spans

_FIELDS = ("reasoning_details", "thinking_blocks")


class _Sealed(msgspec.Struct):
    """An entry of either field; encrypted ones have `data`, signed ones a `signature`."""

    data: str | None = None
    signature: str | None = None


_object = lenient(dict[str, msgspec.Raw])
_entry = lenient(_Sealed)


def signed(raw: bytes) -> tuple[Signed, ...]:
    """The entries of `reasoning_details` and `thinking_blocks` that carry a seal; none where `raw` is odd.

    The message stays valid JSON whichever of the spans are removed. Where a field holds nothing but sealed
    entries each span is all of them.
    """
    if not any(field.encode() in raw for field in _FIELDS):
        return ()
    raws = _object(raw)
    if raws is None:
        return ()
    try:
        spans = object_spans(raw, raws, raw.index(b"{"))
    except DuplicateKey:  # `message_facts` refuses such a message
        return ()
    return tuple(
        [
            found
            for field in _FIELDS
            if field in spans
            for found in _entries(raw, spans[field][0], raws[field])
        ]
    )


def _entries(raw: bytes, start: int, value: msgspec.Raw) -> list[Signed]:
    entries = array(value)
    if not entries:
        return []
    seals = [_seal(entry) for entry in entries]
    spans = array_spans(raw, start, entries)
    stays = next((n for n, seal in enumerate(seals) if not seal), None)
    return [Signed(_with_comma(spans, n, stays), seal) for n, seal in enumerate(seals) if seal]


def _seal(entry: msgspec.Raw) -> str:
    found = _entry(entry)
    return (found.signature or found.data or "") if found else ""


def _with_comma(spans: tuple[Span, ...], n: int, stays: int | None) -> Span:
    """Up to the next element, or from the one before: always towards one that stays. All where none does."""
    if stays is None:
        return spans[0][0], spans[-1][1]
    return (spans[n][0], spans[n + 1][0]) if n < stays else (spans[n - 1][1], spans[n][1])
