"""OpenAI chat completions, the request: parse it once into the fields that are acted on."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.asked import MAX_CHOICES, MAX_TOKENS, Metadata, StreamOptions, bounded, run_and_user
from llm_proxy.wire.document import MAX_MESSAGES, inner_spans, message_spans, read_document
from llm_proxy.wire.openai_chat.message import message_facts
from llm_proxy.wire.openai_chat.upstream import upstream_body
from llm_proxy.wire.request import WireRequest

__all__ = ["MAX_MESSAGES", "ChatRequest", "message_facts", "parse", "upstream_body"]


class ChatRequest(WireRequest, frozen=True, kw_only=True):
    """A chat completion request."""

    legacy_functions: bool = False
    """It declares `functions` (the form before `tools`), so calls come back as `function_call`."""


class _Named(msgspec.Struct, gc=False):
    name: str


class _Tool(msgspec.Struct, gc=False):
    function: _Named | None = None
    custom: _Named | None = None


class _AllowedTools(msgspec.Struct, gc=False):
    mode: str = ""


class _ToolChoice(msgspec.Struct, gc=False):
    type: str = ""
    allowed_tools: _AllowedTools | None = None


class _Body(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    stream: bool | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream_options: StreamOptions | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _ToolChoice | None = None
    functions: list[_Named] | None = None
    function_call: str | _Named | None = None
    metadata: Metadata | None = None
    user: str | None = None


_body = msgspec.json.Decoder(_Body).decode


def parse(body: bytes) -> ChatRequest:
    """Read a request body. Raises `ProxyError` (invalid_request) that names the place and the remedy.

    Nesting is bounded by msgspec, which stops at the interpreter's recursion limit. Message contents stay
    undecoded. Unknown fields are not looked at.
    """
    spans, typed = read_document(body, _body, "model and messages")
    if typed.stream_options:
        inner_spans(body, "stream_options", spans["stream_options"])
    messages = message_spans(body, spans["messages"], typed.messages)
    cap_fields, max_output = _cap(typed)
    run, user = run_and_user(typed.metadata, typed.user)
    tools = spans.get("tools") if typed.tools else spans.get("functions") if typed.functions else None
    return ChatRequest(
        body=body,
        model=typed.model,
        stream=bool(typed.stream),
        n=bounded("n", typed.n, MAX_CHOICES) or 1,
        messages=tuple([body[start:end] for start, end in messages]),
        message_spans=messages,
        spans=spans,
        max_output=max_output,
        cap_fields=cap_fields,
        include_usage=bool(typed.stream_options and typed.stream_options.include_usage),
        tools=body[slice(*tools)] if tools else b"",
        tool_names=_tool_names(typed),
        tool_forced=_forced(typed),
        user=user,
        run=run,
        legacy_functions=bool(typed.functions),
    )


def _cap(typed: _Body) -> tuple[tuple[str, ...], int | None]:
    """The keys that hold a completion cap, and the lower of their values."""
    held = {
        name: value
        for name, value in (
            (
                "max_completion_tokens",
                bounded("max_completion_tokens", typed.max_completion_tokens, MAX_TOKENS),
            ),
            ("max_tokens", bounded("max_tokens", typed.max_tokens, MAX_TOKENS)),
        )
        if value is not None
    }
    return tuple(held), min(held.values(), default=None)


def _tool_names(typed: _Body) -> tuple[str, ...]:
    named = [tool.function or tool.custom for tool in typed.tools or ()] + list(typed.functions or ())
    return tuple([tool.name for tool in named if tool])


def _forced(typed: _Body) -> bool:
    choice = typed.tool_choice
    if isinstance(choice, _ToolChoice):
        if choice.allowed_tools:
            return choice.allowed_tools.mode == "required"
        return choice.type not in ("auto", "none")
    return choice == "required" or isinstance(typed.function_call, _Named)
