"""Bytes of replies exactly as Anthropic's Messages API writes them, whole and streamed.

Source: the API reference's `Message` object and its page on streaming.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from llm_proxy.scripted.request import ScriptedRequest
from llm_proxy.scripted.script import Content, ErrorScript, JsonObject, ServerToolScript, ToolCallScript, Turn
from llm_proxy.scripted.seals import Seal, sealed
from llm_proxy.scripted.text import (
    ARGUMENT_PIECES,
    Tokens,
    arguments,
    call_id,
    count,
    event,
    finish,
    flat_name,
    pieces,
    tokens,
)

REQUEST_ID = "req_scripted0000000000000"
MALFORMED = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\n\n'
)
_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def error_body(error: ErrorScript, status: int) -> bytes:
    """Anthropic's error object. A type that the script doesn't give follows from the status."""
    return msgspec.json.encode(_error(error, status))


def whole(turn: Turn, request: ScriptedRequest) -> bytes:
    """The body of a reply that isn't streamed."""
    if turn.error is not None:
        return error_body(turn.error, 500)
    said = _said(turn, request)
    ended: JsonObject = {"content": [*_blocks(turn, said, request)], **_stop(said)}
    used = count(turn, request, [said])
    if used is not None:
        ended["usage"] = _usage(used, used.output, said)
    return msgspec.json.encode(_message(request) | ended | turn.extra)


def frames(turn: Turn, request: ScriptedRequest) -> tuple[bytes, ...]:
    """Events: message_start, for each block its start, deltas and stop, message_delta, message_stop."""
    return tuple(event(str(fields["type"]), fields) for fields in _events(turn, request))


def counted(request: ScriptedRequest) -> bytes:
    """The reply of count_tokens: what a reply's usage would call its input."""
    return msgspec.json.encode({"input_tokens": tokens(request.input_bytes)})


def _error(error: ErrorScript, status: int) -> JsonObject:
    given = error.type if "type" in error.model_fields_set else _ERRORS.get(status, "api_error")
    kind = "api_error" if given == "server_error" else given
    return {
        "type": "error",
        "error": {"type": kind, "message": error.message},
        "request_id": REQUEST_ID,
    }


def _said(turn: Turn, request: ScriptedRequest) -> Content:
    """What the model says: it thinks only where the request lets it."""
    return turn if request.thinking else turn.model_copy(update={"reasoning": "", "redacted": ""})


def _message(request: ScriptedRequest) -> JsonObject:
    return {
        "model": request.model,
        "id": "msg_01" + request.digest.hex()[:22],
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _stop(said: Content) -> JsonObject:
    if said.stop_sequence is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": said.stop_sequence}
    if said.refusal:
        details: JsonObject = {"type": "refusal", "category": None, "explanation": said.refusal}
        return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    reason = finish(said)
    return {"stop_reason": _REASONS.get(reason, reason), "stop_sequence": None}


def _usage(used: Tokens, output: int, said: Content) -> JsonObject:
    usage: JsonObject = {
        "input_tokens": max(0, used.input - used.cached - used.cache_write),
        "cache_creation_input_tokens": used.cache_write,
        "cache_read_input_tokens": used.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": used.cache_write,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": output,
        "service_tier": "standard",
    }
    return usage | _details(used, said)


def _details(used: Tokens, said: Content) -> JsonObject:
    details: JsonObject = {}
    if used.reasoning:
        details["output_tokens_details"] = {"thinking_tokens": used.reasoning}
    if said.server_tools:
        details["server_tool_use"] = {
            "web_search_requests": len(said.server_tools),
            "web_fetch_requests": 0,
        }
    return details


def _blocks(turn: Turn, said: Content, request: ScriptedRequest) -> Iterator[JsonObject]:
    # Asked to think, the model always thinks before it calls a tool, be it without words.
    if said.reasoning or (request.thinking == "enabled" and said.tool_calls and not said.redacted):
        words = "" if request.thinking_omitted else said.reasoning
        signature = sealed(Seal.SIGNATURE, said.reasoning) if turn.signature else ""
        yield {"type": "thinking", "thinking": words, "signature": signature}
    if said.redacted:
        yield {"type": "redacted_thinking", "data": sealed(Seal.REDACTED, said.redacted)}
    for position, search in enumerate(said.server_tools):
        yield from _search(search, request, position)
    if said.text:
        yield {"type": "text", "text": said.text}
    if said.refusal:
        yield {"type": "text", "text": said.refusal}
    for position, call in enumerate(said.tool_calls):
        yield {
            "type": "tool_use",
            "id": call_id("toolu_", request, 0, position, call),
            "name": flat_name(call),
            "input": _input(call),
        }


def _input(call: ToolCallScript) -> JsonObject | str:
    """Broken JSON has no place in a whole reply but as text."""
    try:
        parsed = msgspec.json.decode(arguments(call))
    except msgspec.DecodeError:
        return arguments(call)
    return parsed


def _search(search: ServerToolScript, request: ScriptedRequest, position: int) -> Iterator[JsonObject]:
    id_ = "srvtoolu_01" + request.digest.hex()[:20] + f"{position:02x}"
    yield {"type": "server_tool_use", "id": id_, "name": "web_search", "input": {"query": search.query}}
    found: list[JsonObject] = [
        {
            "type": "web_search_result",
            "title": url,
            "url": url,
            "encrypted_content": sealed(Seal.REDACTED, url),
            "page_age": None,
        }
        for url in search.urls
    ]
    yield {"type": "web_search_tool_result", "tool_use_id": id_, "content": [*found]}


def _events(turn: Turn, request: ScriptedRequest) -> Iterator[JsonObject]:
    said = _said(turn, request)
    used = count(turn, request, [said])
    message = _message(request)
    if used is not None:
        message["usage"] = _usage(used, 1, Content())
    yield {"type": "message_start", "message": message | turn.extra}
    raw = [arguments(call) for call in said.tool_calls]
    blocks = [*_blocks(turn, said, request)]
    texts = ["" for block in blocks if block["type"] != "tool_use"] + raw
    for index, (block, text) in enumerate(zip(blocks, texts, strict=True)):
        yield {"type": "content_block_start", "index": index, "content_block": _started(block)}
        if index == 0:
            yield {"type": "ping"}
        for delta in _deltas(turn, block, text):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    if turn.error is not None:
        yield _error(turn.error, 500)
        return
    ended: JsonObject = {"type": "message_delta", "delta": _stop(said)}
    if used is not None:
        ended["usage"] = _usage_at_end(used, said)
    yield ended
    yield {"type": "message_stop"}


def _usage_at_end(used: Tokens, said: Content) -> JsonObject:
    usage = _usage(used, used.output, said)
    del usage["cache_creation"], usage["service_tier"]
    return usage


def _started(block: JsonObject) -> JsonObject:
    match block["type"]:
        case "thinking":
            return block | {"thinking": "", "signature": ""}
        case "text":
            return block | {"text": ""}
        case "tool_use" | "server_tool_use":
            return block | {"input": {}}
        case _:
            return block


def _deltas(turn: Turn, block: JsonObject, raw: str) -> Iterator[JsonObject]:
    """What follows a block's start. `raw` is a call's arguments as they stand in the script."""
    match block["type"]:
        case "thinking":
            for piece in pieces(str(block["thinking"]), turn.deltas):
                yield {"type": "thinking_delta", "thinking": piece}
            if block["signature"]:
                yield {"type": "signature_delta", "signature": block["signature"]}
        case "text":
            for piece in pieces(str(block["text"]), turn.deltas):
                yield {"type": "text_delta", "text": piece}
        case "tool_use":
            for piece in ["", *pieces(raw, ARGUMENT_PIECES)]:
                yield {"type": "input_json_delta", "partial_json": piece}
        case "server_tool_use":
            yield {"type": "input_json_delta", "partial_json": msgspec.json.encode(block["input"]).decode()}
        case _:
            return
