"""OpenAI Responses, a streamed reply's items while they are open: the frames that each piece comes to."""

from __future__ import annotations

from collections.abc import Mapping

from llm_proxy.chat.blocks import CallBlock, ReasoningBlock
from llm_proxy.chat.events import Reasoning, ReasoningKind, Refusal, Text
from llm_proxy.wire.openai_responses.prompt_tools import Place
from llm_proxy.wire.openai_responses.render_items import (
    IN_PROGRESS,
    WORDS,
    Ids,
    called,
    encode,
    message_item,
    reasoning_item,
    refusal_part,
    signature_block,
    summary_part,
    text_part,
    words_of,
    words_part,
)


class Frames:
    """Numbers a stream's frames, and keeps its finished items. One per reply."""

    __slots__ = ("_number", "items", "out")

    def __init__(self) -> None:
        self._number = 0
        self.items: list[bytes] = []
        self.out: list[bytes] = []
        """Frames not handed over yet."""

    def put(self, event: bytes, rest: bytes) -> None:
        """Add a frame of this event type; `rest` is the members of its data after the number."""
        self.out.append(
            b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n' % (event, event, self._number, rest)
        )
        self._number += 1

    def begin(self, item: bytes) -> None:
        index = len(self.items)
        self.put(b"response.output_item.added", b'"output_index":%d,"item":%b' % (index, item))

    def end(self, item: bytes) -> None:
        index = len(self.items)
        self.put(b"response.output_item.done", b'"output_index":%d,"item":%b' % (index, item))
        self.items.append(item)

    def take(self) -> bytes:
        out = b"".join(self.out)
        self.out.clear()
        return out


class OpenMessage:
    """A message: content parts one after the other, each text or a refusal."""

    __slots__ = ("_at", "_delta", "_frames", "_id", "_parts", "_refusal", "_said")

    def __init__(self, frames: Frames, ids: Ids) -> None:
        self._frames = frames
        self._id = ids.item("msg", len(frames.items))
        self._parts: list[bytes] = []
        self._said: list[str] = []
        self._refusal: bool | None = None
        """The open part's kind; None before the first."""
        self._at = b""
        self._delta = b""
        frames.begin(message_item(self._id, IN_PROGRESS, ()))

    def add(self, event: Text | Refusal) -> None:
        refusal = isinstance(event, Refusal)
        if refusal is not self._refusal:
            self._end_part()
            self._begin_part(refusal=refusal)
        self._said.append(event.text)
        if refusal:
            self._frames.put(b"response.refusal.delta", self._delta + encode(event.text))
        else:
            rest = self._delta + encode(event.text) + b',"logprobs":[]'
            self._frames.put(b"response.output_text.delta", rest)

    def end(self, status: bytes) -> None:
        self._end_part()
        self._frames.end(message_item(self._id, status, self._parts))

    def _begin_part(self, *, refusal: bool) -> None:
        self._refusal = refusal
        place = (encode(self._id), len(self._frames.items), len(self._parts))
        self._at = b'"item_id":%b,"output_index":%d,"content_index":%d' % place
        self._delta = self._at + b',"delta":'
        part = refusal_part("") if refusal else text_part("")
        self._frames.put(b"response.content_part.added", self._at + b',"part":' + part)

    def _end_part(self) -> None:
        if self._refusal is None:
            return
        text = "".join(self._said)
        self._said.clear()
        if self._refusal:
            part = refusal_part(text)
            self._frames.put(b"response.refusal.done", self._at + b',"refusal":' + encode(text))
        else:
            part = text_part(text)
            rest = self._at + b',"text":' + encode(text) + b',"logprobs":[]'
            self._frames.put(b"response.output_text.done", rest)
        self._frames.put(b"response.content_part.done", self._at + b',"part":' + part)
        self._parts.append(part)


class OpenReasoning:
    """A reasoning item: a summary, the words themselves, or neither, and what seals them."""

    __slots__ = ("_at", "_begun", "_block", "_carries", "_frames", "_id", "_said", "part")

    def __init__(self, frames: Frames, ids: Ids, first: Reasoning) -> None:
        self._frames = frames
        self.part = first.part
        self._carries = ids.carries
        self._id = ids.reasoning(first.id, first.format, len(frames.items))
        self._block = ReasoningBlock(part=first.part, pieces={})
        self._said: dict[ReasoningKind, list[str]] = {}
        self._at = b'"item_id":%b,"output_index":%d' % (encode(self._id), len(frames.items))
        self._begun: set[bytes] = set()
        frames.begin(reasoning_item(self._id, self._block))

    def add(self, piece: Reasoning) -> None:
        block = self._block
        block.signature += piece.signature
        block.id = block.id or piece.id
        block.format = block.format or piece.format
        self._said.setdefault(piece.kind, []).append(piece.text)
        if not piece.text:
            return
        if piece.kind is ReasoningKind.SUMMARY:
            self._say_summary(piece.text)
        elif piece.kind in WORDS:
            self._say_words(piece.text)

    def _say_summary(self, text: str) -> None:
        at = self._at + b',"summary_index":0'
        if b"summary" not in self._begun:
            self._begun.add(b"summary")
            rest = at + b',"part":' + summary_part("")
            self._frames.put(b"response.reasoning_summary_part.added", rest)
        self._frames.put(b"response.reasoning_summary_text.delta", at + b',"delta":' + encode(text))

    def _say_words(self, text: str) -> None:
        at = self._at + b',"content_index":0'
        if b"words" not in self._begun:
            self._begun.add(b"words")
            self._frames.put(b"response.content_part.added", at + b',"part":' + words_part(""))
        self._frames.put(b"response.reasoning_text.delta", at + b',"delta":' + encode(text))

    def end(self, status: bytes) -> None:
        """Close the item. It has no `status`: clients that send one back are refused by OpenAI."""
        del status
        block = self._block
        block.pieces = {kind: "".join(said) for kind, said in self._said.items()}
        if b"summary" in self._begun:
            at, text = self._at + b',"summary_index":0', block.pieces[ReasoningKind.SUMMARY]
            self._frames.put(b"response.reasoning_summary_text.done", at + b',"text":' + encode(text))
            rest = at + b',"part":' + summary_part(text)
            self._frames.put(b"response.reasoning_summary_part.done", rest)
        if b"words" in self._begun:
            at, text = self._at + b',"content_index":0', words_of(block)
            self._frames.put(b"response.reasoning_text.done", at + b',"text":' + encode(text))
            self._frames.put(b"response.content_part.done", at + b',"part":' + words_part(text))
        self._frames.end(reasoning_item(self._id, block, carries=self._carries))


def put_call(frames: Frames, block: CallBlock, places: Mapping[str, Place], ids: Ids, status: bytes) -> None:
    """A whole call at once, after the item that holds its signature where it has one."""
    if block.signature:
        index = len(frames.items)
        id_ = ids.item("rs", index)
        signed = signature_block(block, called(block, places, ids, index + 1).call_id)
        frames.begin(reasoning_item(id_, ReasoningBlock(part=signed.part, pieces={})))
        frames.end(reasoning_item(id_, signed))
    index = len(frames.items)
    call = called(block, places, ids, index)
    kind = b"custom_tool_call_input" if call.custom else b"function_call_arguments"
    at = b'"item_id":%b,"output_index":%d' % (encode(call.id), index)
    given = encode(call.input)
    frames.begin(call.item(IN_PROGRESS, ""))
    if call.input:
        frames.put(b"response.%b.delta" % kind, at + b',"delta":' + given)
    if call.custom:
        frames.put(b"response.custom_tool_call_input.done", at + b',"input":' + given)
    else:
        rest = at + b',"name":%b,"arguments":%b' % (encode(call.name), given)
        frames.put(b"response.function_call_arguments.done", rest)
    frames.end(call.item(status))
