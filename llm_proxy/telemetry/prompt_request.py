"""A request of any dialect that has a neutral form, told in message parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import structs

from llm_proxy.chat import prompt as p
from llm_proxy.errors import ProxyError
from llm_proxy.telemetry.chat_request import RequestContent, Sampling
from llm_proxy.telemetry.parts import (
    BlobPart,
    FilePart,
    Message,
    Part,
    TextPart,
    ToolCallPart,
    ToolResponsePart,
    UriPart,
    json_or_text,
    reasoning_content,
)
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_responses.conversation import conversation_of
from llm_proxy.wire.request import WireRequest

_LARGEST = 100_000
"""Bytes of a body that has no neutral form, which is told as text."""


def prompt_request(dialect: Dialect, body: bytes) -> RequestContent:
    """The request's content; a body that can't be read in parts is one user message with its text."""
    if dialect.translation is not None:
        try:
            request = dialect.parse(body)
            told = _told(dialect.translation.read_prompt(request))
            return structs.replace(told, sampling=_goes_on(told.sampling, dialect, request))
        except ProxyError:
            pass
    text = body[:_LARGEST].decode("utf-8", "replace")
    return RequestContent(messages=(Message(role="user", parts=(TextPart(text),)),))


def _goes_on(sampling: Sampling, dialect: Dialect, request: WireRequest) -> Sampling:
    """With what the request goes on from at its vendor."""
    if not dialect.keeps:
        return sampling
    conversation = conversation_of(request)
    return structs.replace(sampling, previous_response=request.previous, conversation=conversation)


def _told(prompt: p.Prompt) -> RequestContent:
    return RequestContent(
        system=tuple(TextPart(part.text) for part in prompt.system),
        messages=tuple(_message(message) for message in prompt.messages),
        tools=tuple(_tool(tool) for tool in prompt.tools),
        sampling=_sampling(prompt),
    )


def _message(message: p.Message) -> Message:
    results = all(isinstance(part, p.ResultPart) for part in message.parts) and message.parts
    role = "tool" if results else message.role.value
    return Message(role=role, parts=tuple(map(_part, message.parts)), name=message.name)


def _part(part: p.Part) -> Part:  # noqa: PLR0911  one answer for each kind of part
    match part:
        case p.TextPart():
            return TextPart(part.text)
        case p.RefusalPart():
            return TextPart(part.text, refusal=True)
        case p.ThoughtPart(thought=thought):
            return reasoning_content(thought)
        case p.CallPart():
            return ToolCallPart(part.id, part.name, json_or_text(part.arguments))
        case p.ResultPart():
            return ToolResponsePart(part.call_id, _text(part.parts))
        case p.ImagePart():
            return _media("image", part.data, part.media_type, part.url, part.file_id)
        case p.FilePart():
            if part.text:
                return TextPart(part.text)
            return _media("document", part.data, part.media_type, part.url, part.file_id)
        case p.AudioPart():
            return _media("audio", part.data, part.format, "", "")


def _text(parts: Sequence[p.TextPart | p.ImagePart | p.FilePart]) -> str:
    words = (part.text if not isinstance(part, p.ImagePart) else "[image]" for part in parts)
    return "\n".join(words)


def _media(modality: str, data: str, media_type: str, url: str, file_id: str) -> Part:
    if url:
        return UriPart(modality, url)
    if file_id:
        return FilePart(modality, file_id)
    raw = data.encode()
    return BlobPart(modality, "", media_type, len(raw), hashlib.sha256(raw).hexdigest())


def _tool(tool: p.Tool) -> msgspec.Raw:
    told = {
        "type": "custom" if tool.custom else "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": msgspec.Raw(tool.parameters or b"{}"),
    }
    return msgspec.Raw(msgspec.json.encode(told))


def _sampling(prompt: p.Prompt) -> Sampling:
    thinking = prompt.thinking
    return Sampling(
        max_tokens=prompt.max_output,
        temperature=prompt.temperature,
        top_p=prompt.top_p,
        top_k=prompt.top_k,
        frequency_penalty=prompt.frequency_penalty,
        presence_penalty=prompt.presence_penalty,
        seed=prompt.seed,
        choices=prompt.n,
        stop=prompt.stop,
        reasoning_level=thinking.effort.value if thinking and thinking.effort else "",
        output_type="json" if prompt.output else "",
    )
