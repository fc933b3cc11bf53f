"""OpenAI Responses, the reply's fields that are acted on.

Everything is optional and may be null: servers differ. A value of another type makes the reply unreadable.
"""

from __future__ import annotations

import msgspec

from llm_proxy.wire.lenient import NONE
from llm_proxy.wire.tokens_told import InputDetails, OutputDetails


class Head(msgspec.Struct, gc=False):
    """What every event of a stream says of itself, in the order that servers send it."""

    type: str | None = None
    item_id: str | None = None
    output_index: int | None = None
    summary_index: int | None = None
    delta: msgspec.Raw = NONE


class Typed(msgspec.Struct, gc=False):
    type: str | None = None


class Called(msgspec.Struct, gc=False):
    """An item, as far as it may be a tool's call."""

    id: str | None = None
    type: str | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None
    arguments: msgspec.Raw = NONE
    input: msgspec.Raw = NONE
    action: msgspec.Raw = NONE
    actions: msgspec.Raw = NONE
    operation: msgspec.Raw = NONE
    environment: Typed | None = None
    execution: str | None = None


class Part(msgspec.Struct, gc=False):
    """A part of a message's content, or of a reasoning item's content or summary."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None


class Message(msgspec.Struct, gc=False):
    content: list[Part] | str | None = None


class Thought(msgspec.Struct, gc=False):
    """A reasoning item."""

    id: str | None = None
    summary: list[Part] | None = None
    content: list[Part] | None = None
    encrypted_content: str | None = None


class Usage(msgspec.Struct, gc=False):
    input_tokens: int | None = None
    input_tokens_details: InputDetails | None = None
    output_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None
    total_tokens: int | None = None


class Incomplete(msgspec.Struct, gc=False):
    reason: str | None = None


class Response(msgspec.Struct, gc=False):
    """A whole response: the body, or what the events carry that begin and end a stream."""

    id: str | None = None
    status: str | None = None
    error: msgspec.Raw = NONE
    incomplete_details: Incomplete | None = None
    model: str | None = None
    output: list[msgspec.Raw] | None = None
    service_tier: object = None
    usage: Usage | None = None


class Carrier(msgspec.Struct, gc=False):
    """An event with an item, a response or an error in it."""

    item: msgspec.Raw = NONE
    response: Response | None = None
    error: msgspec.Raw = NONE


class Written(msgspec.Struct, gc=False):
    """The event that repeats a call's whole arguments or input."""

    name: str | None = None
    arguments: str | None = None
    input: str | None = None
