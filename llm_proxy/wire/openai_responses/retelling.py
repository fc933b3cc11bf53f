"""OpenAI Responses, a history with what its agent never saw. What an assistant did in a row is one turn."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.wire.lenient import lenient
from llm_proxy.wire.members import members, to_object
from llm_proxy.wire.retelling import Called, Cut, History, Put, Turn

_CALLS = ("function_call", "custom_tool_call")
_encode = msgspec.json.Encoder().encode


class _Part(msgspec.Struct):
    text: str | None = None


class _Item(msgspec.Struct):
    type: str | None = None
    role: str | None = None
    id: str | None = None
    call_id: str | None = None
    arguments: str | None = None
    input: str | None = None
    content: str | list[_Part] | None = None
    encrypted_content: str | None = None


_item = lenient(_Item)


def turns(messages: Sequence[bytes]) -> list[Turn]:
    read = [_read(raw) for raw in messages]
    found: list[Turn] = []
    start = 0
    while start < len(read):
        end = start
        while end < len(read) and _is_assistants(read[end]):
            end += 1
        if end > start:
            of = read[start:end]
            calls = [
                Called(item.call_id or "", item.arguments or item.input or "")
                for item in of
                if item.type in _CALLS
            ]
            found.append(Turn(start, end, "".join(map(_said, of)), tuple(calls)))
        start = max(end, start + 1)
    return found


def retell(
    turn: Sequence[bytes], following: bytes | None, cut: Cut, put: Put
) -> tuple[list[bytes], bytes | None]:
    words: list[bytes] = []
    calls: list[bytes] = []
    for raw in turn:
        item = _read(raw)
        if item.type in _CALLS:
            calls.append(raw)
        elif item.type == "reasoning":
            if not {item.id, item.encrypted_content} & {*put.seals}:
                words.append(raw)
        else:
            said = _said(item)
            text = cut.text(said)
            if text == said:
                words.append(raw)
            elif text.strip():
                kept = {key: value for key, value in members(raw).items() if key not in ("id", "status")}
                words.append(to_object({**kept, "content": _encode(text)}))
    return [*put.front, *words, *put.merged(calls), *put.results], following


def parts(messages: Sequence[bytes]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    kinds = [(raw, _read(raw).type or "") for raw in messages]
    calls = tuple([raw for raw, kind in kinds if kind in _CALLS])
    return calls, tuple([raw for raw, kind in kinds if kind.endswith("_output")])


def _read(raw: bytes) -> _Item:
    return _item(msgspec.Raw(raw)) or _Item()


def _is_assistants(item: _Item) -> bool:
    if item.type in (*_CALLS, "reasoning"):
        return True
    return item.type in (None, "message") and item.role == "assistant"


def _said(item: _Item) -> str:
    if item.type not in (None, "message"):
        return ""
    if isinstance(item.content, list):
        return "".join([part.text or "" for part in item.content])
    return item.content or ""


HISTORY = History(turns=turns, retell=retell, parts=parts)
