"""Between OpenAI chat's JSON and what litellm takes and gives: names, signatures, reasoning, errors. Pure.

litellm names what a vendor signs in its own way: `thinking_blocks` on a message, and Gemini's signature in a
call's `provider_specific_fields`. Here they become OpenRouter's `reasoning_details` and Google's
`extra_content`, which the chat dialect reads, and the other way round in a request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from llm_proxy.chat.events import ANTHROPIC_FORMAT, GEMINI_FORMAT
from llm_proxy.upstream.provider import UpstreamFailure
from routing.failures import FailureKind

Json = dict[str, Any]

DONE = b"data: [DONE]\n\n"

_MEANING = frozenset(
    [
        "messages",
        "functions",
        "function_call",
        "temperature",
        "top_p",
        "n",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "modalities",
        "prediction",
        "audio",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "response_format",
        "seed",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "logprobs",
        "top_logprobs",
        "reasoning_effort",
        "verbosity",
        "thinking",
        "web_search_options",
    ]
)
_HINTS = frozenset(
    [
        "user",
        "safety_identifier",
        "service_tier",
        "store",
        "prompt_cache_key",
        "prompt_cache_retention",
        "metadata",
        "client_metadata",
    ]
)
"""What may be left out where a provider doesn't know it: the answer stays the same."""
_VENDORS = frozenset(
    [
        "top_k",
        "top_a",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "chat_template_kwargs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "structured_outputs",
        "safe_prompt",
        "random_seed",
        "reasoning_format",
        "include_reasoning",
    ]
)
"""Parameters of vendors, which mean nothing to litellm itself."""
_LITELLMS = frozenset({"metadata"})
"""What litellm takes for its own, whatever a provider supports."""
_OURS = frozenset({"model", "stream", "stream_options"})
PLUMBING = _OURS | {"messages"}
"""Parameters that are never at fault where a provider doesn't know some."""
_RUN_BY_LITELLM = frozenset({"mcp", "file_search"})
"""Kinds of tools that litellm itself would run, past the policy."""
_EMBEDDING = frozenset({"input", "dimensions", "encoding_format", "user"})

_read = msgspec.json.Decoder(Json).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Arguments:
    """What litellm is called with, and the hints that were left out, in the body's order."""

    model: str
    fields: Json
    dropped: tuple[str, ...] = ()


def refusal(message: str, param: str | None = None) -> UpstreamFailure:
    """A request that can't be sent to its provider: the caller's 400, in OpenAI's words."""
    return UpstreamFailure(
        FailureKind.BAD_REQUEST, message, status=400, body=error_body(message, "unsupported_parameter", param)
    )


def error_body(message: str, code: str | None = None, param: str | None = None) -> bytes:
    """OpenAI's error object."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return _encode({"error": error})


def embedding_arguments(body: bytes, provider: str) -> Arguments:
    """An embeddings request's body as litellm takes it. Raises UpstreamFailure for what it can't take."""
    given = _read(body)
    model = str(given.pop("model", ""))
    _refuse_strangers(given, _EMBEDDING, provider)
    return Arguments(model, given)


def chat_arguments(
    body: bytes, provider: str, *, stream: bool, supported: Callable[[str], Collection[str]]
) -> Arguments:
    """A chat request's body as litellm takes it. Raises UpstreamFailure for what it can't take.

    `supported` gives a model's own parameters in OpenAI's names, none where they aren't known. Only
    known names pass: litellm takes its own settings (`api_base`, `mock_response`, …) by the same road, and
    those aren't a caller's to set.
    """
    given = _read(body)
    model = str(given.get("model", ""))
    left = {name: value for name, value in given.items() if name not in _OURS}
    _refuse_strangers(left, _MEANING | _HINTS | _VENDORS, provider)
    _refuse_hosted_tools(left.get("tools"), provider)
    known = frozenset(supported(model)) - _LITELLMS
    dropped = tuple(name for name in left if name in _HINTS and name not in known)
    fields = {name: value for name, value in left.items() if name not in dropped and value is not None}
    if stream and (fields.get("n") or 1) != 1:
        raise refusal(f"Provider {provider} streams one choice at a time: send n 1, or no stream.", "n")
    messages = fields.get("messages")
    if isinstance(messages, list):
        form = signing_format(provider, model)
        fields["messages"] = [_outgoing(message, form) for message in messages]  # pyright: ignore[reportUnknownVariableType]
    if stream:
        fields["stream_options"] = {"include_usage": True}
    return Arguments(model, fields, dropped)


def _refuse_strangers(given: Json, known: Collection[str], provider: str) -> None:
    strangers = [name for name in given if name not in known]
    if strangers:
        raise refusal(
            f"Provider {provider} can't be sent {', '.join(map(repr, strangers))}: leave it out, or use "
            "provider openai with a base_url where the server is OpenAI-compatible.",
            strangers[0],
        )


def _refuse_hosted_tools(tools: Any, provider: str) -> None:
    for tool in tools if isinstance(tools, list) else ():  # pyright: ignore[reportUnknownVariableType]
        if isinstance(tool, dict) and tool.get("type") in _RUN_BY_LITELLM:  # pyright: ignore[reportUnknownMemberType]
            raise refusal(
                f"Provider {provider} has no tools of type {tool['type']!r}: leave it out of tools.", "tools"
            )


def signing_format(provider: str, model: str) -> str:
    """Whose seal this model's reasoning carries, in OpenRouter's words; empty where it has none."""
    name = f"{provider}/{model}".lower()
    if "claude" in name or "anthropic" in name:
        return ANTHROPIC_FORMAT
    return GEMINI_FORMAT if "gemini" in name else ""


def _outgoing(message: Any, form: str) -> Any:
    """A message of the history with its signatures where litellm looks for them."""
    if not isinstance(message, dict):
        return message
    said: Json = dict(message)  # pyright: ignore[reportUnknownArgumentType]
    details = said.pop("reasoning_details", None)
    if form == ANTHROPIC_FORMAT and isinstance(details, list) and "thinking_blocks" not in said:
        blocks = [block for detail in details if (block := _block(detail))]  # pyright: ignore[reportUnknownVariableType]
        if blocks:
            said["thinking_blocks"] = blocks
    if isinstance(calls := said.get("tool_calls"), list):
        said["tool_calls"] = [_outgoing_call(call, form) for call in calls]  # pyright: ignore[reportUnknownVariableType]
    return said


def _block(detail: Any) -> Json | None:
    """Anthropic's block from a detail that it signed; None for every other."""
    match detail:
        case {"format": str(form)} if form and form != ANTHROPIC_FORMAT:
            return None
        case {"type": "reasoning.text", "signature": str(signature), **rest} if signature:
            return {"type": "thinking", "thinking": rest.get("text") or "", "signature": signature}
        case {"type": "reasoning.encrypted", "data": str(data)} if data:
            return {"type": "redacted_thinking", "data": data}
        case _:
            return None


def _outgoing_call(call: Any, form: str) -> Any:
    match call:
        case {"extra_content": {"google": {"thought_signature": str(signature)}}, **rest}:
            if form != GEMINI_FORMAT:
                return rest
            return {**rest, "provider_specific_fields": {"thought_signature": signature}}
        case _:
            return call


class Incoming:
    """Rewrites one reply's messages or deltas, in order. Stateful: a stream's blocks are counted."""

    __slots__ = ("_form", "_index")

    def __init__(self, form: str) -> None:
        self._form = form
        self._index: dict[int, int] = {}

    def body(self, reply: Json) -> bytes:
        """A whole reply as OpenAI writes it."""
        for choice in reply.get("choices") or ():
            if message := choice.get("message"):
                message.setdefault("content", None)
                self._rewrite(choice.get("index") or 0, message)
        _rewrite_usage(reply)
        return _encode(reply)

    def frame(self, chunk: Json, *, with_usage: bool) -> bytes:
        """One event of the stream; empty where nothing is left in it."""
        choices = [choice for choice in chunk.get("choices") or () if _says(choice)]
        for choice in choices:
            choice.setdefault("finish_reason", None)
            if delta := choice.get("delta"):
                self._rewrite(choice.get("index") or 0, delta)
        chunk["choices"] = choices
        if with_usage:
            _rewrite_usage(chunk)
        else:
            chunk.pop("usage", None)
        if not choices and "usage" not in chunk:
            return b""
        return b"data: %b\n\n" % _encode(chunk)

    def _rewrite(self, choice: int, message: Json) -> None:
        details: list[Json] = []
        for block in message.get("thinking_blocks") or ():
            index = self._index.setdefault(choice, 0)
            detail = _detail(block, self._form, index)
            if detail:
                details.append(detail)
                if "text" not in detail or detail.get("signature"):
                    self._index[choice] = index + 1  # a signature ends its block
        if details:
            message["reasoning_details"] = details
        for call in message.get("tool_calls") or ():
            fields = call.get("provider_specific_fields")
            if isinstance(fields, dict) and (signature := fields.get("thought_signature")):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
                call["extra_content"] = {"google": {"thought_signature": signature}}


def _says(choice: Json) -> bool:
    """Whether a streamed choice says anything: litellm sends empty ones beside usage."""
    return bool(choice.get("finish_reason")) or bool(choice.get("delta"))


def _detail(block: Json, form: str, index: int) -> Json | None:
    match block:
        case {"type": "redacted_thinking", "data": str(data)}:
            return {"type": "reasoning.encrypted", "data": data, "format": form, "index": index}
        case {"type": "thinking"}:
            detail: Json = {"type": "reasoning.text", "text": block.get("thinking") or ""}
            if signature := block.get("signature"):
                detail["signature"] = signature
            return {**detail, "format": form, "index": index}
        case _:
            return None


def _rewrite_usage(reply: Json) -> None:
    """Cache writes under the name that OpenRouter gives them."""
    usage: Json = reply.get("usage") or {}
    details: Json = usage.get("prompt_tokens_details") or {}
    if (written := details.get("cache_creation_tokens")) and not details.get("cache_write_tokens"):
        details["cache_write_tokens"] = written
