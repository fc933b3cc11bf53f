"""OpenAI Responses, the request: parse it once into the fields that are acted on."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.asked import MAX_TOKENS, Metadata, bounded, run_and_user, session_of
from llm_proxy.wire.document import Spans, element_spans, read_document
from llm_proxy.wire.faults import invalid
from llm_proxy.wire.lenient import lenient
from llm_proxy.wire.openai_responses.calls import full_name
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import Span

_STORED = ("previous_response_id", "conversation", "prompt")
"""Keys by which a request has input without sending any."""
_CAP = "max_output_tokens"


class _Tool(msgspec.Struct, gc=False):
    type: str = ""
    name: str | None = None
    tools: list[_Tool] | None = None


class _ToolChoice(msgspec.Struct, gc=False):
    type: str = ""
    mode: str | None = None


class _ClientMetadata(msgspec.Struct, gc=False):
    """What the Codex CLI sends; the turn's metadata is a JSON object in a string."""

    session_id: str | None = None
    turn: str | None = msgspec.field(default=None, name="x-codex-turn-metadata")


class _Body(msgspec.Struct):
    model: str
    input: str | list[msgspec.Raw] | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _ToolChoice | None = None
    metadata: Metadata | None = None
    client_metadata: msgspec.Raw = msgspec.Raw(b"null")
    user: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    previous_response_id: str | None = None


_body = msgspec.json.Decoder(_Body).decode
_client_metadata = lenient(_ClientMetadata)


def parse(body: bytes) -> WireRequest:
    """Read a request body. Raises `ProxyError` (invalid_request) that names the place and the remedy.

    Each item of `input` is a message; an `input` that is a string is one message, whose bytes are that JSON
    string. Items stay undecoded. Unknown fields are not looked at.
    """
    spans, typed = read_document(body, _body, "model and input")
    message_spans = _message_spans(body, spans, typed)
    max_output = bounded(_CAP, typed.max_output_tokens, MAX_TOKENS)
    run, user = run_and_user(typed.metadata, typed.user or typed.safety_identifier)
    return WireRequest(
        body=body,
        model=typed.model,
        stream=bool(typed.stream),
        messages=tuple([body[start:end] for start, end in message_spans]),
        message_spans=message_spans,
        messages_key="input",
        spans=spans,
        max_output=max_output,
        cap_fields=(_CAP,) if max_output is not None else (),
        include_usage=True,
        tools=body[slice(*spans["tools"])] if typed.tools else b"",
        tool_names=tuple(_tool_names(typed.tools or [])),
        tool_forced=_forced(typed.tool_choice),
        user=user,
        run=run or _client_run(typed.client_metadata),
        store=typed.store is not False,
        previous=typed.previous_response_id or "",
    )


def _message_spans(body: bytes, spans: Spans, typed: _Body) -> tuple[Span, ...]:
    if isinstance(typed.input, str):
        return (spans["input"],)
    if typed.input:
        return element_spans(body, "input", spans["input"][0], typed.input)
    if any(key in spans and body[slice(*spans[key])] != b"null" for key in _STORED):
        return ()
    raise invalid("input is missing or empty: send a text or at least one item", "input")


def _tool_names(tools: list[_Tool], namespace: str = "") -> list[str]:
    """Names of the tools that have one, their namespace before it, and the types of those that have none."""
    names: list[str] = []
    for tool in tools:
        if tool.type == "namespace":
            names += _tool_names(tool.tools or [], tool.name or "")
        else:
            names.append(full_name(namespace, tool.name) if tool.name else tool.type)
    return names


def _forced(choice: str | _ToolChoice | None) -> bool:
    if isinstance(choice, _ToolChoice):
        return choice.mode == "required" if choice.type == "allowed_tools" else choice.type != "auto"
    return choice == "required"


def _client_run(raw: msgspec.Raw) -> str:
    client = _client_metadata(raw)
    return (client.session_id or session_of(client.turn or "")) if client else ""
