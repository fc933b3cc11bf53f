"""Puts stored content together again: bodies from envelopes, replies from what was emitted."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs
from sqlalchemy import Connection

from llm_proxy.chat.events import ReasoningKind, Unreadable
from llm_proxy.chat.reply import Assembly, ChoiceReply, ReasoningPart, Reply
from llm_proxy.chat.thinking import split_inline
from llm_proxy.records.blobs import fetch
from llm_proxy.records.bodies import Content, Edit
from llm_proxy.records.folding import unfolded
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.replay import events_of
from llm_proxy.wire.spans import splice
from llm_proxy.wire.sse import FrameTooLarge

Blobs = Mapping[bytes, bytes]


def addresses(content: Content | None) -> set[bytes]:
    """The blobs that `content` needs, once it's unfolded."""
    if content is None:
        return set()
    found = {bytes.fromhex(id_) for _, id_ in (*content.cuts, *content.holes)}
    if content.whole:
        found.add(bytes.fromhex(content.whole))
    return found


def rebuild(content: Content | None, blobs: Blobs) -> bytes | None:
    """The body exactly as it was received, unless it's masked; None where a piece of it is no longer kept."""
    if content is None or content.size or content.fold:
        return None
    if content.whole:
        return blobs.get(bytes.fromhex(content.whole))
    if content.holes:
        return _by_lengths(content, blobs)
    envelope = content.envelope.encode()
    pieces: list[bytes] = []
    used = 0
    for at, id_ in content.cuts:
        filling = blobs.get(bytes.fromhex(id_))
        if filling is None:
            return None
        pieces += (envelope[used:at], filling)
        used = at
    pieces.append(envelope[used:])
    return b"".join(pieces)


def read_body(connection: Connection, content: Content | None) -> bytes | None:
    """The same, with what it needs read from the store."""
    if content is not None:
        content = unfolded(content, lambda ids: fetch(connection, ids), set())
    return rebuild(content, fetch(connection, addresses(content)))


def _by_lengths(content: Content, blobs: Blobs) -> bytes | None:
    """A body whose holes are told by their places in the body itself."""
    envelope = content.envelope.encode()
    pieces: list[bytes] = []
    size = used = 0
    for position, id_ in content.holes:
        filling = blobs.get(bytes.fromhex(id_))
        if filling is None:
            return None
        part = envelope[used : used + position - size]
        pieces += (part, filling)
        used += len(part)
        size = position + len(filling)
    pieces.append(envelope[used:])
    return b"".join(pieces)


def as_sent(body: bytes | None, edits: tuple[Edit, ...]) -> bytes | None:
    """The body as sent upstream, where it differed."""
    if body is None or not edits:
        return None
    return splice(body, [(edit.start, edit.end, edit.text.encode()) for edit in edits])


def fold(dialect: Dialect, emitted: bytes, *, stream: bool) -> Reply:
    """What the model said, in typed parts, as far as it can be read."""
    assembly = Assembly()
    streamed = stream and emitted.lstrip()[:1] != b"{"
    try:
        for event in events_of(dialect, emitted, streamed=streamed):
            assembly.add(event)
    except FrameTooLarge as error:
        assembly.add(Unreadable(str(error)))
    reply = assembly.reply()
    return _told_apart(reply) if dialect.inline_reasoning else reply


def _told_apart(reply: Reply) -> Reply:
    """The reply with reasoning that stood inside its text, between tags, as reasoning."""
    return structs.replace(reply, choices=tuple(map(_choice_told_apart, reply.choices)))


def _choice_told_apart(choice: ChoiceReply) -> ChoiceReply:
    if "</" not in choice.text:
        return choice
    words, text = split_inline(choice.text)
    if not words:
        return choice
    thought = ReasoningPart(kind=ReasoningKind.INLINE_TAG, text=words)
    return structs.replace(choice, text=text, reasoning=(*choice.reasoning, thought))
