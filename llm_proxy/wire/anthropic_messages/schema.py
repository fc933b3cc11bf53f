"""Anthropic Messages, the reply's fields that are acted on, for whole bodies and stream events alike.

Shapes as in Anthropic's API reference and its SDKs, beta blocks included. Everything is optional and may be
null: servers that copy the API differ. A value of another type makes the reply unreadable.
"""

from __future__ import annotations

import msgspec

from llm_proxy.wire.lenient import NONE
from llm_proxy.wire.toolids import fitting

LONGEST_NAME = 64
_PROVIDERS_OWN = frozenset({"server_tool_use", "mcp_tool_use"})


class Block(msgspec.Struct, gc=False):
    """A content block, whole or as its stream starts it. `input` is the tool's arguments as JSON."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    toolset_name: str | None = None
    server_name: str | None = None
    tool_use_id: str | None = None


class StopDetails(msgspec.Struct, gc=False):
    """Why the model declined."""

    category: str | None = None
    explanation: str | None = None


class Delta(msgspec.Struct, gc=False):
    """A content block's next piece, or how the message ended."""

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None


class OutputDetails(msgspec.Struct, gc=False):
    thinking_tokens: int | None = None


class Iteration(msgspec.Struct, gc=False):
    """One sampling of several that made up a reply."""

    type: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: msgspec.Raw = NONE


class Usage(msgspec.Struct, gc=False):
    """`input_tokens` leaves out what was read from the cache or written to it."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None
    iterations: list[Iteration] | None = None
    cache_creation: msgspec.Raw = NONE
    """`cache_creation_input_tokens` by the time that they are kept."""
    service_tier: object = None
    speed: object = None
    """`fast` is priced apart."""


class Start(msgspec.Struct, gc=False):
    """The message as its stream starts it."""

    id: str | None = None
    model: str | None = None
    content: list[msgspec.Raw] | None = None
    usage: Usage | None = None


class StreamEvent(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    delta: Delta | None = None
    content_block: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    message: Start | None = None
    usage: Usage | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Body(msgspec.Struct, gc=False):
    id: str | None = None
    type: str | None = None
    model: str | None = None
    content: list[msgspec.Raw] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: StopDetails | None = None
    usage: Usage | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def is_call(type_: str) -> bool:
    """Whether a block of this type asks the caller to run a tool; a kind not known yet is taken to."""
    return type_.endswith("tool_use") and type_ not in _PROVIDERS_OWN


def server_call_name(name: str, server: str) -> str:
    """A tool that the provider ran, as the policy knows it: `crm__get` where that is an MCP server's."""
    return fitting(f"{server}__{name}", LONGEST_NAME) if server else name


def call_name(name: str, toolset: str) -> str:
    """A tool's name for the policy, which tells a toolset's member (`browser.left_click`) from others."""
    return f"{toolset}.{name}" if toolset else name
