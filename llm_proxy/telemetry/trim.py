"""Fitting content into a backend's limit: whole messages go, the JSON stays valid.

What stays first: the newest message, then reasoning and tool calls (newest first), then whole messages
(newest first). All functions are pure; sizes are UTF-8 bytes of JSON.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from llm_proxy.telemetry.attributes import Attributes, put
from llm_proxy.telemetry.parts import (
    UNREADABLE,
    BlobPart,
    FilePart,
    Message,
    Part,
    ReasoningContent,
    TextPart,
    ToolCallPart,
    ToolResponsePart,
    UriPart,
)

_encode = msgspec.json.Encoder().encode


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON array that fits. `text` is None where nothing of it fitted.

    `digest` is the SHA-256 (hex) of the whole array's JSON, and empty where `text` is the whole.
    """

    text: str | None
    length: int
    kept: int
    digest: str = ""


def fit_messages(messages: Sequence[Message], budget: int) -> Fitted:
    """`messages` in order, whole or trimmed. A message that stays keeps its role and finish_reason."""
    whole = [_encode(m) for m in messages]
    if _size(whole) <= budget:
        return _fitted(whole, whole)
    left = budget - 2
    newest = len(whole) - 1
    chosen: dict[int, bytes] = {}
    # Half at most, so that one long tool result can't push out every earlier decision.
    reserve = left if newest == 0 else left // 2
    short = whole[newest] if len(whole[newest]) <= reserve else _clip(messages[newest], reserve)
    if short:
        chosen[newest] = short
        left -= len(short) + 1
    for i in range(newest - 1, -1, -1):
        core = _essentials(messages[i])
        if core and len(core) < left:
            chosen[i] = core
            left -= len(core) + 1
    for i in range(newest, -1, -1):
        grown = len(whole[i]) - len(chosen[i]) if i in chosen else len(whole[i]) + 1
        if grown < left:
            chosen[i] = whole[i]
            left -= grown
    return _fitted([chosen[i] for i in sorted(chosen)], whole)


def fit_items(items: Iterable[msgspec.Struct | msgspec.Raw], budget: int) -> Fitted:
    """As many whole items as fit, from the first."""
    whole = [_encode(item) for item in items]
    if _size(whole) <= budget:
        return _fitted(whole, whole)
    left = budget - 1
    kept = 0
    for item in whole:
        left -= len(item) + 1
        if left < 0:
            break
        kept += 1
    return _fitted(whole[:kept], whole)


def fit_parts(parts: Sequence[Part], budget: int) -> Fitted:
    """Parts of one author (system instructions), shortened where they don't fit."""
    whole = [_encode(p) for p in parts]
    if _size(whole) <= budget:
        return _fitted(whole, whole)
    limit = budget // 2
    while limit > 0:
        cut = [_encode(s) for p in parts if (s := _shortened(p, limit, limit)) is not None]
        if _size(cut) <= budget:
            return _fitted(cut, whole)
        limit //= 2
    return _fitted([], whole)


def fit_arguments(text: str, budget: int) -> Fitted:
    """A tool call's arguments: whole, or those members of the JSON object that fit, the shortest first."""
    size = len(text.encode("utf-8", "replace"))
    if size <= budget:
        return Fitted(text=text, length=size, kept=1)
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    try:
        members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except UNREADABLE:
        return Fitted(text=None, length=size, kept=0, digest=digest)
    pieces = {name: _encode(name) + b":" + bytes(value) for name, value in members.items()}
    left, kept = budget - 2, set[str]()
    for name in sorted(pieces, key=lambda name: len(pieces[name])):
        left -= len(pieces[name]) + 1
        if left < 0:
            break
        kept.add(name)
    whole = b"{" + b",".join(piece for name, piece in pieces.items() if name in kept) + b"}"
    return Fitted(text=whole.decode() if kept else None, length=size, kept=len(kept), digest=digest)


def put_fitted(target: Attributes, fitted: Mapping[str, Fitted]) -> bool:
    """Each as an attribute, with what it was where it's trimmed; whether any is."""
    for key, value in fitted.items():
        put(target, key, value.text)
        if value.digest:
            name = key.partition(".")[2]
            put(target, f"llm_proxy.trimmed.{name}.sha256", value.digest)
            put(target, f"llm_proxy.trimmed.{name}.bytes", value.length)
            put(target, f"llm_proxy.trimmed.{name}.kept", value.kept)
    return any(value.digest for value in fitted.values())


def _fitted(kept: list[bytes], whole: list[bytes]) -> Fitted:
    if kept is whole:
        return Fitted(text=_array(whole).decode(), length=_size(whole), kept=len(whole))
    return Fitted(
        text=_array(kept).decode() if kept else None,
        length=_size(whole),
        kept=len(kept),
        digest=hashlib.sha256(_array(whole)).hexdigest(),
    )


def _array(items: list[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def _size(items: list[bytes]) -> int:
    return sum(map(len, items)) + max(len(items) - 1, 0) + 2


def _essentials(message: Message) -> bytes:
    """The message's reasoning and tool calls alone; empty where it has none."""
    core = tuple(p for p in message.parts if isinstance(p, (ReasoningContent, ToolCallPart)))
    if not core:
        return b""
    return _encode(msgspec.structs.replace(message, parts=core, trimmed=True))


def _clip(message: Message, budget: int) -> bytes:
    """`message` with its texts cut, words before reasoning and tool calls; empty where nothing fits."""
    limit = budget
    while limit > 0:
        limit //= 2
        data = _clipped(message, limit, budget)
        if len(data) <= budget:
            return data
    limit = budget
    while limit > 0:
        limit //= 2
        data = _clipped(message, 0, limit)
        if len(data) <= budget:
            return data
    bare = _encode(msgspec.structs.replace(message, parts=(), name="", trimmed=True))
    return bare if len(bare) <= budget else b""


def _clipped(message: Message, words: int, core: int) -> bytes:
    parts = tuple(s for p in message.parts if (s := _shortened(p, words, core)) is not None)
    return _encode(msgspec.structs.replace(message, parts=parts, trimmed=True))


def _shortened(part: Part, words: int, core: int) -> Part | None:
    """`part` with at most `words` characters of text, or `core` of reasoning or arguments. None: left out."""
    match part:
        case TextPart(content):
            short = TextPart(content[:words], part.refusal) if words else None
        case ToolResponsePart(id_, response):
            short = ToolResponsePart(id_, response[:words])
        case ReasoningContent(content, kind):
            short = ReasoningContent(content[:core], kind, part.encrypted_content[:core], part.redacted)
        case ToolCallPart():
            short = _short_call(part, core)
        case UriPart(_, uri):
            short = part if len(uri) <= words else None
        case BlobPart() | FilePart():
            short = part if words else None
        case msgspec.Raw():
            short = part if len(bytes(part)) <= words else None
    return short


def _short_call(call: ToolCallPart, core: int) -> ToolCallPart:
    text = call.arguments if isinstance(call.arguments, str) else bytes(call.arguments).decode()
    return call if len(text) <= core else ToolCallPart(call.id[:200], call.name[:200], text[:core])
