"""Anthropic Messages, one message of the history: what it says, what it answers, what it proposed.

Content comes from a caller who may send anything: what has no known shape is counted as its own JSON text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from llm_proxy.chat.events import ANTHROPIC_FORMAT, ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.anthropic_messages.schema import call_name, is_call
from llm_proxy.wire.request import Answered, Media, MediaKind, MessageFacts, Proposed
from llm_proxy.wire.seal import unwrap
from llm_proxy.wire.spans import DuplicateKey, refuse_duplicates

T = TypeVar("T")

_NONE = msgspec.Raw(b"null")
_DEEPEST = 3
"""Levels of content that are taken apart: a tool's result, a document in it, that document's blocks."""


class _Message(msgspec.Struct):
    """Every value raw: one of an unexpected type must not hide the others."""

    role: msgspec.Raw = _NONE
    content: msgspec.Raw = _NONE


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: str
    content: str


class _Block(msgspec.Struct):
    type: msgspec.Raw = _NONE
    text: msgspec.Raw = _NONE
    content: msgspec.Raw = _NONE
    source: msgspec.Raw = _NONE
    title: msgspec.Raw = _NONE
    context: msgspec.Raw = _NONE
    id: msgspec.Raw = _NONE
    name: msgspec.Raw = _NONE
    input: msgspec.Raw = _NONE
    toolset_name: msgspec.Raw = _NONE
    tool_use_id: msgspec.Raw = _NONE
    thinking: msgspec.Raw = _NONE
    signature: msgspec.Raw = _NONE
    data: msgspec.Raw = _NONE


class _Source(msgspec.Struct):
    type: msgspec.Raw = _NONE
    data: msgspec.Raw = _NONE
    content: msgspec.Raw = _NONE


def _decoder(kind: type[T]) -> Callable[[msgspec.Raw], T | None]:
    """A decoder of one type that answers None to any other."""
    decode = msgspec.json.Decoder(kind).decode

    def attempt(raw: msgspec.Raw) -> T | None:
        try:
            return decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    return attempt


_message = _decoder(_Message)
_plain = msgspec.json.Decoder(_Plain).decode
_block = _decoder(_Block)
_source = _decoder(_Source)
_string = _decoder(str)
_list = _decoder(list[msgspec.Raw])


class _Content:
    """What a message's blocks add up to, while they are read."""

    __slots__ = ("depth", "media", "proposed", "reasoning", "results", "spoken", "texts")

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self.spoken: list[str] = []
        """Text blocks alone: what the role said."""
        self.texts: list[str] = []
        self.media: list[Media] = []
        self.results: list[Answered] = []
        self.proposed: list[Proposed] = []
        self.reasoning: list[ReasoningPart] = []

    def count(self, *texts: str) -> None:
        self.texts += [text for text in texts if text]

    def say(self, text: str) -> None:
        self.count(text)
        if text:
            self.spoken.append(text)

    def within(self, raw: msgspec.Raw) -> str:
        """Takes in content that a block holds; the text of it."""
        inner = _Content(self.depth + 1)
        _read_content(raw, inner)
        self.texts += inner.texts
        self.media += inner.media
        return "\n".join(inner.texts)


def message_facts(raw: bytes) -> MessageFacts:
    """Read one message, given its own bytes out of a parsed body. Costs a full parse: cache it by hash.

    Raises `ProxyError` (invalid_request) where an object in it names a key twice, since the upstream may then
    read another message than was read here. Nothing else in valid JSON makes it fail.
    """
    plain = _read_plain(raw)
    if plain is not None:
        return plain
    _refuse_ambiguous(raw)
    message = _message(msgspec.Raw(raw))
    if message is None:
        return MessageFacts(texts=(_as_text(raw),))
    role = _string(message.role) or ""
    content = _Content()
    _read_content(message.content, content)
    return MessageFacts(
        role=role,
        texts=tuple(content.texts),
        images=tuple(content.media),
        results=tuple(content.results),
        proposed=tuple(content.proposed),
        reasoning=tuple(content.reasoning),
        user_text="\n".join(content.spoken) if role == "user" else "",
    )


def _read_plain(raw: bytes) -> MessageFacts | None:
    """The facts of a message that is a role and a text and nothing else; None for any other.

    Each key stands in it once: a quote inside a string is escaped, so the bytes `"role"` are a key or the
    role's value, and without `\\u` no other spelling of a key exists.
    """
    if raw.count(b'"role"') != 1 or raw.count(b'"content"') != 1 or b"\\u" in raw:
        return None
    try:
        message = _plain(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    role, text = message.role, message.content
    return MessageFacts(role=role, texts=(text,) if text else (), user_text=text if role == "user" else "")


def _refuse_ambiguous(raw: bytes) -> None:
    try:
        refuse_duplicates(raw)
    except DuplicateKey as error:
        raise ProxyError(
            Kind.INVALID_REQUEST,
            f"Key {error.key!r} occurs twice in one object of a message: send it once",
            param="messages",
            retryable=False,
        ) from error
    except RecursionError as error:
        raise ProxyError(
            Kind.INVALID_REQUEST,
            "A message is nested too deeply: send a flatter document",
            param="messages",
            retryable=False,
        ) from error


def _read_content(raw: msgspec.Raw, into: _Content) -> None:
    blocks = _list(raw) if into.depth <= _DEEPEST else None
    if blocks is None:
        into.say(_text(raw))
        return
    for block in blocks:
        _read_block(block, into)


def _read_block(raw: msgspec.Raw, into: _Content) -> None:
    block = _block(raw)
    type_ = (_string(block.type) if block else None) or ""
    if block is None or not type_:
        into.count(_text(raw))
    elif type_ == "text":
        into.say(_text(block.text))
    elif type_ == "image":
        _read_source(block.source, MediaKind.IMAGE, into)
    elif type_ == "document":
        into.count(_text(block.title), _text(block.context))
        _read_source(block.source, MediaKind.FILE, into)
    elif type_ == "search_result":
        into.count(_text(block.title), _text(block.source))
        into.within(block.content)
    elif type_ == "container_upload":
        into.media.append(Media(kind=MediaKind.FILE))
    elif type_ == "tool_result":
        into.results.append(Answered(_text(block.tool_use_id), into.within(block.content)))
    elif type_ == "compaction" or type_.endswith("_tool_result"):
        into.within(block.content)
    elif type_.endswith("tool_use"):
        _read_call(block, into, proposed=is_call(type_))
    elif type_ in ("thinking", "redacted_thinking"):
        _read_thought(block, into)
    else:
        into.count(_text(raw))


def _read_source(raw: msgspec.Raw, kind: MediaKind, into: _Content) -> None:
    """An image's or document's source: base64, plain text, blocks, or a place elsewhere."""
    source = _source(raw) or _Source()
    match _string(source.type):
        case "text":
            into.count(_text(source.data))
        case "content":
            into.within(source.content)
        case _:
            into.media.append(Media(size=len(_string(source.data) or ""), kind=kind))


def _read_call(block: _Block, into: _Content, *, proposed: bool) -> None:
    """A call of the caller's tool, or of one that the provider ran: that one is only counted."""
    name = call_name(_text(block.name), _text(block.toolset_name))
    arguments = _as_text(bytes(block.input))
    into.count(name, arguments)
    if proposed:
        into.proposed.append(Proposed(_text(block.id), name, arguments))


def _read_thought(block: _Block, into: _Content) -> None:
    """Reasoning sent back: another vendor's, where its seal was carried in this dialect, as it was."""
    words, data = _text(block.thinking), _text(block.data)
    signature = _text(block.signature)
    into.count(words)
    kind = ReasoningKind.REDACTED if data else ReasoningKind.RAW
    own = ReasoningPart(kind=kind, text=data or words, signature=signature, format=ANTHROPIC_FORMAT)
    into.reasoning.append(unwrap(signature or data) or own)


def _text(raw: msgspec.Raw) -> str:
    """A string's text; nothing for null; any other value's own JSON text."""
    text = _string(raw)
    if text is not None:
        return text
    return "" if bytes(raw) == b"null" else _as_text(bytes(raw))


def _as_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
