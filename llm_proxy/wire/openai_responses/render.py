"""OpenAI Responses, a streamed reply written from neutral events, in the order of OpenAI's own stream."""

from __future__ import annotations

from collections.abc import Sequence

from llm_proxy.chat.blocks import Block, CallBlock, ReasoningBlock, RefusalBlock, TextBlock, fold_blocks
from llm_proxy.chat.events import (
    CallDelta,
    Event,
    Finished,
    Reasoning,
    Refusal,
    Started,
    Text,
    Usage,
    UsageSeen,
)
from llm_proxy.wire.dialect import About
from llm_proxy.wire.openai_responses.render_body import is_silent
from llm_proxy.wire.openai_responses.render_items import COMPLETED, IN_PROGRESS, INCOMPLETE
from llm_proxy.wire.openai_responses.render_open import Frames, OpenMessage, OpenReasoning, put_call
from llm_proxy.wire.openai_responses.render_response import Shape, incomplete_reason

_Saying = Text | Refusal | Reasoning


class ResponsesRenderer:
    """One reply's stream. One item is open at a time; what follows the first call waits for the end.

    Calls of one reply may come in alternating pieces, and their items may not. They come at the end, so that
    little waits with them. A piece of reasoning whose item has closed opens an item of its own.
    """

    __slots__ = ("_finish", "_frames", "_held", "_open", "_refused", "_shape", "_started", "_usage")

    def __init__(self, about: About) -> None:
        self._shape = Shape(about)
        self._frames = Frames()
        self._open: OpenMessage | OpenReasoning | None = None
        self._held: list[Event] = []
        """Everything since the first call began."""
        self._started = False
        self._refused = False
        self._finish = ""
        self._usage: Usage | None = None

    def render(self, events: Sequence[Event]) -> bytes:
        """The frames that these events come to. Choices but the first are left out: none asked for them."""
        for event in events:
            match event:
                case Text(0) | Refusal(0) | Reasoning(0) | CallDelta(0):
                    self._start()
                    self._add(event)
                case Started(_, model):
                    self._shape.model = model if model and not self._started else self._shape.model
                    self._start()
                case Finished(0, reason):
                    self._finish = reason
                case UsageSeen(usage):
                    self._usage = usage
                case _:
                    pass
        return self._frames.take()

    def close(self) -> bytes:
        """Close what is open, put out what waited, and end with the whole response."""
        self._start()
        blocks = self._waiting()
        why = incomplete_reason(self._finish, refused=self._refused)
        last = INCOMPLETE if why else COMPLETED
        for position, block in enumerate(blocks):
            if isinstance(block, CallBlock):
                self._end_open(COMPLETED)
                status = last if position == len(blocks) - 1 else COMPLETED
                put_call(self._frames, block, self._shape.places, self._shape.ids, status)
            else:
                for event in _events(block):
                    self._say(event)
        self._end_open(last)
        response = self._shape.response(last, self._frames.items, self._usage, why)
        self._frames.put(b"response." + last, b'"response":' + response)
        return self._frames.take()

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        response = b'"response":' + self._shape.response(IN_PROGRESS)
        self._frames.put(b"response.created", response)
        self._frames.put(b"response.in_progress", response)

    def _add(self, event: _Saying | CallDelta) -> None:
        if is_silent(event):
            return
        self._refused = self._refused or isinstance(event, Refusal)
        if self._held or isinstance(event, CallDelta):
            self._held.append(event)
        else:
            self._say(event)

    def _say(self, event: _Saying) -> None:
        if isinstance(event, Reasoning):
            self._reason(event)
            return
        message = self._open
        if not isinstance(message, OpenMessage):
            self._end_open(COMPLETED)
            message = self._open = OpenMessage(self._frames, self._shape.ids)
        message.add(event)

    def _reason(self, piece: Reasoning) -> None:
        item = self._open
        if not isinstance(item, OpenReasoning) or item.part != piece.part:
            self._end_open(COMPLETED)
            item = self._open = OpenReasoning(self._frames, self._shape.ids, piece)
        item.add(piece)

    def _end_open(self, status: bytes) -> None:
        if self._open:
            self._open.end(status)
        self._open = None

    def _waiting(self) -> list[Block]:
        choices = fold_blocks(self._held).choices
        return choices[0].blocks if choices else []


def _events(block: TextBlock | RefusalBlock | ReasoningBlock) -> list[_Saying]:
    match block:
        case TextBlock(text=text):
            return [Text(0, text)]
        case RefusalBlock(text=text):
            return [Refusal(0, text)]
        case ReasoningBlock():
            pieces = list(block.pieces.items())
            return [
                Reasoning(
                    0,
                    text,
                    kind,
                    block.part,
                    signature=block.signature if position == len(pieces) - 1 else "",
                    id=block.id,
                    format=block.format,
                )
                for position, (kind, text) in enumerate(pieces)
            ]
