"""Bytes of replies exactly as OpenAI's chat completions API writes them, whole and streamed.

Source: the API reference's `chat.completion` and `chat.completion.chunk` objects.
"""

from __future__ import annotations

import re
from hashlib import sha256
from itertools import zip_longest

import msgspec

from llm_proxy.scripted.request import ScriptedRequest
from llm_proxy.scripted.script import Content, ErrorScript, JsonObject, ToolCallScript, Turn

CREATED = 1_767_225_600
"""2026-01-01: replies are the same on every day."""
_BYTES_PER_TOKEN = 4
_ARGUMENT_PIECES = 4
_WORD = re.compile(r"\s*\S+\s*\Z|\s*\S+|\s+")
_MALFORMED = b'data: {"id":"chatcmpl-broken","choices":[{"index":0,"delta":{"content":"\n\n'
_DONE = b"data: [DONE]\n\n"


def error_body(error: ErrorScript) -> bytes:
    """OpenAI's error object, as the body of an HTTP error."""
    return _pretty(_error(error))


def whole(turn: Turn, request: ScriptedRequest) -> bytes:
    """The body of a reply that isn't streamed."""
    if turn.error is not None:
        return error_body(turn.error)
    contents = _contents(turn, request.n)
    reply = _envelope("chat.completion", request)
    reply["choices"] = [_choice(turn, request, i, content) for i, content in enumerate(contents)]
    if turn.usage != "none":
        reply["usage"] = _usage(turn, request, contents)
    reply["system_fingerprint"] = "fp_scripted"
    return _pretty(reply | turn.extra)


def frames(turn: Turn, request: ScriptedRequest) -> tuple[bytes, ...]:
    """Server-sent events: role, then deltas (choices in turn), finish, usage where asked for, `[DONE]`."""
    contents = _contents(turn, request.n)
    by_choice = [_deltas(turn, request, i, content) for i, content in enumerate(contents)]
    sent = [
        _chunk(turn, request, [{"index": i, "delta": delta, "logprobs": None, "finish_reason": None}])
        for step in zip_longest(*by_choice)
        for i, delta in enumerate(step)
        if delta is not None
    ]
    if turn.error is not None:
        return (*sent, _frame(_error(turn.error)))
    sent += [
        _chunk(
            turn, request, [{"index": i, "delta": {}, "logprobs": None, "finish_reason": _finish(content)}]
        )
        for i, content in enumerate(contents)
    ]
    if request.include_usage and turn.usage != "none":
        sent.append(_chunk(turn, request, [], _usage(turn, request, contents)))
    return (*sent, _DONE)


def with_malformed(sent: tuple[bytes, ...], after: int) -> tuple[bytes, ...]:
    """The same frames with one that isn't JSON after the first `after` of them."""
    return (*sent[:after], _MALFORMED, *sent[after:])


def _contents(turn: Turn, n: int) -> list[Content]:
    others = turn.choices or (turn,)
    return [turn, *(others[i % len(others)] for i in range(n - 1))]


def _envelope(kind: str, request: ScriptedRequest) -> JsonObject:
    return {
        "id": "chatcmpl-" + request.digest.hex()[:29],
        "object": kind,
        "created": CREATED,
        "model": request.model,
    }


def _choice(turn: Turn, request: ScriptedRequest, index: int, content: Content) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": content.text or None}
    if content.reasoning:
        message[turn.reasoning_field] = content.reasoning
    if content.tool_calls:
        message["tool_calls"] = [
            {
                "id": _call_id(request, index, position, call),
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call)},
            }
            for position, call in enumerate(content.tool_calls)
        ]
    message["refusal"] = content.refusal or None
    choice: JsonObject = {
        "index": index,
        "message": message | turn.message_extra,
        "logprobs": None,
        "finish_reason": _finish(content),
    }
    return choice | turn.choice_extra


def _deltas(turn: Turn, request: ScriptedRequest, index: int, content: Content) -> list[JsonObject]:
    first: JsonObject = {
        "role": "assistant",
        "content": None if content.tool_calls and not content.text else "",
        "refusal": None,
    }
    deltas: list[JsonObject] = [{**first, **turn.message_extra}]
    for field, said in (
        (turn.reasoning_field, content.reasoning),
        ("content", content.text),
        ("refusal", content.refusal),
    ):
        deltas.extend({field: piece} for piece in _pieces(said, turn.deltas))
    for position, call in enumerate(content.tool_calls):
        deltas += _call_deltas(call, position, _call_id(request, index, position, call))
    return deltas


def _call_deltas(call: ToolCallScript, position: int, call_id: str) -> list[JsonObject]:
    deltas: list[JsonObject] = [
        {
            "index": position,
            "id": call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }
    ]
    pieces = _pieces(_arguments(call), _ARGUMENT_PIECES)
    deltas.extend({"index": position, "function": {"arguments": piece}} for piece in pieces)
    return [{"tool_calls": [delta]} for delta in deltas]


def _chunk(
    turn: Turn, request: ScriptedRequest, choices: list[JsonObject], usage: JsonObject | None = None
) -> bytes:
    chunk = _envelope("chat.completion.chunk", request)
    chunk["system_fingerprint"] = "fp_scripted"
    chunk["choices"] = [choice | turn.choice_extra for choice in choices]
    if request.include_usage:
        chunk["usage"] = usage
    return _frame(chunk | turn.extra)


def _usage(turn: Turn, request: ScriptedRequest, contents: list[Content]) -> JsonObject:
    given = turn.usage
    assert given != "none"
    said = sum(_size(content) for content in contents)
    reasoning = sum(len(content.reasoning.encode()) for content in contents)
    tokens_in = _tokens(request.input_bytes) if given.input is None else given.input
    tokens_out = _tokens(said) if given.output is None else given.output
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": given.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": _tokens(reasoning) if given.reasoning is None else given.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _size(content: Content) -> int:
    said = content.reasoning + content.text + content.refusal
    return len(said.encode()) + sum(len((c.name + _arguments(c)).encode()) for c in content.tool_calls)


def _tokens(size: int) -> int:
    return -(-size // _BYTES_PER_TOKEN)


def _finish(content: Content) -> str:
    return content.finish or ("tool_calls" if content.tool_calls else "stop")


def _call_id(request: ScriptedRequest, choice: int, position: int, call: ToolCallScript) -> str:
    seed = request.digest + f"/{choice}/{position}".encode()
    return call.id or "call_" + sha256(seed).hexdigest()[:24]


def _arguments(call: ToolCallScript) -> str:
    given = call.arguments
    return given if isinstance(given, str) else msgspec.json.encode(given).decode()


def _pieces(text: str, count: int | None) -> list[str]:
    """Non-empty pieces that join to the text: `count` of nearly one size, or words with their spaces."""
    if count is None:
        return _WORD.findall(text)
    count = min(count, len(text))
    return [text[len(text) * i // count : len(text) * (i + 1) // count] for i in range(count)]


def _error(error: ErrorScript) -> JsonObject:
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def _frame(value: JsonObject) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _pretty(value: JsonObject) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
