"""OpenAI chat completions, the request's fields that a translation carries over.

Every field is optional and may be null. A value of another type is a 400 that names the place. Beside
OpenAI's own stand the fields of servers that copy it: OpenRouter's `reasoning`, Anthropic's `thinking` and
`cache_control`, vLLM's `top_k`.
"""

from __future__ import annotations

import msgspec


class Cache(msgspec.Struct, gc=False):
    """`cache_control`, and OpenAI's `prompt_cache_breakpoint`."""

    ttl: str | None = None


class Image(msgspec.Struct, gc=False):
    url: str = ""
    detail: str | None = None


class Audio(msgspec.Struct, gc=False):
    data: str = ""
    format: str | None = None


class File(msgspec.Struct, gc=False):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class Part(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: Image | str | None = None
    input_audio: Audio | None = None
    file: File | None = None
    cache_control: Cache | None = None
    prompt_cache_breakpoint: Cache | None = None


class Function(msgspec.Struct, gc=False):
    name: str = ""
    arguments: str | None = None


class Custom(msgspec.Struct, gc=False):
    name: str = ""
    input: str | None = None


class Call(msgspec.Struct, gc=False):
    id: str | None = None
    function: Function | None = None
    custom: Custom | None = None
    cache_control: Cache | None = None
    extra_content: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Message(msgspec.Struct, gc=False):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[Call] | None = None
    function_call: Function | None = None
    cache_control: Cache | None = None


MESSAGE_KEYS = frozenset(Message.__struct_fields__) | {
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "thinking_blocks",
    "encrypted_content",
    "extra_content",
}
"""What is read of a message; any other key is dropped, and listed."""


class ToolFunction(msgspec.Struct, gc=False):
    """A tool's `function`, its `custom`, or one of the legacy `functions`."""

    name: str = ""
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None
    format: msgspec.Raw = msgspec.Raw(b"null")
    cache_control: Cache | None = None


class Tool(msgspec.Struct, gc=False):
    type: str = ""
    function: ToolFunction | None = None
    custom: ToolFunction | None = None
    cache_control: Cache | None = None


class Named(msgspec.Struct, gc=False):
    name: str = ""


class ChosenTool(msgspec.Struct, gc=False):
    """One of `allowed_tools.tools`."""

    function: Named | None = None
    custom: Named | None = None


class AllowedTools(msgspec.Struct, gc=False):
    mode: str = "auto"
    tools: list[ChosenTool] = []


class Chosen(msgspec.Struct, gc=False):
    """`tool_choice` as an object. `name` is Anthropic's place for it, which some clients send here."""

    type: str = ""
    function: Named | None = None
    custom: Named | None = None
    allowed_tools: AllowedTools | None = None
    name: str | None = None


class JsonSchema(msgspec.Struct, gc=False):
    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, gc=False):
    type: str = ""
    json_schema: JsonSchema | None = None


class Reasoning(msgspec.Struct, gc=False):
    """OpenRouter's `reasoning`."""

    effort: str | None = None
    max_tokens: int | None = None
    enabled: bool | None = None
    exclude: bool | None = None
    summary: str | None = None


class Thinking(msgspec.Struct, gc=False):
    """Anthropic's `thinking`, which LiteLLM, DeepSeek and others take in chat requests."""

    type: str | None = None
    budget_tokens: int | None = None
    display: str | None = None


class Request(msgspec.Struct):
    messages: list[Message]
    tools: list[Tool] | None = None
    tool_choice: str | Chosen | None = None
    functions: list[ToolFunction] | None = None
    function_call: str | Named | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    reasoning: Reasoning | None = None
    thinking: Thinking | None = None
    verbosity: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    modalities: list[str] | None = None


REQUEST_KEYS = (frozenset(Request.__struct_fields__) - {"modalities"}) | {
    "model",
    "stream",
    "stream_options",
    "n",
    "max_tokens",
    "max_completion_tokens",
}
"""What is carried over; any other key is dropped, and listed."""
