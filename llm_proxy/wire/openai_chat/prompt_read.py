"""OpenAI chat completions, a request read into a neutral prompt, to be translated."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.prompt import (
    Choose,
    Effort,
    OutputFormat,
    Prompt,
    Thinking,
    Tool,
    ToolChoice,
)
from llm_proxy.wire.faults import invalid, placed, unsupported
from llm_proxy.wire.members import members, to_object
from llm_proxy.wire.openai_chat import prompt_schema as schema
from llm_proxy.wire.openai_chat.prompt_parts import read_messages
from llm_proxy.wire.request import WireRequest

_NULL = b"null"
_MODES = {
    "auto": Choose.AUTO,
    "none": Choose.NONE,
    "required": Choose.REQUIRED,
    "any": Choose.REQUIRED,  # Mistral's and Anthropic's word for it
}

_decode = msgspec.json.Decoder(schema.Request).decode


class _Dropped:
    """What can't be carried, by the top-level key that it stands below."""

    __slots__ = ("_names",)

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def add(self, key: str, names: Sequence[str]) -> None:
        self._names.setdefault(key, []).extend(names)

    def in_order(self, request: WireRequest) -> tuple[str, ...]:
        """Every name once, in the order of the body."""
        names: dict[str, None] = {}
        for key, (start, end) in request.spans.items():
            if key not in schema.REQUEST_KEYS and request.body[start:end] != _NULL:
                names[key] = None
            names.update(dict.fromkeys(self._names.get(key, ())))
        return tuple(names)


def read_prompt(request: WireRequest) -> Prompt:
    """The request in neutral terms. Raises `ProxyError` for what is malformed or can't be said elsewhere."""
    body = _decoded(request)
    if "audio" in (body.modalities or ()):
        raise unsupported(
            "modalities asks for audio, which only a model that speaks this dialect gives: ask for text",
            "modalities",
        )
    dropped = _Dropped()
    said = read_messages(body.messages, request.messages)
    dropped.add("messages", said.dropped)
    dropped.add("stream_options", _unread_options(request))
    user = body.user or body.safety_identifier or ""
    if body.safety_identifier and body.safety_identifier != user:
        dropped.add("safety_identifier", ["safety_identifier"])
    stop = body.stop or ()
    return Prompt(
        model=request.model,
        messages=said.messages,
        system=said.system,
        stream=request.stream,
        include_usage=request.include_usage,
        n=request.n,
        tools=_tools(body, dropped),
        tool_choice=_legacy_choice(body) if body.functions and not body.tools else _choice(body.tool_choice),
        parallel_calls=False if body.functions and not body.tools else body.parallel_tool_calls,
        max_output=request.max_output,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        thinking=_thinking(body, dropped),
        output=_output(body.response_format),
        verbosity=body.verbosity or "",
        user=user,
        service_tier=body.service_tier or "",
        cache_key=body.prompt_cache_key or "",
        dropped=dropped.in_order(request),
    )


def _decoded(request: WireRequest) -> schema.Request:
    try:
        return _decode(request.body)
    except msgspec.ValidationError as error:
        expected, where = placed(error)
        said = f"{where or 'The request body'} is not as this API has it: {expected}"
        raise invalid(said, where) from error
    except RecursionError as error:
        raise invalid("The request body is nested too deeply: send a flatter document", "messages") from error


def _unread_options(request: WireRequest) -> list[str]:
    span = request.spans.get("stream_options")
    options = members(request.body[slice(*span)]) if span else {}
    return [f"stream_options.{key}" for key in options if key != "include_usage"]


def _tools(body: schema.Request, dropped: _Dropped) -> tuple[Tool, ...]:
    """The declared tools. The legacy `functions` count where no `tools` stand beside them."""
    tools: list[Tool] = []
    for index, tool in enumerate(body.tools or ()):
        declared = tool.custom or tool.function
        if declared is None:
            dropped.add("tools", [f"tools[{index}] ({tool.type})"])
            continue
        marks = [mark for mark in (tool.cache_control, declared.cache_control) if mark]
        if any(mark.ttl for mark in marks):
            dropped.add("tools", ["cache_control.ttl"])
        tools.append(_tool(f"tools[{index}]", declared, custom=tool.custom is not None, cache=bool(marks)))
    if body.functions and body.tools:
        dropped.add("functions", ["functions"])
    elif body.functions:
        tools += [
            _tool(f"functions[{index}]", declared, custom=False, cache=False)
            for index, declared in enumerate(body.functions)
        ]
    return tuple(tools)


def _tool(where: str, declared: schema.ToolFunction, *, custom: bool, cache: bool) -> Tool:
    if not declared.name:
        raise invalid(f"{where} has no name: give it one", where)
    return Tool(
        name=declared.name,
        description=declared.description or "",
        parameters=_raw(declared.parameters),
        strict=declared.strict,
        custom=custom,
        grammar=_grammar(declared.format),
        cache=cache,
    )


def _grammar(raw: msgspec.Raw) -> bytes:
    """A freeform tool's `format` as Responses has it, where a grammar's members stand beside its type."""
    format_ = _raw(raw)
    if not format_.startswith(b"{"):
        return format_
    of = members(format_)
    inner = of.pop("grammar", b"")
    return to_object({**of, **members(inner)}) if inner.startswith(b"{") else format_


def _raw(value: msgspec.Raw) -> bytes:
    return b"" if bytes(value) == _NULL else bytes(value)


def _legacy_choice(body: schema.Request) -> ToolChoice | None:
    choice = body.function_call
    if isinstance(choice, schema.Named):
        return ToolChoice(mode=Choose.TOOL, name=choice.name)
    return _choice(choice)


def _choice(choice: str | schema.Chosen | None) -> ToolChoice | None:
    if choice is None:
        return None
    if isinstance(choice, str):
        return ToolChoice(mode=_mode(choice))
    if allowed := choice.allowed_tools:
        named = [tool.function or tool.custom for tool in allowed.tools]
        names = tuple([tool.name for tool in named if tool])
        return ToolChoice(mode=_mode(allowed.mode), allowed=names)
    named = choice.function or choice.custom
    name = named.name if named else choice.name
    if choice.type in ("function", "custom", "tool") and name:
        return ToolChoice(mode=Choose.TOOL, name=name)
    return ToolChoice(mode=_mode(choice.type))


def _mode(word: str) -> Choose:
    mode = _MODES.get(word)
    if mode is None:
        raise unsupported(
            f"tool_choice asks for {word!r}, which a model of another vendor can't be told: "
            "use auto, none, required or name a function",
            "tool_choice",
        )
    return mode


def _thinking(body: schema.Request, dropped: _Dropped) -> Thinking | None:
    """What three vendors' fields say of reasoning; OpenAI's own word for the effort counts first."""
    asked, anthropic = body.reasoning or schema.Reasoning(), body.thinking or schema.Thinking()
    if asked.exclude is not None:
        dropped.add("reasoning", ["reasoning.exclude"])
    effort = _effort("reasoning_effort", body.reasoning_effort, dropped)
    below = _effort("reasoning.effort", asked.effort, dropped)
    enabled = asked.enabled if anthropic.type is None else anthropic.type != "disabled"
    thinking = Thinking(
        effort=effort or below,
        enabled=enabled,
        adaptive=anthropic.type == "adaptive",
        budget=asked.max_tokens if anthropic.budget_tokens is None else anthropic.budget_tokens,
        summary=asked.summary or anthropic.display or "",
    )
    return None if thinking == Thinking() else thinking


def _effort(where: str, word: str | None, dropped: _Dropped) -> Effort | None:
    if word is None:
        return None
    try:
        return Effort(word)
    except ValueError:
        dropped.add(where.partition(".")[0], [where])
        return None


def _output(wanted: schema.ResponseFormat | None) -> OutputFormat | None:
    match wanted.type if wanted else "text":
        case "text":
            return None
        case "json_object":
            return OutputFormat()
        case "json_schema" if wanted:
            given = wanted.json_schema or schema.JsonSchema()
            return OutputFormat(
                schema=_raw(given.schema),
                name=given.name or "",
                description=given.description or "",
                strict=given.strict,
            )
        case other:
            raise unsupported(
                f"response_format asks for {other!r}, which a model of another vendor can't be told: "
                "use text, json_object or json_schema",
                "response_format",
            )
