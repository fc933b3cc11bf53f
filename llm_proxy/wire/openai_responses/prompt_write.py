"""OpenAI Responses, a request of any dialect written as one of its own. Nothing of it is stored upstream."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from llm_proxy.chat.effort import effort_of
from llm_proxy.chat.prompt import (
    Choose,
    Effort,
    Message,
    OutputFormat,
    Prompt,
    Role,
    Thinking,
    Tool,
    ToolChoice,
    Written,
)
from llm_proxy.wire.faults import unsupported
from llm_proxy.wire.openai_responses import prompt_shapes as shapes
from llm_proxy.wire.openai_responses.prompt_shapes import EMPTY
from llm_proxy.wire.openai_responses.prompt_write_items import ItemWriter

Value = TypeVar("Value", bool, float)

LEAST_OUTPUT = 16
"""The lowest `max_output_tokens` that OpenAI takes; a lower cap is raised to it."""

_TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})
_SUMMARIES = frozenset({"auto", "concise", "detailed"})
_NO_SUMMARIES = frozenset({"omitted", "none"})
_FORMAT_NAME = "output"

_encode = msgspec.json.Encoder().encode


def write_prompt(prompt: Prompt) -> Written:
    """The body, with `prompt.model` as its model. Raises `ProxyError` (unsupported_feature) for n over 1."""
    if prompt.n > 1:
        raise unsupported(
            f"n is {prompt.n}, and this model's vendor answers once: leave n out and ask {prompt.n} times",
            "n",
        )
    writer = ItemWriter()
    instructions = "\n\n".join([part.text for part in prompt.system])
    if instructions and not prompt.messages:
        writer.write(Message(role=Role.SYSTEM, parts=prompt.system))
        instructions = ""
    for message in prompt.messages:
        writer.write(message)
    custom = {tool.name for tool in prompt.tools if tool.custom}
    body = shapes.Body(
        model=prompt.model,
        instructions=instructions or EMPTY,
        input=writer.items,
        tools=[_tool(tool) for tool in prompt.tools] or EMPTY,
        tool_choice=_choice(prompt.tool_choice, custom) if prompt.tool_choice else EMPTY,
        parallel_tool_calls=_or_unset(prompt.parallel_calls),
        max_output_tokens=EMPTY if prompt.max_output is None else max(LEAST_OUTPUT, prompt.max_output),
        temperature=_or_unset(prompt.temperature),
        top_p=_or_unset(prompt.top_p),
        reasoning=_reasoning(prompt.thinking) if prompt.thinking else EMPTY,
        text=_text(prompt),
        user=prompt.user or EMPTY,
        service_tier=prompt.service_tier if prompt.service_tier in _TIERS else EMPTY,
        prompt_cache_key=prompt.cache_key or EMPTY,
        stream=prompt.stream,
    )
    return Written(body=_encode(body), dropped=_dropped(prompt, writer))


def _tool(tool: Tool) -> shapes.Tool:
    """`strict` is always said: OpenAI takes a missing one for true, other dialects for false."""
    description = tool.description or EMPTY
    if tool.custom:
        grammar = msgspec.Raw(tool.grammar) if tool.grammar else EMPTY
        return shapes.CustomTool(tool.name, description, grammar)
    parameters = msgspec.Raw(tool.parameters or b"null")
    return shapes.FunctionTool(tool.name, bool(tool.strict), parameters, description)


def _choice(choice: ToolChoice, custom: set[str]) -> str | shapes.ToolRef | shapes.AllowedTools:
    def named(name: str) -> shapes.ToolRef:
        return shapes.ToolRef("custom" if name in custom else "function", name)

    if choice.mode is Choose.TOOL:
        return named(choice.name)
    if choice.allowed and choice.mode is not Choose.NONE:
        return shapes.AllowedTools(choice.mode.value, [named(name) for name in choice.allowed])
    return choice.mode.value


def _reasoning(thinking: Thinking) -> shapes.Reasoning | msgspec.UnsetType:
    """Effort and summary. Thinking that was switched on without more is meant to be seen.

    Effort `none` is written only where it was asked for by name: models that never reason refuse it.
    """
    if _only_off(thinking):
        return EMPTY
    effort = thinking.effort
    if effort is None and thinking.budget is not None:
        effort = effort_of(thinking.budget)
    summary = thinking.summary or ("auto" if thinking.enabled else "")
    if summary not in _SUMMARIES:
        summary = "" if not summary or summary in _NO_SUMMARIES else "auto"
    if effort is None and not summary:
        return EMPTY
    return shapes.Reasoning(effort.value if effort else EMPTY, summary or EMPTY)


def _only_off(thinking: Thinking) -> bool:
    return thinking.enabled is False and thinking.effort is not Effort.NONE


def _text(prompt: Prompt) -> shapes.TextConfig | msgspec.UnsetType:
    if prompt.output is None and not prompt.verbosity:
        return EMPTY
    return shapes.TextConfig(_format(prompt.output) if prompt.output else EMPTY, prompt.verbosity or EMPTY)


def _format(of: OutputFormat) -> shapes.PlainFormat | shapes.SchemaFormat:
    if not of.schema:
        return shapes.PlainFormat("json_object")
    name = of.name or _FORMAT_NAME
    return shapes.SchemaFormat(name, msgspec.Raw(of.schema), of.description or EMPTY, _or_unset(of.strict))


def _dropped(prompt: Prompt, writer: ItemWriter) -> tuple[str, ...]:
    cached = any(part.cache for part in (*prompt.system, *prompt.tools))
    hints = {
        "top_k": prompt.top_k is not None,
        "stop": bool(prompt.stop),
        "seed": prompt.seed is not None,
        "presence_penalty": prompt.presence_penalty is not None,
        "frequency_penalty": prompt.frequency_penalty is not None,
        "service_tier": bool(prompt.service_tier) and prompt.service_tier not in _TIERS,
        "reasoning": prompt.thinking is not None and _only_off(prompt.thinking),
        "cache_control": cached,
    }
    said = [name for name, lost in hints.items() if lost]
    return tuple(dict.fromkeys([*said, *writer.dropped]))


def _or_unset(value: Value | None) -> Value | msgspec.UnsetType:
    return EMPTY if value is None else value
