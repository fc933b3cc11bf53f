"""OpenAI chat completions, a neutral prompt written as a request body.

Only keys that OpenAI documents are written, and those that a server needs to get its own reasoning back.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.effort import effort_of
from llm_proxy.chat.prompt import (
    Choose,
    Effort,
    OutputFormat,
    Prompt,
    Thinking,
    Tool,
    ToolChoice,
    Written,
)
from llm_proxy.wire.openai_chat.prompt_messages import Dropped, write_messages

FREEFORM = msgspec.Raw(
    b'{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],'
    b'"additionalProperties":false}'
)
"""The parameters of a freeform tool's stand-in: few servers of this dialect know custom tools."""

_encode = msgspec.json.Encoder().encode


def write_prompt(prompt: Prompt) -> Written:
    """The body. Raises `ProxyError` (unsupported_feature) for what would change the answer if left out."""
    dropped: Dropped = {}
    body: dict[str, object] = {"model": prompt.model, "messages": write_messages(prompt, dropped)}
    if prompt.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    if prompt.tools:
        body["tools"] = [_tool(index, tool, dropped) for index, tool in enumerate(prompt.tools)]
        if prompt.tool_choice:
            body["tool_choice"] = _choice(prompt.tool_choice)
        _put(body, "parallel_tool_calls", prompt.parallel_calls)
    _put(body, "max_completion_tokens", prompt.max_output)
    _put(body, "n", prompt.n if prompt.n > 1 else None)
    _put(body, "temperature", prompt.temperature)
    _put(body, "top_p", prompt.top_p)
    if prompt.top_k is not None:
        dropped["top_k"] = None
    _put(body, "stop", list(prompt.stop) or None)
    _put(body, "seed", prompt.seed)
    _put(body, "presence_penalty", prompt.presence_penalty)
    _put(body, "frequency_penalty", prompt.frequency_penalty)
    if prompt.thinking:
        _put(body, "reasoning_effort", _effort(prompt.thinking, dropped))
    _put(body, "response_format", _format(prompt.output) if prompt.output else None)
    _put(body, "verbosity", prompt.verbosity or None)
    _put(body, "user", prompt.user or None)
    _put(body, "service_tier", prompt.service_tier or None)
    _put(body, "prompt_cache_key", prompt.cache_key or None)
    return Written(body=_encode(body), dropped=tuple(dropped))


def _put(body: dict[str, object], key: str, value: object) -> None:
    if value is not None:
        body[key] = value


def _tool(index: int, tool: Tool, dropped: Dropped) -> dict[str, object]:
    function: dict[str, object] = {"name": tool.name}
    _put(function, "description", tool.description or None)
    if tool.custom:
        function["parameters"] = FREEFORM
        if tool.grammar:
            dropped[f"tools[{index}].format"] = None
    elif tool.parameters:
        function["parameters"] = msgspec.Raw(tool.parameters)
    _put(function, "strict", tool.strict)
    if tool.cache:
        dropped["cache_control"] = None
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> object:
    if choice.mode is Choose.TOOL:
        return _named(choice.name)
    if choice.allowed:
        tools = [_named(name) for name in choice.allowed]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode.value, "tools": tools}}
    return choice.mode.value


def _named(name: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name}}


def _effort(thinking: Thinking, dropped: Dropped) -> str | None:
    """An effort in OpenAI's words; medium where none was said, nothing where it is the model's to choose."""
    if thinking.summary:
        dropped["reasoning.summary"] = None
    if thinking.enabled is False:
        return Effort.NONE.value
    if thinking.effort:
        return thinking.effort.value
    if thinking.budget:
        return effort_of(thinking.budget).value
    return Effort.MEDIUM.value if thinking.enabled and not thinking.adaptive else None


def _format(output: OutputFormat) -> dict[str, object]:
    if not output.schema:
        return {"type": "json_object"}
    schema: dict[str, object] = {"name": output.name or "reply", "schema": msgspec.Raw(output.schema)}
    _put(schema, "description", output.description or None)
    _put(schema, "strict", output.strict)
    return {"type": "json_schema", "json_schema": schema}
