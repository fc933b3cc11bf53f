"""Anthropic Messages, a neutral prompt as a request body."""

from __future__ import annotations

import msgspec

from llm_proxy.chat.prompt import (
    Choose,
    OutputFormat,
    Prompt,
    Role,
    TextPart,
    Tool,
    Written,
)
from llm_proxy.wire.anthropic_messages import prompt_out as out
from llm_proxy.wire.anthropic_messages.prompt_models import Takes, takes
from llm_proxy.wire.anthropic_messages.prompt_thinking import Plan, plan
from llm_proxy.wire.anthropic_messages.prompt_turns import lacks_thinking, prefilled, text_blocks, turns
from llm_proxy.wire.faults import invalid, unsupported
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.members import given, to_object

DEFAULT_MAX_TOKENS = 4_096
MOST_STRICT_TOOLS = 20
_LONGEST_USER = 256
_LEAST_TOP_P = 0.95
"""The lowest `top_p` that is taken beside thinking."""

_TIERS = {"auto": "auto", "default": "standard_only"}
_CHOICES = {
    Choose.AUTO: "auto",
    Choose.REQUIRED: "any",
    Choose.TOOL: "tool",
    Choose.NONE: "none",
}
_NO_PARAMETERS = b'{"type":"object","properties":{}}'
_FREEFORM = (
    b'{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],'
    b'"additionalProperties":false}'
)
_JSON_ONLY = "Answer with one JSON object and nothing else: no words around it and no code fence."

_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def write_prompt(prompt: Prompt) -> Written:
    """The prompt as a Messages request. Raises `ProxyError` where it asks for what Messages can't do.

    System messages inside the conversation move to `system`, which is one text unless a part of it marks the
    cache. Conversations are written as `prompt_turns.turns` says.
    """
    if prompt.n > 1:
        raise unsupported(
            f"n is {prompt.n}, and the target speaks Anthropic Messages, which gives one choice a call:"
            " send n 1, or choose another model",
            "n",
        )
    dropped: dict[str, None] = {}
    model = takes(prompt.model)
    max_tokens = DEFAULT_MAX_TOKENS if prompt.max_output is None else prompt.max_output
    messages = turns(prompt.messages, dropped)
    thinking = plan(prompt, model, max_tokens, lacks_thinking=lacks_thinking(messages) or prefilled(messages))
    if thinking.dropped:
        dropped[thinking.dropped] = None
    schema, request = _output(prompt.output, model, dropped)
    temperature, top_p, top_k = _sampling(prompt, model, thinking, dropped)
    body = out.Body(
        model=prompt.model,
        max_tokens=max_tokens,
        system=_system(prompt, request),
        messages=messages,
        tools=_tools(prompt, model, dropped),
        tool_choice=_tool_choice(prompt),
        thinking=thinking.config,
        output_config=_config(thinking.effort, schema),
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        stop_sequences=_stop(prompt, dropped),
        metadata=_metadata(prompt.user, dropped),
        service_tier=_tier(prompt.service_tier, dropped),
        stream=prompt.stream,
    )
    _unsayable(prompt, dropped)
    already = frozenset(prompt.dropped)
    return Written(body=_encode(body), dropped=tuple(name for name in dropped if name not in already))


def _system(prompt: Prompt, request: str) -> str | list[out.Text]:
    later = [
        part
        for message in prompt.messages
        if message.role is Role.SYSTEM
        for part in message.parts
        if isinstance(part, TextPart)
    ]
    blocks = text_blocks([*prompt.system, *later, TextPart(text=request)])
    if any(block.cache_control is not None for block in blocks):
        return blocks
    return "\n\n".join([block.text for block in blocks])


def _tools(prompt: Prompt, model: Takes, dropped: dict[str, None]) -> list[out.Tool]:
    """The tools that may be called. Strict ones go where the model takes them, and as many as it takes."""
    allowed = prompt.tool_choice.allowed if prompt.tool_choice else ()
    tools = [tool for tool in prompt.tools if not allowed or tool.name in allowed]
    strict = sum(tool.strict is True for tool in tools)
    strictly = model.schemas and strict <= MOST_STRICT_TOOLS
    if strict and not strictly:
        dropped["tools.strict"] = None
    if any(tool.grammar for tool in tools):
        dropped["tools.format"] = None
    return [
        out.Tool(
            name=tool.name,
            description=tool.description,
            input_schema=msgspec.Raw(_schema(tool)),
            strict=tool.strict is True and strictly,
            cache_control=out.EPHEMERAL if tool.cache else None,
        )
        for tool in tools
    ]


def _schema(tool: Tool) -> bytes:
    """Anthropic wants a schema, and `type` said of it."""
    if tool.custom:
        return _FREEFORM
    try:
        schema = {key: bytes(value) for key, value in _object(tool.parameters or b"{}").items()}
    except CANNOT_READ:
        return _NO_PARAMETERS
    if not schema:
        return _NO_PARAMETERS
    return tool.parameters if given(schema, "type") else to_object({**schema, "type": b'"object"'})


def _tool_choice(prompt: Prompt) -> out.ToolChoice | None:
    """None where there are no tools, or nothing but the default is asked for."""
    choice = prompt.tool_choice
    single = prompt.parallel_calls is False
    if not prompt.tools:
        if choice is not None and choice.mode in (Choose.REQUIRED, Choose.TOOL):
            raise invalid(
                "tool_choice asks for a tool and there is none for this target: declare it as a function",
                "tool_choice",
            )
        return None
    if choice is None:
        return out.ToolChoice(type="auto", disable_parallel_tool_use=True) if single else None
    name = choice.name if choice.mode is Choose.TOOL else ""
    single = single and choice.mode is not Choose.NONE
    return out.ToolChoice(type=_CHOICES[choice.mode], name=name, disable_parallel_tool_use=single)


def _output(
    output: OutputFormat | None, model: Takes, dropped: dict[str, None]
) -> tuple[out.Format | None, str]:
    """The schema as the vendor's format, or the wish for JSON as words to the model."""
    if output is None:
        return None, ""
    if output.schema and model.schemas:
        return out.Format(schema=msgspec.Raw(output.schema)), ""
    dropped["response_format"] = None
    if not output.schema:
        return None, _JSON_ONLY
    return None, f"{_JSON_ONLY} It follows this JSON schema:\n{output.schema.decode()}"


def _config(effort: str, format_: out.Format | None) -> out.OutputConfig | None:
    return out.OutputConfig(effort=effort, format=format_) if effort or format_ else None


def _sampling(
    prompt: Prompt, model: Takes, thinking: Plan, dropped: dict[str, None]
) -> tuple[float | None, float | None, int | None]:
    """Temperature (OpenAI's goes to 2, Anthropic's to 1), top_p and top_k, as far as they are taken."""
    temperature, top_p, top_k = prompt.temperature, prompt.top_p, prompt.top_k
    free = model.sampling and not thinking.thinks
    if temperature is not None and (temperature > 1 or (not free and temperature != 1)):
        dropped["temperature"] = None
        temperature = 1.0 if free else None
    if not model.sampling:
        temperature = None
    if top_k is not None and not free:
        dropped["top_k"] = None
        top_k = None
    if top_p is not None and not (model.sampling and _may_top_p(top_p, temperature, model, thinking)):
        dropped["top_p"] = None
        top_p = None
    return temperature, top_p, top_k


def _may_top_p(top_p: float, temperature: float | None, model: Takes, thinking: Plan) -> bool:
    if thinking.thinks and not _LEAST_TOP_P <= top_p <= 1:
        return False
    return temperature is None or not model.one_sampler


def _stop(prompt: Prompt, dropped: dict[str, None]) -> tuple[str, ...]:
    """Blank sequences are refused by Anthropic."""
    kept = tuple(stop for stop in prompt.stop if stop.strip())
    if len(kept) < len(prompt.stop):
        dropped["stop"] = None
    return kept


def _metadata(user: str, dropped: dict[str, None]) -> out.Metadata | None:
    if len(user) > _LONGEST_USER:
        dropped["user"] = None
        return None
    return out.Metadata(user_id=user) if user else None


def _tier(tier: str, dropped: dict[str, None]) -> str:
    if tier and tier not in _TIERS:
        dropped["service_tier"] = None
    return _TIERS.get(tier, "")


def _unsayable(prompt: Prompt, dropped: dict[str, None]) -> None:
    """The hints that Messages has no word for."""
    hints = {
        "seed": prompt.seed is not None,
        "presence_penalty": bool(prompt.presence_penalty),
        "frequency_penalty": bool(prompt.frequency_penalty),
        "verbosity": bool(prompt.verbosity),
        "prompt_cache_key": bool(prompt.cache_key),
    }
    dropped.update(dict.fromkeys(name for name, asked in hints.items() if asked))
