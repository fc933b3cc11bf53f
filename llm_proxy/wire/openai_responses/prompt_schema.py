"""OpenAI Responses, the request's fields that a translation reads.

Source: the types of OpenAI's own client (`ResponseCreateParams`, `ResponseInputItemParam`, `ToolParam`).
Every field is optional and may be null: what is missing is found, and named, where it is needed.
"""

from __future__ import annotations

import msgspec

from llm_proxy.wire.lenient import NONE


class Reasoning(msgspec.Struct, gc=False):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    """The older name of `summary`."""


class Format(msgspec.Struct):
    type: str | None = None
    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw = NONE
    strict: bool | None = None


class TextConfig(msgspec.Struct):
    format: Format | None = None
    verbosity: str | None = None


class ToolRef(msgspec.Struct, gc=False):
    """A tool that a choice names."""

    type: str | None = None
    name: str | None = None
    namespace: str | None = None


class Choice(msgspec.Struct):
    type: str | None = None
    name: str | None = None
    namespace: str | None = None
    mode: str | None = None
    tools: list[ToolRef] | None = None


class Tool(msgspec.Struct):
    type: str | None = None
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = NONE
    strict: bool | None = None
    format: msgspec.Raw = NONE
    tools: list[Tool] | None = None
    """A namespace's members."""
    defer_loading: bool | None = None
    allowed_callers: msgspec.Raw = NONE
    output_schema: msgspec.Raw = NONE


class Body(msgspec.Struct):
    """A request's top level. `background`, `prompt`, … are only looked for, to be refused."""

    model: str = ""
    instructions: str | None = None
    input: str | list[msgspec.Raw] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | Choice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    stream: bool | None = None
    background: bool | None = None
    prompt: msgspec.Raw = NONE
    previous_response_id: msgspec.Raw = NONE
    conversation: msgspec.Raw = NONE


class Audio(msgspec.Struct, gc=False):
    data: str | None = None
    format: str | None = None


class Content(msgspec.Struct):
    """One part of a message's content, of a result's output, or of reasoning."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: Audio | None = None
    prompt_cache_breakpoint: msgspec.Raw = NONE
    annotations: list[msgspec.Raw] | None = None


class Item(msgspec.Struct):
    """One item of the input, of any type."""

    type: str | None = None
    role: str | None = None
    content: str | list[Content] | None = None
    phase: str | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[Content] | None = None
    summary: list[Content] | None = None
    encrypted_content: str | None = None
    tools: list[Tool] | None = None
    """Of `additional_tools`: tools declared in mid-conversation."""


class ItemType(msgspec.Struct, gc=False):
    """Read first: an item of a type that isn't carried over may have fields of any shape."""

    type: str | None = None
