"""Anthropic Messages, what a reply is written of, whole and streamed alike.

A seal of Anthropic's stands where Anthropic puts it. Another vendor's travels in an envelope (`wire.seal`) in
the same place: the `signature` of a thinking block where there are words, else the `data` of a redacted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from llm_proxy.chat.blocks import CallBlock
from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    GEMINI_FORMAT,
    CallDelta,
    Event,
    Finished,
    Reasoning,
    ReasoningKind,
    Refusal,
    Started,
    Text,
    Usage,
    UsageSeen,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire import seal
from llm_proxy.wire.lenient import CANNOT_READ
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.toolids import fitting

WORDS = (ReasoningKind.RAW, ReasoningKind.SUMMARY, ReasoningKind.INLINE_TAG)
_SEALED = (ReasoningKind.ENCRYPTED, ReasoningKind.REDACTED)
_LONGEST_ID = 64

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "refusal": "refusal",
    "stop_sequence": "stop_sequence",
    "pause": "pause_turn",
    "model_context_window_exceeded": "model_context_window_exceeded",
}


class _Asked(msgspec.Struct):
    type: str | None = None


class _Wish(msgspec.Struct):
    thinking: _Asked | None = None


class OutputDetails(msgspec.Struct):
    thinking_tokens: int


class Writes(msgspec.Struct):
    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class WireUsage(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Anthropic's book: `input_tokens` are those that were neither read from the cache nor written to it."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputDetails | None = None
    cache_creation: Writes | None = None


class Seals(msgspec.Struct, frozen=True):
    """Where what seals one part of reasoning goes."""

    signature: str = ""
    """Of the part's last thinking block; of one without words where the part has none."""
    redacted: tuple[str, ...] = ()
    """The data of `redacted_thinking` blocks behind it."""


_wish = msgspec.json.Decoder(_Wish).decode


def thinking_asked(request: WireRequest) -> bool:
    """Whether the caller asked for thinking, so that it expects blocks of it."""
    try:
        asked = _wish(request.body).thinking
    except CANNOT_READ:
        return False
    return asked is not None and asked.type not in (None, "disabled")


def shown(events: Iterable[Event], *, thinking: bool) -> list[Event]:
    """The events that a reply is made of: its first choice, reasoning only where it is wanted."""
    return [event for event in events if _is_shown(event, thinking=thinking)]


def _is_shown(event: Event, *, thinking: bool) -> bool:
    match event:
        case Started() | UsageSeen():
            return True
        case Text(choice, text) | Refusal(choice, text):
            return choice == 0 and bool(text)
        case Reasoning():
            return thinking and event.choice == 0
        case CallDelta() | Finished():
            return event.choice == 0
        case _:
            return False


def message_id(call_id: str) -> str:
    return "msg_" + call_id.replace("-", "")


def call_id(id_: str) -> str:
    """A call's id as this dialect takes it."""
    return fitting(id_, _LONGEST_ID)


def tool_id(call: CallBlock, reply_id: str) -> str:
    return call_id(call.id) if call.id else f"toolu_{reply_id.removeprefix('msg_')}_{call.index}"


def call_seal(call: CallBlock, id_: str) -> str:
    """The data of a `redacted_thinking` block before a call that has its own seal (Gemini's), or nothing.

    A call block has no place for it. The envelope names the call by its id; `prompt_blocks` puts it back.
    """
    if not call.signature:
        return ""
    return seal.wrap(
        ReasoningPart(kind=ReasoningKind.ENCRYPTED, signature=call.signature, id=id_, format=GEMINI_FORMAT)
    )


def seals(
    words: ReasoningKind | None, pieces: Mapping[ReasoningKind, str], signature: str, id_: str, format_: str
) -> Seals:
    """`words`: the kind of the part's words, None where it has none. `pieces`: its text by kind."""
    sealed = {kind: pieces[kind] for kind in _SEALED if pieces.get(kind)}
    redacted: list[str] = []
    if signature and format_ != ANTHROPIC_FORMAT:
        part = ReasoningPart(kind=words or ReasoningKind.RAW, signature=signature, id=id_, format=format_)
        signature = seal.wrap(part)
        if words is None:
            redacted.append(signature)
            signature = ""
    elif words and not signature and ReasoningKind.ENCRYPTED in sealed:
        data = sealed.pop(ReasoningKind.ENCRYPTED)
        signature = seal.wrap(ReasoningPart(kind=ReasoningKind.ENCRYPTED, text=data, id=id_, format=format_))
    for kind, data in sealed.items():
        native = kind is ReasoningKind.REDACTED and format_ == ANTHROPIC_FORMAT
        redacted.append(
            data if native else seal.wrap(ReasoningPart(kind=kind, text=data, id=id_, format=format_))
        )
    return Seals(signature, tuple(redacted))


def stop_reason(finish: str, *, calls: bool, refused: bool) -> str:
    """Anthropic's word. Servers that say `stop` after calls, or nothing at all, are put right."""
    reason = _STOP_REASONS.get(finish, "end_turn")
    if reason != "end_turn":
        return reason
    if calls:
        return "tool_use"
    return "refusal" if refused else reason


def wire_usage(usage: Usage | None) -> WireUsage:
    told = usage or Usage()
    hour = min(told.cache_write_hour, told.cache_write)
    return WireUsage(
        input_tokens=max(0, told.input - told.cached - told.cache_write),
        cache_creation_input_tokens=told.cache_write,
        cache_read_input_tokens=told.cached,
        output_tokens=told.output,
        output_tokens_details=OutputDetails(told.reasoning) if told.reasoning else None,
        cache_creation=Writes(told.cache_write - hour, hour) if hour else None,
    )


def words_of(pieces: Mapping[ReasoningKind, str]) -> Sequence[tuple[ReasoningKind, str]]:
    """The words of a part by kind, as they came."""
    return [(kind, text) for kind, text in pieces.items() if kind in WORDS and text]
