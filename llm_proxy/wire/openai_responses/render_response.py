"""OpenAI Responses, the response object: what the model said, and what OpenAI's repeats of the request."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.events import Usage
from llm_proxy.wire.dialect import About
from llm_proxy.wire.members import NULL, given, members, to_object
from llm_proxy.wire.openai_responses import prompt_schema as schema
from llm_proxy.wire.openai_responses.prompt_tools import Place, declare
from llm_proxy.wire.openai_responses.render_items import Ids, encode
from llm_proxy.wire.request import WireRequest

_REPEATED = {
    "background": b"false",
    "instructions": NULL,
    "max_output_tokens": NULL,
    "max_tool_calls": NULL,
    "metadata": b"{}",
    "parallel_tool_calls": b"true",
    "previous_response_id": NULL,
    "prompt_cache_key": NULL,
    "reasoning": b'{"effort":null,"summary":null}',
    "safety_identifier": NULL,
    "service_tier": NULL,
    "store": b"true",
    "temperature": NULL,
    "text": b'{"format":{"type":"text"}}',
    "tool_choice": b'"auto"',
    "tools": b"[]",
    "top_logprobs": NULL,
    "top_p": NULL,
    "truncation": b'"disabled"',
    "user": NULL,
}
"""Keys of a request that stand in its response, and what stands there where the request had none."""

_TEXT_FORMAT = b'{"type":"text"}'
_ENCRYPTED = b'"reasoning.encrypted_content"'
_ADDED = b'"additional_tools"'
_RENAMED = (b'"custom"', b'"namespace"')
"""Types of tools that are written back in another form than they are called by."""


class _Tools(msgspec.Struct):
    tools: list[schema.Tool] | None = None
    input: str | list[msgspec.Raw] | None = None


class _Added(msgspec.Struct):
    type: str | None = None
    tools: list[schema.Tool] | None = None


_tools = msgspec.json.Decoder(_Tools).decode
_added = msgspec.json.Decoder(_Added).decode


class Shape:
    """A reply's response object, but for what changes while it comes."""

    __slots__ = ("_about", "_repeated", "ids", "model", "places")

    def __init__(self, about: About) -> None:
        self._about = about
        self._repeated = _repeat(about.request)
        self.ids = Ids(about.call_id.replace("-", ""), _ENCRYPTED in about.request.body)
        self.model = about.model
        self.places = _places(about.request)
        """The caller's tools by the names that the model knows them by."""

    def response(
        self, status: bytes, output: Sequence[bytes] = (), usage: Usage | None = None, incomplete: str = ""
    ) -> bytes:
        """The object. `incomplete` is the reason why the reply is, in OpenAI's words."""
        return (
            b'{"id":%b,"object":"response","created_at":%d,"status":"%b","error":null,'
            b'"incomplete_details":%b,"model":%b,"output":[%b],"usage":%b,%b}'
        ) % (
            encode(self.ids.response),
            self._about.created,
            status,
            encode({"reason": incomplete}) if incomplete else NULL,
            encode(self.model),
            b",".join(output),
            _usage(usage) if usage else NULL,
            self._repeated,
        )


def incomplete_reason(finish: str, *, refused: bool) -> str:
    """Why a reply with this neutral finish is incomplete; empty where it is not.

    A model that declined without a word was stopped by a filter, as far as a caller can tell.
    """
    if finish == "length":
        return "max_output_tokens"
    if finish == "content_filter" or (finish == "refusal" and not refused):
        return "content_filter"
    return ""


def _repeat(request: WireRequest) -> bytes:
    pairs = [b'"%b":%b' % (key.encode(), _value(request, key, of)) for key, of in _REPEATED.items()]
    return b",".join(pairs)


def _value(request: WireRequest, key: str, default: bytes) -> bytes:
    span = request.spans.get(key)
    raw = request.body[slice(*span)] if span else NULL
    if raw == NULL:
        return default
    if b"\n" in raw or b"\r" in raw:
        raw = msgspec.json.format(raw, indent=-1)  # a frame's data is one line
    if key == "text" and not given(of := members(raw), "format"):
        return to_object({**of, "format": _TEXT_FORMAT})
    return raw


def _places(request: WireRequest) -> dict[str, Place]:
    """Empty where every tool goes by its own name, which most requests show without being parsed."""
    if not any(word in request.body for word in _RENAMED):
        return {}
    body = _tools(request.body)
    declared = declare(body.tools or ())
    for raw in body.input if isinstance(body.input, list) and _ADDED in request.body else ():
        if _ADDED in bytes(raw) and (item := _added(raw)).type == "additional_tools":
            declare(item.tools or (), into=declared)
    return declared.places


def _usage(usage: Usage) -> bytes:
    return (
        b'{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d},'
        b'"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}'
    ) % (usage.input, usage.cached, usage.cache_write, usage.output, usage.reasoning, usage.total)
