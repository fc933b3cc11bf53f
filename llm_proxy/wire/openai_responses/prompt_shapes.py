"""OpenAI Responses, the request as it is written. Source: the types of OpenAI's own client."""

from __future__ import annotations

import msgspec

EMPTY = msgspec.UNSET
OptionalText = str | msgspec.UnsetType
_NO_SCHEMA = msgspec.Raw(b"null")


class InputText(msgspec.Struct, tag="input_text", tag_field="type"):
    text: str


class Refusal(msgspec.Struct, tag="refusal", tag_field="type"):
    refusal: str


class InputImage(msgspec.Struct, tag="input_image", tag_field="type"):
    detail: str = "auto"
    image_url: OptionalText = EMPTY
    file_id: OptionalText = EMPTY


class InputFile(msgspec.Struct, tag="input_file", tag_field="type"):
    filename: OptionalText = EMPTY
    file_data: OptionalText = EMPTY
    file_url: OptionalText = EMPTY
    file_id: OptionalText = EMPTY


class AudioData(msgspec.Struct):
    data: str
    format: str


class InputAudio(msgspec.Struct, tag="input_audio", tag_field="type"):
    input_audio: AudioData


Shown = InputText | InputImage | InputFile
Content = Shown | InputAudio | Refusal


class Message(msgspec.Struct, tag="message", tag_field="type"):
    role: str
    content: str | list[Content]


class FunctionCall(msgspec.Struct, tag="function_call", tag_field="type"):
    call_id: str
    name: str
    arguments: str


class CustomToolCall(msgspec.Struct, tag="custom_tool_call", tag_field="type"):
    call_id: str
    name: str
    input: str


class FunctionCallOutput(msgspec.Struct, tag="function_call_output", tag_field="type"):
    call_id: str
    output: str | list[Shown]


class CustomToolCallOutput(msgspec.Struct, tag="custom_tool_call_output", tag_field="type"):
    call_id: str
    output: str | list[Shown]


class SummaryText(msgspec.Struct, tag="summary_text", tag_field="type"):
    text: str


class ReasoningText(msgspec.Struct, tag="reasoning_text", tag_field="type"):
    text: str


class ReasoningItem(msgspec.Struct, tag="reasoning", tag_field="type"):
    id: OptionalText
    summary: list[SummaryText]
    content: list[ReasoningText] | msgspec.UnsetType
    encrypted_content: str


Item = Message | FunctionCall | CustomToolCall | FunctionCallOutput | CustomToolCallOutput | ReasoningItem


class FunctionTool(msgspec.Struct, tag="function", tag_field="type"):
    name: str
    strict: bool
    parameters: msgspec.Raw = _NO_SCHEMA
    description: OptionalText = EMPTY


class CustomTool(msgspec.Struct, tag="custom", tag_field="type"):
    name: str
    description: OptionalText = EMPTY
    format: msgspec.Raw | msgspec.UnsetType = EMPTY


Tool = FunctionTool | CustomTool


class ToolRef(msgspec.Struct):
    type: str
    name: str


class AllowedTools(msgspec.Struct, tag="allowed_tools", tag_field="type"):
    mode: str
    tools: list[ToolRef]


class Reasoning(msgspec.Struct):
    effort: OptionalText = EMPTY
    summary: OptionalText = EMPTY


class PlainFormat(msgspec.Struct):
    type: str


class SchemaFormat(msgspec.Struct, tag="json_schema", tag_field="type"):
    name: str
    schema: msgspec.Raw
    description: OptionalText = EMPTY
    strict: bool | msgspec.UnsetType = EMPTY


class TextConfig(msgspec.Struct):
    format: PlainFormat | SchemaFormat | msgspec.UnsetType = EMPTY
    verbosity: OptionalText = EMPTY


class Body(msgspec.Struct, kw_only=True):
    model: str
    instructions: OptionalText = EMPTY
    input: list[Item]
    tools: list[Tool] | msgspec.UnsetType = EMPTY
    tool_choice: str | ToolRef | AllowedTools | msgspec.UnsetType = EMPTY
    parallel_tool_calls: bool | msgspec.UnsetType = EMPTY
    max_output_tokens: int | msgspec.UnsetType = EMPTY
    temperature: float | msgspec.UnsetType = EMPTY
    top_p: float | msgspec.UnsetType = EMPTY
    reasoning: Reasoning | msgspec.UnsetType = EMPTY
    text: TextConfig | msgspec.UnsetType = EMPTY
    user: OptionalText = EMPTY
    service_tier: OptionalText = EMPTY
    prompt_cache_key: OptionalText = EMPTY
    stream: bool
    store: bool = False
    include: tuple[str, ...] = ("reasoning.encrypted_content",)
    """Without a store at the vendor's, reasoning can only be sent back whole."""
