"""OpenAI chat completions, the sealed reasoning of a message and where it stands."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.dialect import Signed
from llm_proxy.wire.openai_chat.history import lenient
from llm_proxy.wire.spans import DuplicateKey, Span, array_spans, object_spans

_FIELDS = ("reasoning_details", "thinking_blocks")


class _Sealed(msgspec.Struct):
    """An entry of either field; encrypted ones have `data`, signed ones a `signature`."""

    data: str | None = None
    signature: str | None = None


_object = lenient(dict[str, msgspec.Raw])
_list = lenient(list[msgspec.Raw])
_entry = lenient(_Sealed)


def signed(raw: bytes) -> tuple[Signed, ...]:
    """The entries of `reasoning_details` and `thinking_blocks` that carry a seal; none where `raw` is odd.

    The spans are made to go together: without all of them the message is the JSON it was, less the entries.
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
    entries = _list(value)
    if not entries:
        return []
    seals = [_seal(entry) for entry in entries]
    spans = array_spans(raw, start, entries)
    found: list[Signed] = []
    leading = True
    for index, seal in enumerate(seals):
        if seal:
            found.append(Signed(_with_comma(spans, index, leading=leading), seal))
        leading = leading and bool(seal)
    return found


def _seal(entry: msgspec.Raw) -> str:
    found = _entry(entry)
    return (found.signature or found.data or "") if found else ""


def _with_comma(spans: tuple[Span, ...], index: int, *, leading: bool) -> Span:
    """An element with the comma behind it where all before it go too, else with the one before it."""
    start, end = spans[index]
    if not leading:
        return spans[index - 1][1], end
    return start, spans[index + 1][0] if index + 1 < len(spans) else end
