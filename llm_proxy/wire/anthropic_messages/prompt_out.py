"""Anthropic Messages, the parts of a request as they are written."""

from __future__ import annotations

import msgspec

EPHEMERAL = msgspec.Raw(b'{"type":"ephemeral"}')


class Text(msgspec.Struct, kw_only=True, omit_defaults=True, tag="text"):
    text: str
    cache_control: msgspec.Raw | None = None


class Base64(msgspec.Struct, tag="base64"):
    media_type: str
    data: str


class Plain(msgspec.Struct, tag="text"):
    data: str
    media_type: str = "text/plain"


class Url(msgspec.Struct, tag="url"):
    url: str


class File(msgspec.Struct, tag="file"):
    file_id: str


class Image(msgspec.Struct, kw_only=True, omit_defaults=True, tag="image"):
    source: Base64 | Url | File
    cache_control: msgspec.Raw | None = None


class Document(msgspec.Struct, kw_only=True, omit_defaults=True, tag="document"):
    source: Base64 | Plain | Url | File
    title: str = ""
    cache_control: msgspec.Raw | None = None


class ToolUse(msgspec.Struct, kw_only=True, omit_defaults=True, tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw
    cache_control: msgspec.Raw | None = None


Said = Text | Image | Document


class ToolResult(msgspec.Struct, kw_only=True, omit_defaults=True, tag="tool_result"):
    tool_use_id: str
    content: str | list[Said] = ""
    is_error: bool = False
    cache_control: msgspec.Raw | None = None


class Thinking(msgspec.Struct, kw_only=True, tag="thinking"):
    thinking: str
    signature: str


class RedactedThinking(msgspec.Struct, kw_only=True, tag="redacted_thinking"):
    data: str


Block = Text | Image | Document | ToolUse | ToolResult | Thinking | RedactedThinking


class Turn(msgspec.Struct, kw_only=True):
    role: str
    content: list[Block]


class Tool(msgspec.Struct, kw_only=True, omit_defaults=True):
    name: str
    description: str = ""
    input_schema: msgspec.Raw
    strict: bool = False
    cache_control: msgspec.Raw | None = None


class ToolChoice(msgspec.Struct, kw_only=True, omit_defaults=True):
    type: str
    name: str = ""
    disable_parallel_tool_use: bool = False


class ThinkingConfig(msgspec.Struct, kw_only=True, omit_defaults=True):
    type: str
    budget_tokens: int = 0
    display: str = ""


class Format(msgspec.Struct, kw_only=True, tag="json_schema"):
    schema: msgspec.Raw


class OutputConfig(msgspec.Struct, kw_only=True, omit_defaults=True):
    effort: str = ""
    format: Format | None = None


class Metadata(msgspec.Struct, kw_only=True):
    user_id: str


class Body(msgspec.Struct, kw_only=True, omit_defaults=True):
    model: str
    max_tokens: int
    system: str | list[Text] = ""
    messages: list[Turn]
    tools: list[Tool] = []
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: tuple[str, ...] = ()
    metadata: Metadata | None = None
    service_tier: str = ""
    stream: bool = False
