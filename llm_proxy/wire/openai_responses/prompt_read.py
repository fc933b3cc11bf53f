"""OpenAI Responses, a request in neutral terms, to be written in another dialect."""

from __future__ import annotations

import msgspec

from llm_proxy.chat.prompt import Effort, Message, OutputFormat, Prompt, Role, TextPart, Thinking
from llm_proxy.wire.faults import decoded, invalid, unsupported
from llm_proxy.wire.lenient import NONE
from llm_proxy.wire.openai_responses import prompt_schema as schema
from llm_proxy.wire.openai_responses.prompt_items import Conversation
from llm_proxy.wire.openai_responses.prompt_tools import declare, read_choice
from llm_proxy.wire.request import WireRequest

_body = msgspec.json.Decoder(schema.Body).decode
_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_HELD = frozenset(
    {
        "model",
        "instructions",
        "input",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "max_output_tokens",
        "temperature",
        "top_p",
        "reasoning",
        "text",
        "user",
        "safety_identifier",
        "service_tier",
        "prompt_cache_key",
        "stream",
    }
)
_SAYS_NOTHING = (b"null", b"false", b"[]", b"{}")
_HELD_BELOW = {
    "reasoning": frozenset({"effort", "summary", "generate_summary"}),
    "text": frozenset({"format", "verbosity"}),
}
_EFFORTS = ", ".join(Effort)


def read_prompt(request: WireRequest) -> Prompt:
    """The request in neutral terms; hints that these lack are named in `dropped`, in the body's order.

    The one who calls has put the earlier items in place of `previous_response_id` and `conversation`. Raises
    `ProxyError`: invalid_request for what can't be read, unsupported_feature for what only the vendor can do.
    """
    body = decoded(_body, request.body, "")
    _refuse_vendors_own(body)
    declared = declare(body.tools or ())
    tools_lost = len(declared.dropped)
    talk = Conversation(declared)
    messages = _read_input(body, talk)
    choice, choice_lost = read_choice(body.tool_choice, declared)
    lost = {
        "tools": declared.dropped[:tools_lost],
        "input": [*talk.dropped, *declared.dropped[tools_lost:]],
        "tool_choice": list(choice_lost),
    }
    instructions = [TextPart(text=body.instructions)] if body.instructions else []
    text = body.text or schema.TextConfig()
    return Prompt(
        model=request.model,
        messages=messages,
        system=(*instructions, *talk.system),
        stream=bool(body.stream),
        include_usage=bool(body.stream),
        tools=tuple(declared.tools),
        tool_choice=choice,
        parallel_calls=body.parallel_tool_calls,
        max_output=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        thinking=_read_reasoning(body.reasoning),
        output=_read_format(text.format),
        verbosity=text.verbosity or "",
        user=body.safety_identifier or body.user or "",
        service_tier=body.service_tier or "",
        cache_key=body.prompt_cache_key or "",
        dropped=_dropped(request, lost),
    )


def _refuse_vendors_own(body: schema.Body) -> None:
    if body.background:
        raise unsupported(
            "background runs only at the vendor of the Responses API, and this model has another: "
            "leave it out",
            "background",
        )
    for name, remedy in (
        ("previous_response_id", "send the earlier items as input"),
        ("conversation", "send its items as input"),
        ("prompt", "send the template's text as instructions and input"),
    ):
        if getattr(body, name) != NONE:
            raise unsupported(
                f"{name} names something in its vendor's store, and this model has another: {remedy}", name
            )


def _read_input(body: schema.Body, talk: Conversation) -> tuple[Message, ...]:
    if body.input is None:
        raise invalid("input is missing: send text or a list of items", "input")
    if isinstance(body.input, str):
        return (Message(role=Role.USER, parts=(TextPart(text=body.input),)),)
    for index, raw in enumerate(body.input):
        talk.add(raw, f"input[{index}]")
    return talk.close()


def _read_reasoning(reasoning: schema.Reasoning | None) -> Thinking | None:
    if reasoning is None:
        return None
    effort = None
    if reasoning.effort is not None:
        if reasoning.effort not in tuple(Effort):
            raise invalid(
                f"reasoning.effort is {reasoning.effort!r}: send one of {_EFFORTS}", "reasoning.effort"
            )
        effort = Effort(reasoning.effort)
    thinking = Thinking(effort=effort, summary=reasoning.summary or reasoning.generate_summary or "")
    return None if thinking == Thinking() else thinking


def _read_format(of: schema.Format | None) -> OutputFormat | None:
    if of is None or of.type in (None, "text"):
        return None
    if of.type == "json_object":
        return OutputFormat()
    if of.type != "json_schema":
        raise unsupported(
            f"text.format.type is {of.type!r}, which can't be carried over to this model's vendor: send "
            "text, json_object or json_schema",
            "text.format.type",
        )
    if of.schema == NONE:
        raise invalid("text.format.schema is missing: send a JSON schema", "text.format.schema")
    return OutputFormat(
        schema=bytes(of.schema),
        name=of.name or "",
        description=of.description or "",
        strict=of.strict,
    )


def _dropped(request: WireRequest, lost: dict[str, list[str]]) -> tuple[str, ...]:
    """The names of what is left out, each at the place of its top-level key."""
    names: list[str] = []
    for key, (start, end) in request.spans.items():
        value = request.body[start:end]
        if key not in _HELD:
            names += [key] if value not in _SAYS_NOTHING else []
        elif held := _HELD_BELOW.get(key):
            below = {} if value == b"null" else _keys(value)
            names += [f"{key}.{inner}" for inner, raw in below.items() if inner not in held and _says(raw)]
        else:
            names += lost.get(key, ())
    return tuple(dict.fromkeys(names))


def _says(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in _SAYS_NOTHING
