"""What a reply is made of while it arrives: small immutable events, whatever the dialect or transport.

An upstream yields `Frame`s. A streamed reply is many frames; a whole reply is one frame that holds the
entire body. A frame keeps the bytes it came from, so that the same dialect can forward them verbatim.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ReasoningKind(StrEnum):
    """What a piece of reasoning is: the model's own words, a summary, or something only the vendor reads."""

    RAW = "raw"
    SUMMARY = "summary"
    ENCRYPTED = "encrypted"
    REDACTED = "redacted"
    INLINE_TAG = "inline_tag"


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Tokens of one reply. All else is a part of `input` or `output`: what is cached, sound, pictures."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    """Written to the vendor's cache, for whatever time."""
    reasoning: int = 0
    cache_write_hour: int = 0
    """The part of `cache_write` that is kept for an hour."""
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    cached_audio: int = 0
    """The part of `cached` that is sound, and of `audio_input` that was cached; below of pictures."""
    cached_image: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output


class Started(msgspec.Struct, frozen=True, tag="started", gc=False):
    """The upstream named its reply. Both are the vendor's words, kept as attributes only."""

    id: str
    model: str


class Text(msgspec.Struct, frozen=True, tag="text", gc=False):
    choice: int
    text: str


class Refusal(msgspec.Struct, frozen=True, tag="refusal", gc=False):
    """The model declined, in words (OpenAI's `refusal` field)."""

    choice: int
    text: str


class Reasoning(msgspec.Struct, frozen=True, tag="reasoning", gc=False):
    """A piece of one reasoning part: its words, or what seals it.

    `text` of kind encrypted or redacted is the vendor's opaque data. `part` tells the parts of a choice
    apart (a content block's index, an output item's); pieces of one part and kind belong together.
    """

    choice: int
    text: str
    kind: ReasoningKind = ReasoningKind.RAW
    part: int = 0
    signature: str = ""
    """What proves a raw or summary part to the vendor that wrote it; may come in a piece without text."""
    id: str = ""
    """The vendor's id of the part (`rs_…`), needed to send it back."""
    format: str = ""
    """Whose seal it is, in OpenRouter's words (`ANTHROPIC_FORMAT` …); empty where unknown."""


ANTHROPIC_FORMAT = "anthropic-claude-v1"
RESPONSES_FORMAT = "openai-responses-v1"
GEMINI_FORMAT = "google-gemini-v1"


class CallDelta(msgspec.Struct, frozen=True, tag="call", gc=False):
    """Part of a proposed tool call, or all of it. `arguments` is raw JSON text to append to what came.

    `index` tells the calls of a choice apart; it only has to be unique and to rise.
    """

    choice: int
    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    custom: bool = False
    """A freeform tool's call: `arguments` is plain text."""
    signature: str = ""
    """Gemini's thought signature, which has to come back with the call."""


class ServerTool(msgspec.Struct, frozen=True, tag="server_tool", gc=False):
    """A tool that the provider ran itself (web search, code, an MCP server of its own), as far as reported.

    `raw` is the dialect's own JSON of the whole item or block, empty where only its start is known.
    """

    choice: int
    index: int
    name: str
    id: str = ""
    raw: bytes = b""


class Finished(msgspec.Struct, frozen=True, tag="finished", gc=False):
    """A choice ended. `reason`: stop, length, content_filter, tool_call or the dialect's own word.

    `detail` is what the dialect adds: the stop sequence that was met.
    """

    choice: int
    reason: str
    detail: str = ""


class UsageSeen(msgspec.Struct, frozen=True, tag="usage"):
    """Usage as reported. A later one replaces an earlier one."""

    usage: Usage
    only: bool = False
    """True where the frame holds nothing else, so that it can be kept from a caller who did not ask."""
    tier: str = ""
    """The service tier that it was served in, in the vendor's word; empty where nothing was said."""


class Failed(msgspec.Struct, frozen=True, tag="failed", gc=False):
    """The upstream reported an error inside its reply."""

    message: str
    code: str = ""


class Ended(msgspec.Struct, frozen=True, tag="ended", gc=False):
    """The dialect's own end marker (`data: [DONE]`). A stream that stops without one was cut."""


class Unreadable(msgspec.Struct, frozen=True, tag="unreadable", gc=False):
    """A frame that could not be parsed: never released while a policy is in force."""

    why: str


Event = (
    Started
    | Text
    | Refusal
    | Reasoning
    | CallDelta
    | ServerTool
    | Finished
    | UsageSeen
    | Failed
    | Ended
    | Unreadable
)


class Frame(msgspec.Struct, frozen=True):
    """Bytes as they arrived, with what they mean. `raw` includes the frame's terminating blank line."""

    raw: bytes
    events: tuple[Event, ...] = ()
    inert: bool = False
    """A comment or a ping: it may pass frames that wait. Read only where a dialect is `ordered`."""
