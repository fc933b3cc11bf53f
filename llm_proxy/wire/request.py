"""What the stages read from a request of any dialect: the fields acted on, beside the verbatim bytes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec

from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.spans import Span


class WireRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed request. `body` is as received; every span is an offset pair into it."""

    body: bytes
    model: str
    stream: bool = False
    n: int = 1
    """How many choices were asked for."""
    messages: tuple[bytes, ...] = ()
    """Each message's own bytes, in order, undecoded: see the dialect's `message_facts`."""
    message_spans: tuple[Span, ...] = ()
    messages_key: str = "messages"
    """The top-level key whose value holds the messages."""
    spans: Mapping[str, Span]
    """Where the value of each top-level key stands."""
    max_output: int | None = None
    """The completion cap in tokens per choice, or None where the body sets none."""
    cap_fields: tuple[str, ...] = ()
    """The top-level keys that hold the cap."""
    include_usage: bool = False
    """The caller asked for usage at the end of the stream."""
    tools: bytes = b""
    """The tool declarations' bytes, empty where there are none."""
    tool_names: tuple[str, ...] = ()
    tool_forced: bool = False
    """The model has to call a tool: a refusal it can read would only make it call again."""
    user: str = ""
    run: str = ""
    """The run that the body names. A header may name another."""
    store: bool = True
    """The reply may be gone on from, or fetched again, by its id (Responses)."""
    previous: str = ""
    """The stored response that this one goes on from (`previous_response_id`), kept where it was made."""


class MediaKind(StrEnum):
    IMAGE = "image"
    AUDIO = "audio"
    FILE = "file"
    UPLOAD = "upload"
    """A file for the provider's tools: the model reads what they say of it, and not the file."""


class Media(msgspec.Struct, frozen=True):
    """Something in a message that isn't text. Its data is not among the message's `texts`."""

    detail: str = ""
    """The detail asked for (low, high, auto), empty where none was."""
    size: int = 0
    """Characters of inline base64, 0 where the data is elsewhere (a URL or an id)."""
    kind: MediaKind = MediaKind.IMAGE
    width: int = 0
    """Of an inline picture, in pixels; 0 where its header doesn't tell, or it is elsewhere."""
    height: int = 0
    seconds: float = 0.0
    """Of an inline sound that tells its rate; 0 where it doesn't."""


class Proposed(NamedTuple):
    """A tool call in the history, as the caller sent it back. `arguments` is raw JSON text."""

    id: str
    name: str
    arguments: str


class Answered(NamedTuple):
    """A tool's result in the history: the id of its call (or the function's name in the legacy form)."""

    id: str
    text: str


class MessageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one message says. Depends on its bytes alone, so that it can be cached by their hash."""

    role: str = ""
    texts: tuple[str, ...] = ()
    """Everything that costs tokens as text, once each."""
    images: tuple[Media, ...] = ()
    """Images, audio and files."""
    results: tuple[Answered, ...] = ()
    proposed: tuple[Proposed, ...] = ()
    reasoning: tuple[ReasoningPart, ...] = ()
    """Reasoning that the caller sends back."""
    user_text: str = ""
    """What a person wrote, empty for every other role."""
    sealed: int = 0
    """Characters of what only its vendor can read, and has to read: sealed reasoning, a compacted history."""
    elsewhere: int = 0
    """Parts that stand at the vendor and are only named here."""
    reference: str = ""
    """Where all of the message stands there: the id by which it's named."""
