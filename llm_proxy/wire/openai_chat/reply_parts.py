"""OpenAI chat completions, what whole and streamed replies that are written anew have in common."""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import Usage
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.openai_chat.request import ChatRequest
from llm_proxy.wire.request import WireRequest


class Caller(msgspec.Struct, frozen=True):
    """What the caller's own request says of how it wants calls."""

    legacy: bool = False
    """It declared `functions`: a call comes back as `function_call`, and only the first has a place there."""
    custom_tools: frozenset[str] = frozenset()


class _Custom(msgspec.Struct, gc=False):
    name: str = ""


class _Tool(msgspec.Struct, gc=False):
    custom: _Custom | None = None


class _Freeform(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    input: str


_tools = msgspec.json.Decoder(list[_Tool]).decode
_freeform = msgspec.json.Decoder(_Freeform).decode
_encode = msgspec.json.Encoder().encode


def caller_of(request: WireRequest) -> Caller:
    legacy = isinstance(request, ChatRequest) and request.legacy_functions and "tools" not in request.spans
    if legacy or b'"custom"' not in request.tools:
        return Caller(legacy)
    try:
        tools = _tools(request.tools)
    except CANNOT_READ:
        return Caller()
    return Caller(custom_tools=frozenset([tool.custom.name for tool in tools if tool.custom]))


def completion_id(call_id: str) -> str:
    return "chatcmpl-" + call_id.replace("-", "")


def call_id(of_reply: str, index: int) -> str:
    """An id for a call that came without one."""
    return f"call_{of_reply.replace('-', '')[:24]}_{index}"


def finish_reason(reason: str, caller: Caller, *, calling: bool, refused: bool) -> str:
    """The dialect's word for a neutral one; a plain stop for any that it lacks.

    A reply that just stopped ended for its calls where it has any, and for none where it has none.
    """
    if reason == "refusal":
        return "stop" if refused else "content_filter"
    if reason in ("length", "content_filter"):
        return reason
    if not calling:
        return "stop"
    return "function_call" if caller.legacy else "tool_calls"


def freeform_input(name: str, arguments: str, caller: Caller, *, custom: bool) -> dict[str, object]:
    """A call of a freeform tool, less its id: its plain text taken out of the stand-in's arguments.

    `custom`: the arguments are plain text already. Arguments of another shape are passed as they are.
    """
    text = arguments if custom else _unpacked(arguments)
    if name in caller.custom_tools:
        return {"type": "custom", "custom": {"name": name, "input": text}}
    if custom:
        arguments = _encode({"input": text}).decode()
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def usage_of(usage: Usage) -> dict[str, object]:
    """The `usage` object."""
    inputs = {"cached_tokens": usage.cached}
    if usage.cache_write:
        inputs["cache_write_tokens"] = usage.cache_write
    outputs = {"reasoning_tokens": usage.reasoning}
    if usage.audio_input or usage.audio_output:
        inputs["audio_tokens"], outputs["audio_tokens"] = usage.audio_input, usage.audio_output
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.total,
        "prompt_tokens_details": inputs,
        "completion_tokens_details": outputs,
    }


def _unpacked(arguments: str) -> str:
    try:
        return _freeform(arguments).input
    except CANNOT_READ:
        return arguments
