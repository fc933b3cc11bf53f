"""OpenAI chat completions, a history with what its agent never saw."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.members import NULL, Members, given, items, members, to_array, to_object
from llm_proxy.wire.retelling import Called, Cut, History, Put, Turn

_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class _Part(msgspec.Struct):
    text: str | None = None


class _Function(msgspec.Struct):
    arguments: str | None = None


class _Custom(msgspec.Struct):
    input: str | None = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None
    custom: _Custom | None = None

    def called(self) -> Called:
        said = self.function.arguments if self.function else self.custom.input if self.custom else ""
        return Called(self.id or "", said or "")


class _Message(msgspec.Struct):
    role: str | None = None
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None


_message = msgspec.json.Decoder(_Message).decode


def turns(messages: Sequence[bytes]) -> list[Turn]:
    found: list[Turn] = []
    for at, raw in enumerate(messages):
        try:
            message = _message(raw)
        except CANNOT_READ:
            continue
        if message.role == "assistant":
            calls = tuple([call.called() for call in message.tool_calls or ()])
            found.append(Turn(at, at + 1, _said(message), calls))
    return found


def retell(
    turn: Sequence[bytes], following: bytes | None, cut: Cut, put: Put
) -> tuple[list[bytes], bytes | None]:
    top = members(turn[0])
    said = cut.text(_said(_message(turn[0])))
    calls = put.merged(items(top.get("tool_calls", NULL)))
    if calls:
        top["tool_calls"] = to_array(calls)
    top["content"] = _encode(said) if said or not calls else NULL
    return [*put.front, to_object(top), *put.results], following


def parts(messages: Sequence[bytes]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    tops: list[Members] = [members(raw) for raw in messages]
    calls = [call for top in tops if given(top, "tool_calls") for call in items(top["tool_calls"])]
    return tuple(calls), tuple([raw for raw, top in zip(messages, tops, strict=True) if _is_result(top)])


def _is_result(top: Members) -> bool:
    return _text(top.get("role", b'""')) == "tool"


def _said(message: _Message) -> str:
    content = message.content
    if isinstance(content, list):
        return "".join([part.text or "" for part in content])
    return content or ""


HISTORY = History(turns=turns, retell=retell, parts=parts)
