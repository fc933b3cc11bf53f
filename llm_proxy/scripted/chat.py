"""Bytes of replies exactly as OpenAI's chat completions API writes them, whole and streamed.

Source: the API reference's `chat.completion` and `chat.completion.chunk` objects; for `reasoning_details`
OpenRouter's guide to reasoning tokens.
"""

from __future__ import annotations

from itertools import zip_longest

from llm_proxy.scripted.request import ScriptedRequest
from llm_proxy.scripted.script import Content, ErrorScript, JsonObject, ToolCallScript, Turn
from llm_proxy.scripted.seals import Seal, sealed
from llm_proxy.scripted.text import (
    ARGUMENT_PIECES,
    CREATED,
    arguments,
    call_id,
    count,
    data,
    finish,
    flat_name,
    is_custom,
    pieces,
    pretty,
)

MALFORMED = b'data: {"id":"chatcmpl-broken","choices":[{"index":0,"delta":{"content":"\n\n'
_DONE = b"data: [DONE]\n\n"
_FORMAT = "anthropic-claude-v1"


def error_body(error: ErrorScript, status: int) -> bytes:
    """OpenAI's error object, as the body of an HTTP error."""
    return pretty(error_object(error))


def error_object(error: ErrorScript) -> JsonObject:
    """OpenAI's error object."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def whole(turn: Turn, request: ScriptedRequest) -> bytes:
    """The body of a reply that isn't streamed."""
    if turn.error is not None:
        return pretty(error_object(turn.error))
    contents = contents_of(turn, request.n)
    reply = _envelope("chat.completion", request)
    reply["choices"] = [_choice(turn, request, i, content) for i, content in enumerate(contents)]
    if turn.usage != "none":
        reply["usage"] = usage(turn, request, contents)
    reply["system_fingerprint"] = "fp_scripted"
    return pretty(reply | turn.extra)


def frames(turn: Turn, request: ScriptedRequest) -> tuple[bytes, ...]:
    """Server-sent events: role, then deltas (choices in turn), finish, usage where asked for, `[DONE]`."""
    contents = contents_of(turn, request.n)
    by_choice = [_deltas(turn, request, i, content) for i, content in enumerate(contents)]
    sent = [
        _chunk(turn, request, [{"index": i, "delta": delta, "logprobs": None, "finish_reason": None}])
        for step in zip_longest(*by_choice)
        for i, delta in enumerate(step)
        if delta is not None
    ]
    if turn.error is not None:
        return (*sent, data(error_object(turn.error)))
    sent += [
        _chunk(turn, request, [{"index": i, "delta": {}, "logprobs": None, "finish_reason": finish(content)}])
        for i, content in enumerate(contents)
    ]
    if request.include_usage and turn.usage != "none":
        sent.append(_chunk(turn, request, [], usage(turn, request, contents)))
    return (*sent, _DONE)


def contents_of(turn: Turn, n: int) -> list[Content]:
    """What each of `n` choices says."""
    others = turn.choices or (turn,)
    return [turn, *(others[i % len(others)] for i in range(n - 1))]


def usage(turn: Turn, request: ScriptedRequest, contents: list[Content]) -> JsonObject | None:
    """OpenAI's usage object; None where the script reports none."""
    used = count(turn, request, contents)
    if used is None:
        return None
    prompt: JsonObject = {"cached_tokens": used.cached, "audio_tokens": 0}
    if used.cache_write:
        prompt["cache_write_tokens"] = used.cache_write
    return {
        "prompt_tokens": used.input,
        "completion_tokens": used.output,
        "total_tokens": used.input + used.output,
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {
            "reasoning_tokens": used.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _envelope(kind: str, request: ScriptedRequest) -> JsonObject:
    return {
        "id": "chatcmpl-" + request.digest.hex()[:29],
        "object": kind,
        "created": CREATED,
        "model": request.model,
    }


def _choice(turn: Turn, request: ScriptedRequest, index: int, content: Content) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": _text(turn, content) or None}
    message |= _reasoning(turn, content)
    if content.tool_calls:
        message["tool_calls"] = [
            _call(call, request, call_id("call_", request, index, position, call))
            for position, call in enumerate(content.tool_calls)
        ]
    message["refusal"] = content.refusal or None
    choice: JsonObject = {
        "index": index,
        "message": message | turn.message_extra,
        "logprobs": None,
        "finish_reason": finish(content),
    }
    return choice | turn.choice_extra


def _text(turn: Turn, content: Content) -> str:
    if turn.think_tags and content.reasoning:
        return f"<think>{content.reasoning}</think>{content.text}"
    return content.text


def _reasoning(turn: Turn, content: Content) -> JsonObject:
    if turn.reasoning_field == "reasoning_details":
        details = _details(turn, content)
        said: JsonObject = {"reasoning": content.reasoning} if content.reasoning else {}
        if details:
            said["reasoning_details"] = [*details]
        return said
    if content.reasoning and not turn.think_tags:
        return {turn.reasoning_field: content.reasoning}
    return {}


def _details(turn: Turn, content: Content) -> list[JsonObject]:
    details: list[JsonObject] = []
    if content.reasoning:
        detail: JsonObject = {"type": "reasoning.text", "text": content.reasoning}
        details.append(detail | _signature(turn, content) | {"format": _FORMAT, "index": 0})
    if content.redacted:
        details.append(_encrypted(content, len(details)))
    return details


def _signature(turn: Turn, content: Content) -> JsonObject:
    return {"signature": sealed(Seal.SIGNATURE, content.reasoning)} if turn.signature else {}


def _encrypted(content: Content, index: int) -> JsonObject:
    seal = sealed(Seal.REDACTED, content.redacted)
    return {"type": "reasoning.encrypted", "data": seal, "format": _FORMAT, "index": index}


def _deltas(turn: Turn, request: ScriptedRequest, index: int, content: Content) -> list[JsonObject]:
    text = _text(turn, content)
    first: JsonObject = {
        "role": "assistant",
        "content": None if content.tool_calls and not text else "",
        "refusal": None,
    }
    deltas: list[JsonObject] = [{**first, **turn.message_extra}]
    deltas += _reasoning_deltas(turn, content)
    for field, said in (("content", text), ("refusal", content.refusal)):
        deltas.extend({field: piece} for piece in pieces(said, turn.deltas))
    for position, call in enumerate(content.tool_calls):
        deltas += _call_deltas(call, request, position, call_id("call_", request, index, position, call))
    return deltas


def _reasoning_deltas(turn: Turn, content: Content) -> list[JsonObject]:
    """In OpenRouter's details the words come piece by piece, and the signature in one after them."""
    words = [] if turn.think_tags else pieces(content.reasoning, turn.deltas)
    if turn.reasoning_field != "reasoning_details":
        return [{turn.reasoning_field: piece} for piece in words]
    place: JsonObject = {"format": _FORMAT, "index": 0}
    deltas: list[JsonObject] = [
        {"reasoning": piece, "reasoning_details": [{"type": "reasoning.text", "text": piece} | place]}
        for piece in words
    ]
    if words and turn.signature:
        deltas.append({"reasoning_details": [{"type": "reasoning.text"} | _signature(turn, content) | place]})
    if content.redacted:
        deltas.append({"reasoning_details": [_encrypted(content, 1 if words else 0)]})
    return deltas


def _call(call: ToolCallScript, request: ScriptedRequest, id_: str) -> JsonObject:
    if is_custom(call, request):
        return {"id": id_, "type": "custom", "custom": {"name": call.name, "input": call.input}}
    function: JsonObject = {"name": flat_name(call), "arguments": arguments(call)}
    return {"id": id_, "type": "function", "function": function}


def _call_deltas(call: ToolCallScript, request: ScriptedRequest, position: int, id_: str) -> list[JsonObject]:
    if is_custom(call, request):
        kind, field, name, said = "custom", "input", call.name, call.input or ""
    else:
        kind, field, name, said = "function", "arguments", flat_name(call), arguments(call)
    deltas: list[JsonObject] = [{"index": position, "id": id_, "type": kind, kind: {"name": name, field: ""}}]
    deltas.extend({"index": position, kind: {field: piece}} for piece in pieces(said, ARGUMENT_PIECES))
    return [{"tool_calls": [delta]} for delta in deltas]


def _chunk(
    turn: Turn, request: ScriptedRequest, choices: list[JsonObject], used: JsonObject | None = None
) -> bytes:
    chunk = _envelope("chat.completion.chunk", request)
    chunk["system_fingerprint"] = "fp_scripted"
    chunk["choices"] = [choice | turn.choice_extra for choice in choices]
    if request.include_usage:
        chunk["usage"] = used
    return data(chunk | turn.extra)
