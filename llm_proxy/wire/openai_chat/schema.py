"""OpenAI chat completions, the reply's fields that are acted on, for whole bodies and stream chunks alike.

Fields stand in the order that servers send them, since msgspec looks for the next key there first. Everything
is optional and may be null: servers differ. A value of another type makes the reply unreadable.
"""

from __future__ import annotations

import msgspec

from llm_proxy.wire.tokens_told import InputDetails, OutputDetails


class Part(msgspec.Struct, gc=False):
    """One part of a content array (Mistral). `thinking` is text or more parts."""

    type: str = ""
    text: str | None = None
    thinking: str | list[Part] | None = None
    refusal: str | None = None


class Detail(msgspec.Struct, gc=False):
    """One of OpenRouter's `reasoning_details`."""

    type: str = ""
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None
    id: str | None = None
    format: str | None = None
    index: int | None = None
    """Tells the parts of a reply's reasoning apart: pieces of one index and kind belong together."""


class ThinkingBlock(msgspec.Struct, gc=False):
    """One of LiteLLM's `thinking_blocks`: Anthropic's thinking and redacted_thinking blocks."""

    thinking: str | None = None
    signature: str | None = None
    data: str | None = None


class GoogleExtra(msgspec.Struct, gc=False):
    thought_signature: str | None = None


class Extra(msgspec.Struct, gc=False):
    """The value of Gemini's `extra_content`."""

    google: GoogleExtra | None = None


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class Custom(msgspec.Struct, gc=False):
    name: str | None = None
    input: str | None = None


class Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    extra_content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """Read apart, as `Extra`: other servers may put anything there."""


class Message(msgspec.Struct, gc=False):
    """A whole `message`, or a `delta` of one."""

    role: str | None = None
    content: str | list[Part] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: list[Detail] | None = None
    encrypted_content: str | None = None
    refusal: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    thinking_blocks: list[ThinkingBlock] | None = None
    extra_content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class ChunkChoice(msgspec.Struct, gc=False):
    index: int = 0
    delta: Message | None = None
    finish_reason: str | None = None


class BodyChoice(msgspec.Struct, gc=False):
    index: int = 0
    message: Message | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    """DeepSeek's name for cached tokens."""
    service_tier: object = None


class Chunk(msgspec.Struct, gc=False):
    id: str | int | None = None
    model: str | None = None
    service_tier: object = None
    choices: list[ChunkChoice] | None = None
    usage: Usage | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Body(msgspec.Struct, gc=False):
    id: str | int | None = None
    model: str | None = None
    choices: list[BodyChoice] | None = None
    usage: Usage | None = None
    service_tier: object = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
