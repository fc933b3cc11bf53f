"""Anthropic Messages, a streamed reply written anew: one block open at a time, their indexes without a gap.

Text and thinking go out as they come. Calls are kept until the reply ends: pieces of several may come mixed,
and a block that is closed can't be opened again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.blocks import CallBlock
from llm_proxy.chat.events import (
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
from llm_proxy.wire.anthropic_messages import render_parts as parts
from llm_proxy.wire.anthropic_messages.call_input import input_object
from llm_proxy.wire.dialect import About

_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":%b}}\n\n'
)
_TEXT = b'"text_delta","text":%b'
_THINKING = b'"thinking_delta","thinking":%b'
_SIGNATURE = b'"signature_delta","signature":%b'
_INPUT = b'"input_json_delta","partial_json":%b'
_START = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
_STOP = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_MESSAGE_START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":%b,"type":"message",'
    b'"role":"assistant","model":%b,"content":[],"stop_reason":null,"stop_sequence":null,"usage":%b}}\n\n'
)
_MESSAGE_END = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":%b,"stop_sequence":%b},'
    b'"usage":%b}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)
_OPEN_TEXT = b'{"type":"text","text":""}'
_OPEN_THINKING = b'{"type":"thinking","thinking":"","signature":""}'
_REDACTED = b'{"type":"redacted_thinking","data":%b}'
_TOOL_USE = b'{"type":"tool_use","id":%b,"name":%b,"input":{}}'

_encode = msgspec.json.Encoder().encode


class _Thought:
    """One part of reasoning that may still go on. Its seals wait for its end."""

    __slots__ = ("format", "id", "part", "pieces", "signature", "words")

    def __init__(self, part: int) -> None:
        self.part = part
        self.words: ReasoningKind | None = None
        """The kind of the thinking block that is open, if one is."""
        self.pieces: dict[ReasoningKind, str] = {}
        self.signature = ""
        self.id = ""
        self.format = ""


class MessagesRenderer:
    """Renders one reply. Usage that comes before the reply names itself stands in `message_start` too."""

    __slots__ = (
        "_about",
        "_calls",
        "_finish",
        "_id",
        "_index",
        "_open",
        "_refused",
        "_started",
        "_thinking",
        "_thought",
        "_usage",
    )

    def __init__(self, about: About) -> None:
        self._about = about
        self._id = parts.message_id(about.call_id)
        self._thinking = parts.thinking_asked(about.request)
        self._started = False
        self._index = 0
        """Of the open block, or of the next one."""
        self._open: type[Text] | type[Refusal] | None = None
        """What the open block holds, unless it is thinking."""
        self._thought: _Thought | None = None
        self._calls: dict[int, CallBlock] = {}
        self._finish = Finished(0, "")
        self._refused = False
        self._usage: Usage | None = None

    def render(self, events: Sequence[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if type(event) is Text:
                if event.choice == 0 and event.text:
                    if self._open is not Text:
                        self._begin(Text, out)
                    out.append(_DELTA % (self._index, _TEXT % _encode(event.text)))
            else:
                self._take(event, out)
        return b"".join(out)

    def close(self) -> bytes:
        out: list[bytes] = []
        self._message_start("", out)
        self._end_block(out)
        for call in self._calls.values():
            self._call(call, out)
        reason = parts.stop_reason(self._finish.reason, calls=bool(self._calls), refused=self._refused)
        sequence = self._finish.detail if reason == "stop_sequence" else None
        usage = _encode(parts.wire_usage(self._usage))
        out.append(_MESSAGE_END % (_encode(reason), _encode(sequence), usage))
        return b"".join(out)

    def _take(self, event: Event, out: list[bytes]) -> None:
        match event:
            case Reasoning():
                if self._thinking and event.choice == 0:
                    self._reason(event, out)
            case CallDelta():
                if event.choice == 0:
                    self._gather(event)
            case Refusal(choice, text):
                if choice == 0 and text:
                    self._refused = True
                    if self._open is not Refusal:
                        self._begin(Refusal, out)
                    out.append(_DELTA % (self._index, _TEXT % _encode(text)))
            case Started(_, model):
                self._message_start(model, out)
            case UsageSeen(usage):
                self._usage = usage
            case Finished(choice):
                if choice == 0:
                    self._finish = event
            case _:
                pass

    def _message_start(self, model: str, out: list[bytes]) -> None:
        if self._started:
            return
        self._started = True
        usage = _encode(parts.wire_usage(self._usage))
        out.append(_MESSAGE_START % (_encode(self._id), _encode(model or self._about.model), usage))

    def _begin(self, kind: type[Text] | type[Refusal], out: list[bytes]) -> None:
        self._message_start("", out)
        self._end_block(out)
        self._open = kind
        out.append(_START % (self._index, _OPEN_TEXT))

    def _end_block(self, out: list[bytes]) -> None:
        """Close the open block, and end the thought."""
        thought, self._thought = self._thought, None
        if thought is not None:
            self._end_thought(thought, out)
        elif self._open is not None:
            self._stop(out)

    def _stop(self, out: list[bytes]) -> None:
        out.append(_STOP % self._index)
        self._open = None
        self._index += 1

    def _reason(self, piece: Reasoning, out: list[bytes]) -> None:
        thought = self._thought
        if thought is None or thought.part != piece.part:
            self._message_start("", out)
            self._end_block(out)
            thought = self._thought = _Thought(piece.part)
        thought.signature += piece.signature
        thought.id = thought.id or piece.id
        thought.format = thought.format or piece.format
        if piece.kind not in parts.WORDS:
            thought.pieces[piece.kind] = thought.pieces.get(piece.kind, "") + piece.text
        elif piece.text:
            self._think(thought, piece, out)

    def _think(self, thought: _Thought, piece: Reasoning, out: list[bytes]) -> None:
        """Words of another kind are another block; the last one of a thought gets its seal."""
        if thought.words is not piece.kind:
            if thought.words is not None:
                self._stop(out)
            thought.words = piece.kind
            out.append(_START % (self._index, _OPEN_THINKING))
        out.append(_DELTA % (self._index, _THINKING % _encode(piece.text)))

    def _end_thought(self, thought: _Thought, out: list[bytes]) -> None:
        seals = parts.seals(thought.words, thought.pieces, thought.signature, thought.id, thought.format)
        if seals.signature and thought.words is None:
            out.append(_START % (self._index, _OPEN_THINKING))
        if seals.signature:
            out.append(_DELTA % (self._index, _SIGNATURE % _encode(seals.signature)))
        if seals.signature or thought.words is not None:
            self._stop(out)
        for data in seals.redacted:
            self._whole(_REDACTED % _encode(data), out)

    def _whole(self, block: bytes, out: list[bytes]) -> None:
        """A block that its start holds all of."""
        out.append(_START % (self._index, block))
        self._stop(out)

    def _gather(self, delta: CallDelta) -> None:
        call = self._calls.get(delta.index)
        if call is None:
            call = self._calls[delta.index] = CallBlock(index=delta.index)
        call.id = call.id or delta.id
        call.name += delta.name
        call.arguments += delta.arguments
        call.custom = call.custom or delta.custom
        call.signature = call.signature or delta.signature

    def _call(self, call: CallBlock, out: list[bytes]) -> None:
        id_ = parts.tool_id(call, self._id)
        if data := parts.call_seal(call, id_):
            self._whole(_REDACTED % _encode(data), out)
        arguments = input_object(call.arguments, custom=call.custom).decode()
        out.append(_START % (self._index, _TOOL_USE % (_encode(id_), _encode(call.name))))
        out.append(_DELTA % (self._index, _INPUT % _encode(arguments)))
        self._stop(out)
