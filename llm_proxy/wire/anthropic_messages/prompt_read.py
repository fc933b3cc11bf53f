"""Anthropic Messages, a request as a neutral prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from llm_proxy.chat.prompt import (
    AudioPart,
    Choose,
    Effort,
    Message,
    OutputFormat,
    Prompt,
    RefusalPart,
    Role,
    TextPart,
    Thinking,
    ThoughtPart,
    Tool,
    ToolChoice,
)
from llm_proxy.wire.anthropic_messages import prompt_schema as schema
from llm_proxy.wire.anthropic_messages.prompt_blocks import BlockReader
from llm_proxy.wire.anthropic_messages.prompt_schema import said
from llm_proxy.wire.faults import decoded, invalid, unsupported
from llm_proxy.wire.request import WireRequest

_TIERS = {"auto": "auto", "standard_only": "default"}
_CHOICES = {"auto": Choose.AUTO, "any": Choose.REQUIRED, "tool": Choose.TOOL, "none": Choose.NONE}
_TOOL_HINTS = ("input_examples", "defer_loading", "eager_input_streaming", "allowed_callers")
_CARRIED = frozenset(schema.Body.__struct_fields__)
_SESSION = re.compile(r"^\s*\{|_session_")
"""A user id that holds a session: JSON, or the older `user_…_account_…_session_…`."""
_ROOT = re.compile(r"[^.\[ ]+")

_body = msgspec.json.Decoder(schema.Body).decode
_format = msgspec.json.Decoder(schema.Format | None).decode
_effort = msgspec.json.Decoder(Effort | None).decode
_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_prompt(request: WireRequest) -> Prompt:
    """The request as a prompt. Raises `ProxyError`.

    `standard_only` is the neutral tier `default`. A `cache_control` of the whole request is a marker on its
    last part, which is where Anthropic puts it.
    """
    body = decoded(_body, request.body)
    reader = BlockReader()
    system, messages = _conversation(body, reader)
    if reader.marked(body.cache_control):
        messages = _mark_last(messages)
    tools = _tools(body.tools or (), reader)
    thinking, output = _thinking_and_output(body, reader)
    return Prompt(
        model=request.model,
        messages=messages,
        system=system,
        stream=bool(body.stream),
        include_usage=bool(body.stream),
        tools=tools,
        tool_choice=_tool_choice(body, tools),
        parallel_calls=_parallel(body.tool_choice),
        max_output=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        stop=tuple(body.stop_sequences or ()),
        thinking=thinking,
        output=output,
        user=_user(body.metadata, request, reader),
        service_tier=_tier(body.service_tier, reader),
        dropped=_in_order(request, reader.dropped),
    )


def _conversation(body: schema.Body, reader: BlockReader) -> tuple[tuple[TextPart, ...], tuple[Message, ...]]:
    """System messages that lead the conversation belong to the system prompt."""
    system = list(reader.texts(body.system, "system"))
    messages: list[Message] = []
    for index, message in enumerate(body.messages):
        read = reader.message(message, f"messages[{index}]")
        if read.role is Role.SYSTEM and not messages:
            system += [part for part in read.parts if isinstance(part, TextPart)]
        else:
            messages.append(read)
    return tuple(system), tuple(messages)


def _mark_last(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if not messages or not messages[-1].parts:
        return messages
    *before, last = messages[-1].parts
    if isinstance(last, RefusalPart | ThoughtPart | AudioPart):
        return messages
    marked = msgspec.structs.replace(last, cache=True)
    return (*messages[:-1], msgspec.structs.replace(messages[-1], parts=(*before, marked)))


def _tools(tools: Iterable[schema.Tool], reader: BlockReader) -> tuple[Tool, ...]:
    kept: list[Tool] = []
    for index, tool in enumerate(tools):
        if tool.type not in (None, "custom"):
            reader.drop(f"tools[{index}] ({tool.type})")
            continue
        if not tool.name:
            raise invalid(f"tools[{index}].name is missing: name the tool", f"tools[{index}].name")
        for field in _TOOL_HINTS:
            if said(getattr(tool, field)):
                reader.drop(f"tools.{field}")
        kept.append(
            Tool(
                name=tool.name,
                description=tool.description or "",
                parameters=bytes(tool.input_schema) if said(tool.input_schema) else b"",
                strict=tool.strict,
                cache=reader.marked(tool.cache_control),
            )
        )
    return tuple(kept)


def _tool_choice(body: schema.Body, tools: tuple[Tool, ...]) -> ToolChoice | None:
    """Raises where it forces a tool that had to be left out: the answer would be another."""
    choice = body.tool_choice
    if choice is None:
        return None
    mode = _CHOICES.get(choice.type)
    if mode is None:
        raise invalid(
            f"tool_choice.type is {choice.type!r}: send auto, any, tool or none", "tool_choice.type"
        )
    name = choice.name or "" if mode is Choose.TOOL else ""
    forced_away = (mode is Choose.TOOL and all(tool.name != name for tool in tools)) or (
        mode is Choose.REQUIRED and not tools
    )
    if forced_away:
        raise unsupported(
            "tool_choice asks for a tool that is not declared or that only Anthropic runs: declare it with an"
            " input_schema, or send tool_choice auto",
            "tool_choice",
        )
    return ToolChoice(mode=mode, name=name)


def _parallel(choice: schema.ToolChoice | None) -> bool | None:
    if choice is None or choice.disable_parallel_tool_use is None:
        return None
    return not choice.disable_parallel_tool_use


def _thinking_and_output(
    body: schema.Body, reader: BlockReader
) -> tuple[Thinking | None, OutputFormat | None]:
    """`thinking`, `output_config` and the beta's `output_format`."""
    config = body.output_config or {}
    for key, value in config.items():
        if key not in ("effort", "format") and said(value):
            reader.drop(f"output_config.{key}")
    effort = decoded(_effort, config.get("effort", b"null"), "output_config.effort")
    format_ = body.output_format or decoded(_format, config.get("format", b"null"), "output_config.format")
    return _thinking(body.thinking, effort), _output(format_)


def _thinking(asked: schema.Thinking | None, effort: Effort | None) -> Thinking | None:
    if asked is None:
        return None if effort is None else Thinking(effort=effort)
    summary = asked.display or ""
    match asked.type:
        case "disabled":
            return Thinking(effort=effort, enabled=False)
        case "enabled":
            return Thinking(effort=effort, enabled=True, budget=asked.budget_tokens, summary=summary)
        case "adaptive" | "between_tools":
            return Thinking(effort=effort, enabled=True, adaptive=True, summary=summary)
        case kind:
            raise invalid(f"thinking.type is {kind!r}: send enabled, adaptive or disabled", "thinking.type")


def _output(format_: schema.Format | None) -> OutputFormat | None:
    if format_ is None:
        return None
    if format_.type != "json_schema" or not said(format_.schema):
        raise unsupported(
            f"The output format {format_.type!r} is not known: send json_schema with a schema",
            "output_config.format",
        )
    return OutputFormat(schema=bytes(format_.schema))


def _user(metadata: schema.Metadata | None, request: WireRequest, reader: BlockReader) -> str:
    """The user id, unless it holds a coding agent's session, which is no user."""
    if metadata is None:
        return ""
    start, end = request.spans["metadata"]
    for key, value in decoded(_keys, request.body[start:end], "metadata").items():
        if key != "user_id" and said(value):
            reader.drop(f"metadata.{key}")
    user = metadata.user_id or ""
    if _SESSION.search(user):
        reader.drop("metadata.user_id")
        return ""
    return user


def _tier(tier: str | None, reader: BlockReader) -> str:
    if tier is not None and tier not in _TIERS:
        reader.drop("service_tier")
    return _TIERS.get(tier or "", "")


def _in_order(request: WireRequest, dropped: Iterable[str]) -> tuple[str, ...]:
    """What was left out, in the order of the body's keys."""
    named = list(dropped)
    found: dict[str, None] = {}
    for key, (start, end) in request.spans.items():
        if key not in _CARRIED:
            if request.body[start:end] != b"null":
                found[key] = None
        else:
            found.update(dict.fromkeys(name for name in named if _root(name) == key))
    found.update(dict.fromkeys(named))
    return tuple(found)


def _root(name: str) -> str:
    match = _ROOT.match(name)
    return match[0] if match else name
