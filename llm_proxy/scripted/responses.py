"""The objects of OpenAI's Responses API: a response with its output items, whole.

Source: the API reference's `Response` object. `responses_stream` takes it apart into events.
"""

from __future__ import annotations

from collections.abc import Iterator

from llm_proxy.scripted.chat import error_object
from llm_proxy.scripted.request import Line, ScriptedRequest, Talk, talk_of
from llm_proxy.scripted.script import Content, JsonObject, ToolCallScript, Turn
from llm_proxy.scripted.seals import Seal, sealed
from llm_proxy.scripted.text import CREATED, arguments, call_id, count, finish, flat_name, is_custom, pretty

_SETTINGS: JsonObject = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def response_id(request: ScriptedRequest) -> str:
    """The id of the response to this request."""
    return "resp_" + request.digest.hex()[:48]


def whole(turn: Turn, request: ScriptedRequest) -> bytes:
    """The body of a reply that isn't streamed; one in the background is only queued."""
    if turn.error is not None:
        return pretty(error_object(turn.error))
    if request.background:
        return pretty(unfinished(turn, request, "queued"))
    return pretty(finished(turn, request))


def unfinished(turn: Turn, request: ScriptedRequest, status: str) -> JsonObject:
    """A response without its output: `queued`, `in_progress`."""
    return {
        "id": response_id(request),
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": request.model,
        "output": [],
        "usage": None,
        **_SETTINGS,
        **request.echo,
        **turn.extra,
    }


def finished(turn: Turn, request: ScriptedRequest) -> JsonObject:
    """A response that is `completed`, or `incomplete` where the finish reason says so."""
    incomplete = _INCOMPLETE.get(finish(turn))
    ended: JsonObject = {
        "status": "incomplete" if incomplete else "completed",
        "completed_at": None if incomplete else CREATED + 1,
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "output": [*items(turn, request)],
        "usage": _usage(turn, request),
    }
    return unfinished(turn, request, "completed") | ended | turn.extra


def _usage(turn: Turn, request: ScriptedRequest) -> JsonObject | None:
    used = count(turn, request, [turn])
    if used is None:
        return None
    return {
        "input_tokens": used.input,
        "input_tokens_details": {"cached_tokens": used.cached, "cache_write_tokens": used.cache_write},
        "output_tokens": used.output,
        "output_tokens_details": {"reasoning_tokens": used.reasoning},
        "total_tokens": used.input + used.output,
    }


def items(turn: Turn, request: ScriptedRequest) -> Iterator[JsonObject]:
    """The output: reasoning, web searches, the message, calls."""
    if turn.reasoning or turn.redacted:
        yield _reasoning(turn, request)
    for position, search in enumerate(turn.server_tools):
        action: JsonObject = {
            "type": "search",
            "query": search.query,
            "sources": [{"type": "url", "url": url} for url in search.urls],
        }
        found: JsonObject = {"type": "web_search_call", "status": "completed", "action": action}
        yield {"id": item_id("ws", request, position)} | found
    if parts := _parts(turn):
        yield {
            "id": item_id("msg", request),
            "type": "message",
            "status": "completed",
            "content": [*parts],
            "role": "assistant",
        }
    for position, call in enumerate(turn.tool_calls):
        yield _call(call, request, position)


def _reasoning(turn: Turn, request: ScriptedRequest) -> JsonObject:
    """A paragraph is a part of the summary; raw reasoning has no parts."""
    id_ = item_id("rs", request)
    words = turn.reasoning
    item: JsonObject = {"id": id_, "type": "reasoning", "summary": []}
    if words and turn.raw_reasoning:
        item["content"] = [{"type": "reasoning_text", "text": words}]
    elif words:
        item["summary"] = [{"type": "summary_text", "text": part} for part in words.split("\n\n")]
    if request.encrypted:
        item["encrypted_content"] = sealed(Seal.ENCRYPTED, f"{id_}/{words}/{turn.redacted}")
    return item


def _parts(said: Content) -> list[JsonObject]:
    parts: list[JsonObject] = []
    if said.text:
        parts.append({"type": "output_text", "annotations": [], "logprobs": [], "text": said.text})
    if said.refusal:
        parts.append({"type": "refusal", "refusal": said.refusal})
    return parts


def _call(call: ToolCallScript, request: ScriptedRequest, position: int) -> JsonObject:
    id_ = call_id("call_", request, 0, position, call)
    if is_custom(call, request):
        return {
            "id": item_id("ctc", request, position),
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": id_,
            "input": call.input,
            "name": call.name,
        }
    item: JsonObject = {
        "id": item_id("fc", request, position),
        "type": "function_call",
        "status": "completed",
        "arguments": arguments(call),
        "call_id": id_,
        "name": flat_name(call),
    }
    if call.namespace in request.namespaces:
        item |= {"name": call.name, "namespace": call.namespace}
    return item


def item_id(prefix: str, request: ScriptedRequest, position: int = 0) -> str:
    """The id of an output item."""
    return f"{prefix}_{request.digest.hex()[:46]}{position:02x}"


def told(turn: Turn, request: ScriptedRequest) -> Talk:
    """The reply as a part of the conversation that a later request goes on with."""
    calls = {
        call_id("call_", request, 0, position, call): flat_name(call)
        for position, call in enumerate(turn.tool_calls)
    }
    return talk_of([Line("assistant", turn.text, calls)])
