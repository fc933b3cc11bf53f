"""Anthropic Messages, the request's fields that a translation reads.

After the vendor's `MessageCreateParams` and its beta twin (SDK 2.11). Values whose type depends on a block's
own type stay raw until that type is known, so that a block nobody reads can't make the request unreadable.
"""

from __future__ import annotations

import msgspec

ABSENT = msgspec.Raw()


class Marker(msgspec.Struct):
    """A `cache_control`."""

    ttl: str | None = None


class Block(msgspec.Struct):
    """A content block of any type."""

    type: str
    text: msgspec.Raw = ABSENT
    id: msgspec.Raw = ABSENT
    name: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    tool_use_id: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT
    is_error: bool | None = None
    cache_control: Marker | None = None
    thinking: msgspec.Raw = ABSENT
    signature: msgspec.Raw = ABSENT
    data: msgspec.Raw = ABSENT
    source: msgspec.Raw = ABSENT
    title: msgspec.Raw = ABSENT
    context: msgspec.Raw = ABSENT
    citations: msgspec.Raw = ABSENT


class Source(msgspec.Struct):
    """Where an image or a document is: base64, text, url, file or (documents) content."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    content: str | list[Block] | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Block] | None = None


class Tool(msgspec.Struct):
    """A tool of the caller's (no `type`, or custom), or one that the vendor defines by its type."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = ABSENT
    strict: bool | None = None
    cache_control: Marker | None = None
    input_examples: msgspec.Raw = ABSENT
    defer_loading: msgspec.Raw = ABSENT
    eager_input_streaming: msgspec.Raw = ABSENT
    allowed_callers: msgspec.Raw = ABSENT


class ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class Format(msgspec.Struct):
    type: str
    schema: msgspec.Raw = ABSENT


class Metadata(msgspec.Struct):
    user_id: str | None = None


class Body(msgspec.Struct):
    """The keys that are carried over; any other is a hint that is left out."""

    messages: list[Message]
    model: str | None = None
    system: str | list[Block] | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: dict[str, msgspec.Raw] | None = None
    output_format: Format | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None
    cache_control: Marker | None = None


def said(raw: msgspec.Raw) -> bool:
    """Whether a value is there that says something: not absent, null, false or empty."""
    return bytes(raw) not in (b"", b"null", b"false", b"[]", b"{}", b'""')
