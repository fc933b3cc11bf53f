"""Anthropic Messages, a history with what its agent never saw."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.wire.anthropic_messages import schema
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.members import NULL, items, members, to_array, to_object
from llm_proxy.wire.retelling import Called, Cut, History, Put, Turn

_encode = msgspec.json.Encoder().encode


class _Block(msgspec.Struct):
    type: str = ""
    text: str | None = None
    id: str | None = None
    signature: str | None = None
    data: str | None = None
    input: msgspec.Raw = msgspec.Raw(b"")


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | list[_Block] | None = None


_message = msgspec.json.Decoder(_Message).decode
_block = msgspec.json.Decoder(_Block).decode


def turns(messages: Sequence[bytes]) -> list[Turn]:
    found: list[Turn] = []
    for at, raw in enumerate(messages):
        try:
            message = _message(raw)
        except CANNOT_READ:
            continue
        if message.role == "assistant":
            blocks = message.content if isinstance(message.content, list) else []
            text = message.content if isinstance(message.content, str) else ""
            text += "".join([block.text or "" for block in blocks if block.type == "text"])
            calls = [
                Called(block.id or "", bytes(block.input).decode())
                for block in blocks
                if schema.is_call(block.type)
            ]
            found.append(Turn(at, at + 1, text, tuple(calls)))
    return found


def retell(
    turn: Sequence[bytes], following: bytes | None, cut: Cut, put: Put
) -> tuple[list[bytes], bytes | None]:
    top = members(turn[0])
    words: list[bytes] = []
    calls: list[bytes] = []
    for raw in _blocks(top.get("content", NULL)):
        block = _block(raw)
        if schema.is_call(block.type):
            calls.append(raw)
        elif block.type == "text":
            text = cut.text(block.text or "")
            if text == block.text:
                words.append(raw)
            elif text.strip():
                words.append(to_object({**members(raw), "text": _encode(text)}))
        elif not {block.signature, block.data} & {*put.seals}:
            words.append(raw)
    top["content"] = to_array([*words, *put.merged(calls)])
    return [*put.front, to_object(top)], _answered(following, put.results)


def parts(messages: Sequence[bytes]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    blocks = [raw for message in messages for raw in _blocks(members(message).get("content", NULL))]
    calls = [raw for raw in blocks if schema.is_call(_block(raw).type)]
    return tuple(calls), tuple([raw for raw in blocks if _block(raw).type == "tool_result"])


def _answered(following: bytes | None, results: Sequence[bytes]) -> bytes | None:
    """The message behind a turn with these results first."""
    if following is None or not results:
        return following
    top = members(following)
    return to_object({**top, "content": to_array([*results, *_blocks(top.get("content", NULL))])})


def _blocks(content: bytes) -> list[bytes]:
    if content.startswith(b'"'):
        return [b'{"type":"text","text":%b}' % content]
    return items(content)


HISTORY = History(turns=turns, retell=retell, parts=parts)
