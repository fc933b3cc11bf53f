"""An OpenAI chat request told in message parts, whatever a caller made of it."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import msgspec

from llm_proxy.chat.events import ReasoningKind
from llm_proxy.chat.thinking import split_inline
from llm_proxy.telemetry.parts import (
    UNREADABLE,
    BlobPart,
    FilePart,
    Message,
    Part,
    ReasoningContent,
    TextPart,
    ToolCallPart,
    ToolResponsePart,
    UriPart,
    json_or_text,
    reasoning_content,
)
from llm_proxy.wire.openai_chat.history import reasoning_of

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Request parameters, each None (or empty) where absent or not of its type."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    choices: int | None = None
    stop: tuple[str, ...] = ()
    reasoning_level: str = ""
    output_type: str = ""
    previous_response: str = ""
    conversation: str = ""
    """The vendor's id of a conversation that it keeps; never one of ours."""


class RequestContent(msgspec.Struct, frozen=True):
    system: tuple[Part, ...] = ()
    messages: tuple[Message, ...] = ()
    tools: tuple[msgspec.Raw, ...] = ()
    sampling: Sampling = Sampling()


def chat_request(body: bytes) -> RequestContent:
    """An OpenAI chat request. A body that is no such thing becomes one user message with its text."""
    try:
        root: Json = msgspec.json.decode(body)
        if isinstance(root, dict):
            return _chat_content(root)
    except UNREADABLE:
        pass
    text = body.decode("utf-8", "replace")
    return RequestContent(messages=(Message(role="user", parts=(TextPart(text),)),))


def _chat_content(root: dict[str, Json]) -> RequestContent:
    system: list[Part] = []
    messages: list[Message] = []
    sent = root.get("messages")
    for item in sent if isinstance(sent, list) else []:
        if not isinstance(item, dict):
            continue
        role = _text(item.get("role"))
        if role in ("system", "developer"):
            system.extend(_content_parts(item.get("content")))
        else:
            messages.append(_message(role, item))
    return RequestContent(tuple(system), tuple(messages), tuple(_tools(root)), _sampling(root))


def _message(role: str, item: dict[str, Json]) -> Message:
    match role:
        case "tool" | "function":
            parts = [_tool_response(item)]
        case "assistant":
            parts = [*_past_words(item), *_past_calls(item)]
            if refusal := _text(item.get("refusal")):
                parts.append(TextPart(refusal, refusal=True))
        case _:
            parts = _content_parts(item.get("content"))
    return Message(role=role or "user", parts=tuple(parts), name=_text(item.get("name")))


def _tool_response(item: dict[str, Json]) -> Part:
    content = item.get("content")
    if isinstance(content, list):
        texts = [_text(part.get("text")) for part in content if isinstance(part, dict)]
        content = "\n".join(texts)
    text = content if isinstance(content, str) else msgspec.json.encode(content).decode()
    return ToolResponsePart(_text(item.get("tool_call_id")) or _text(item.get("name")), text)


def _past_words(item: dict[str, Json]) -> list[Part]:
    """Reasoning sent back by the agent, in any server's field or between tags, and what it said beside it."""
    parts: list[Part] = [reasoning_content(part) for part in reasoning_of(msgspec.json.encode(item))]
    content = item.get("content")
    if isinstance(content, str):
        thought, content = split_inline(content)
        if thought:
            parts.append(ReasoningContent(thought, ReasoningKind.INLINE_TAG))
    elif isinstance(content, list):
        content = [p for p in content if not (isinstance(p, dict) and p.get("type") == "thinking")]
    return [*parts, *_content_parts(content)]


def _past_calls(item: dict[str, Json]) -> list[Part]:
    calls = item.get("tool_calls")
    found = [c for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
    legacy = item.get("function_call")
    if isinstance(legacy, dict):
        found.append({"id": "", "function": legacy})
    return [_past_call(call) for call in found]


def _past_call(call: dict[str, Json]) -> Part:
    function = call.get("function") or call.get("custom")
    named: dict[str, Json] = function if isinstance(function, dict) else {}
    arguments = _text(named.get("arguments")) or _text(named.get("input"))
    return ToolCallPart(_text(call.get("id")), _text(named.get("name")), json_or_text(arguments))


def _content_parts(content: Json) -> list[Part]:
    if isinstance(content, str):
        return [TextPart(content)]
    if isinstance(content, list):
        return [_content_part(part) for part in content]
    return []


def _content_part(part: Json) -> Part:
    if not isinstance(part, dict):
        return msgspec.Raw(msgspec.json.encode(part))
    told: Part
    match part.get("type"):
        case "text" | "input_text" | "output_text":
            told = TextPart(_text(part.get("text")))
        case "refusal":
            told = TextPart(_text(part.get("refusal")), refusal=True)
        case "image_url":
            told = _link("image", part.get("image_url"))
        case "input_audio":
            told = _data("audio", part.get("input_audio"), "data", "format")
        case "file":
            told = _data("document", part.get("file"), "file_data", "filename")
        case _:
            told = msgspec.Raw(msgspec.json.encode(part))
    return told


def _link(modality: str, value: Json) -> Part:
    url = _text(value.get("url")) if isinstance(value, dict) else _text(value)
    return _blob(modality, url) if url.startswith("data:") else UriPart(modality, url)


def _data(modality: str, value: Json, key: str, kind: str) -> Part:
    held: dict[str, Json] = value if isinstance(value, dict) else {}
    if file_id := _text(held.get("file_id")):
        return FilePart(modality, file_id)
    return _blob(modality, _text(held.get(key)), _text(held.get(kind)))


def _blob(modality: str, data: str, mime_type: str = "") -> Part:
    if data.startswith("data:"):
        mime_type = data[5 : data.find(";", 5, 130)] if ";" in data[:130] else ""
    raw = data.encode()
    return BlobPart(modality, "", mime_type, len(raw), hashlib.sha256(raw).hexdigest())


def _tools(root: dict[str, Json]) -> list[msgspec.Raw]:
    tools = root.get("tools")
    return [_tool(tool) for tool in (tools if isinstance(tools, list) else [])]


def _tool(tool: Json) -> msgspec.Raw:
    if isinstance(tool, dict) and isinstance(inner := tool.get("function"), dict):
        tool = {"type": "function", **inner}
    return msgspec.Raw(msgspec.json.encode(tool))


def _sampling(root: dict[str, Json]) -> Sampling:
    stop = root.get("stop")
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    limit = _integer(root.get("max_completion_tokens"))
    return Sampling(
        max_tokens=limit if limit is not None else _integer(root.get("max_tokens")),
        temperature=_number(root.get("temperature")),
        top_p=_number(root.get("top_p")),
        top_k=_integer(root.get("top_k")),
        frequency_penalty=_number(root.get("frequency_penalty")),
        presence_penalty=_number(root.get("presence_penalty")),
        seed=_integer(root.get("seed")),
        choices=_integer(root.get("n")),
        stop=tuple(s for s in stops if isinstance(s, str)),
        reasoning_level=_text(root.get("reasoning_effort")),
        output_type=_output_type(root.get("response_format")),
    )


def _output_type(value: Json) -> str:
    match value:
        case {"type": "json_object" | "json_schema"}:
            return "json"
        case {"type": "text"}:
            return "text"
        case _:
            return ""


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _integer(value: Json) -> int | None:
    """Only what an OTLP integer (int64) can hold."""
    fits = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    return value if fits and isinstance(value, int) else None


def _number(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e300 else None
