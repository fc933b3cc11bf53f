"""Anthropic Messages, the request: parse it once into the fields that are acted on."""

from __future__ import annotations

import re

import msgspec

from llm_proxy.wire.asked import MAX_TOKENS, Metadata, run_and_user, session_of
from llm_proxy.wire.document import message_spans, read_document
from llm_proxy.wire.faults import invalid
from llm_proxy.wire.request import WireRequest


class _Tool(msgspec.Struct, gc=False):
    """A tool of the caller's, or one of Anthropic's by its `type`; a toolset has no name of its own."""

    name: str | None = None
    type: str | None = None


class _ToolChoice(msgspec.Struct, gc=False):
    type: str = ""


class _Body(msgspec.Struct):
    model: str
    messages: list[msgspec.Raw]
    max_tokens: int | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    metadata: Metadata | None = None


_body = msgspec.json.Decoder(_Body).decode
_SESSION = re.compile(r"user_.*_session_([0-9a-fA-F-]{36})")
"""A user id as Claude Code's first versions wrote it: `user_<hash>_account_<uuid>_session_<uuid>`."""


def parse(body: bytes) -> WireRequest:
    """Read a request. Raises `ProxyError` (invalid_request) that names the place and the remedy.

    Nesting is bounded by msgspec, which stops at the interpreter's recursion limit. Message contents stay
    undecoded. Unknown fields are not looked at. `max_tokens` is required; 0 only fills the prompt cache.
    """
    request = parse_count(body)
    if request.max_output is None:
        raise invalid("max_tokens is missing: add it to the request body", "max_tokens")
    return request


def parse_count(body: bytes) -> WireRequest:
    """Read a request to count tokens, which is a request for a message that needs no `max_tokens`."""
    spans, typed = read_document(body, _body, "model, max_tokens and messages")
    messages = message_spans(body, spans["messages"], typed.messages)
    run, user = run_and_user(typed.metadata, None, _session_in)
    tools = spans.get("tools") if typed.tools else None
    return WireRequest(
        body=body,
        model=typed.model,
        stream=bool(typed.stream),
        messages=tuple([body[start:end] for start, end in messages]),
        message_spans=messages,
        spans=spans,
        max_output=_bounded(typed.max_tokens),
        cap_fields=() if typed.max_tokens is None else ("max_tokens",),
        include_usage=True,
        tools=body[slice(*tools)] if tools else b"",
        tool_names=tuple([name for tool in typed.tools or () if (name := tool.name or tool.type)]),
        tool_forced=bool(typed.tool_choice and typed.tool_choice.type not in ("", "auto", "none")),
        user=user,
        run=run,
    )


def _bounded(tokens: int | None) -> int | None:
    if tokens is None or 0 <= tokens <= MAX_TOKENS:
        return tokens
    raise invalid(f"max_tokens is {tokens}: send a number from 0 to {MAX_TOKENS}", "max_tokens")


def _session_in(user_id: str) -> str:
    written = _SESSION.fullmatch(user_id)
    return written[1] if written else session_of(user_id)
