"""Anthropic Messages, one message of the history: what it says, what it answers, what it proposed.

Content comes from a caller who may send anything: what has no known shape is counted as its own JSON text.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import ANTHROPIC_FORMAT, ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.anthropic_messages.schema import call_name, is_call
from llm_proxy.wire.content import Content, inline, read_plain
from llm_proxy.wire.document import refuse_ambiguous
from llm_proxy.wire.lenient import NONE, array, as_text, lenient, string, text_of
from llm_proxy.wire.request import Answered, Media, MediaKind, MessageFacts, Proposed
from llm_proxy.wire.seal import unwrap

_DEEPEST = 3
"""Levels of content that are taken apart: a tool's result, a document in it, that document's blocks."""


class _Message(msgspec.Struct):
    """Every value raw: one of an unexpected type must not hide the others."""

    role: msgspec.Raw = NONE
    content: msgspec.Raw = NONE


class _Block(msgspec.Struct):
    type: msgspec.Raw = NONE
    text: msgspec.Raw = NONE
    content: msgspec.Raw = NONE
    source: msgspec.Raw = NONE
    title: msgspec.Raw = NONE
    context: msgspec.Raw = NONE
    id: msgspec.Raw = NONE
    name: msgspec.Raw = NONE
    input: msgspec.Raw = NONE
    toolset_name: msgspec.Raw = NONE
    tool_use_id: msgspec.Raw = NONE
    thinking: msgspec.Raw = NONE
    signature: msgspec.Raw = NONE
    data: msgspec.Raw = NONE


class _Source(msgspec.Struct):
    type: msgspec.Raw = NONE
    data: msgspec.Raw = NONE
    content: msgspec.Raw = NONE


_message = lenient(_Message)
_block = lenient(_Block)
_source = lenient(_Source)


class _Blocks(Content):
    """What a message's blocks add up to, while they are read."""

    __slots__ = ("depth", "proposed", "reasoning", "results", "sealed")

    def __init__(self, depth: int = 0) -> None:
        super().__init__()
        self.depth = depth
        self.results: list[Answered] = []
        self.proposed: list[Proposed] = []
        self.reasoning: list[ReasoningPart] = []
        self.sealed = 0

    def count(self, *texts: str) -> None:
        self.texts += [text for text in texts if text]

    def within(self, raw: msgspec.Raw) -> str:
        """Takes in content that a block holds; the text of it."""
        inner = _Blocks(self.depth + 1)
        _read_content(raw, inner)
        self.texts += inner.texts
        self.media += inner.media
        return "\n".join(inner.texts)


def message_facts(raw: bytes) -> MessageFacts:
    """Read one message, given its own bytes out of a parsed body. Costs a full parse: cache it by hash.

    Raises `ProxyError` (invalid_request) where an object in it names a key twice, since the upstream may then
    read another message than was read here. Nothing else in valid JSON makes it fail.
    """
    plain = read_plain(raw)
    if plain is not None:
        role, text = plain.role, plain.content
        return MessageFacts(
            role=role, texts=(text,) if text else (), user_text=text if role == "user" else ""
        )
    refuse_ambiguous(raw, "messages", "a message")
    message = _message(msgspec.Raw(raw))
    if message is None:
        return MessageFacts(texts=(as_text(raw),))
    role = string(message.role) or ""
    content = _Blocks()
    _read_content(message.content, content)
    return MessageFacts(
        role=role,
        texts=tuple(content.texts),
        images=tuple(content.media),
        results=tuple(content.results),
        proposed=tuple(content.proposed),
        reasoning=tuple(content.reasoning),
        user_text="\n".join(content.spoken) if role == "user" else "",
        sealed=content.sealed,
    )


def _read_content(raw: msgspec.Raw, into: _Blocks) -> None:
    blocks = array(raw) if into.depth <= _DEEPEST else None
    if blocks is None:
        into.say(text_of(raw))
        return
    for block in blocks:
        _read_block(block, into)


def _read_block(raw: msgspec.Raw, into: _Blocks) -> None:
    block = _block(raw)
    type_ = (string(block.type) if block else None) or ""
    if block is None or not type_:
        into.count(text_of(raw))
    elif type_ == "text":
        into.say(text_of(block.text))
    elif type_ == "image":
        _read_source(block.source, MediaKind.IMAGE, into)
    elif type_ == "document":
        into.count(text_of(block.title), text_of(block.context))
        _read_source(block.source, MediaKind.FILE, into)
    elif type_ == "search_result":
        into.count(text_of(block.title), text_of(block.source))
        into.within(block.content)
    elif type_ == "container_upload":
        into.media.append(Media(kind=MediaKind.UPLOAD))
    elif type_ == "tool_result":
        into.results.append(Answered(text_of(block.tool_use_id), into.within(block.content)))
    elif type_ == "compaction" or type_.endswith("_tool_result"):
        into.within(block.content)
    elif type_.endswith("tool_use"):
        _read_call(block, into, proposed=is_call(type_))
    elif type_ in ("thinking", "redacted_thinking"):
        _read_thought(block, into)
    else:
        into.count(text_of(raw))


def _read_source(raw: msgspec.Raw, kind: MediaKind, into: _Blocks) -> None:
    """An image's or document's source: base64, plain text, blocks, or a place elsewhere."""
    source = _source(raw) or _Source()
    match string(source.type):
        case "text":
            into.count(text_of(source.data))
        case "content":
            into.within(source.content)
        case _:
            into.media.append(inline(data, kind) if (data := string(source.data)) else Media(kind=kind))


def _read_call(block: _Block, into: _Blocks, *, proposed: bool) -> None:
    """A call of the caller's tool, or of one that the provider ran: that one is only counted."""
    name = call_name(text_of(block.name), text_of(block.toolset_name))
    arguments = as_text(bytes(block.input))
    into.count(name, arguments)
    if proposed:
        into.proposed.append(Proposed(text_of(block.id), name, arguments))


def _read_thought(block: _Block, into: _Blocks) -> None:
    """Reasoning sent back: another vendor's, where its seal was carried in this dialect, as it was."""
    words, data = text_of(block.thinking), text_of(block.data)
    signature = text_of(block.signature)
    into.count(words)
    into.sealed += len(data)
    kind = ReasoningKind.REDACTED if data else ReasoningKind.RAW
    own = ReasoningPart(kind=kind, text=data or words, signature=signature, format=ANTHROPIC_FORMAT)
    into.reasoning.append(unwrap(signature or data) or own)
