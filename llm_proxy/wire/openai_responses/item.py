"""OpenAI Responses, one item of the input: what it says, what it answers, what it proposed.

Content comes from a caller who may send anything: what has no known shape is counted as its own JSON text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from llm_proxy.chat.events import RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.asked import invalid
from llm_proxy.wire.dialect import Signed
from llm_proxy.wire.openai_responses import schema
from llm_proxy.wire.openai_responses.calls import client_call
from llm_proxy.wire.request import Answered, Media, MediaKind, MessageFacts, Proposed
from llm_proxy.wire.seal import MARK
from llm_proxy.wire.spans import DuplicateKey, refuse_duplicates

T = TypeVar("T")

_NONE = schema.NONE
_CANNOT_READ = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Item(msgspec.Struct):
    """Every value raw: one of an unexpected type must not hide the others."""

    type: msgspec.Raw = _NONE
    id: msgspec.Raw = _NONE
    role: msgspec.Raw = _NONE
    content: msgspec.Raw = _NONE
    call_id: msgspec.Raw = _NONE
    output: msgspec.Raw = _NONE
    tools: msgspec.Raw = _NONE
    result: msgspec.Raw = _NONE
    approval_request_id: msgspec.Raw = _NONE
    approve: msgspec.Raw = _NONE
    reason: msgspec.Raw = _NONE


class _Part(msgspec.Struct):
    type: msgspec.Raw = _NONE
    text: msgspec.Raw = _NONE
    refusal: msgspec.Raw = _NONE
    image_url: msgspec.Raw = _NONE
    detail: msgspec.Raw = _NONE
    input_audio: msgspec.Raw = _NONE
    file_data: msgspec.Raw = _NONE


class _Audio(msgspec.Struct):
    data: str = ""


class _Content:
    """What an item's parts add up to, while they are read."""

    __slots__ = ("media", "spoken", "texts")

    def __init__(self) -> None:
        self.spoken: list[str] = []
        """Text parts alone: what the role said."""
        self.texts: list[str] = []
        self.media: list[Media] = []

    def say(self, text: str) -> None:
        if text:
            self.spoken.append(text)
            self.texts.append(text)


def _decoder(kind: type[T]) -> Callable[[msgspec.Raw | bytes], T | None]:
    """A decoder of one type that answers None to any other."""
    decode = msgspec.json.Decoder(kind).decode

    def attempt(raw: msgspec.Raw | bytes) -> T | None:
        try:
            return decode(raw)
        except _CANNOT_READ:
            return None

    return attempt


_item = _decoder(_Item)
_called = _decoder(schema.Called)
_thought = _decoder(schema.Thought)
_part = _decoder(_Part)
_audio = _decoder(_Audio)
_string = _decoder(str)
_list = _decoder(list[msgspec.Raw])


def message_facts(raw: bytes) -> MessageFacts:  # noqa: PLR0911  one answer for each kind of item
    """Read one item, given its own bytes out of a parsed body. Costs a full parse: cache it by hash.

    Raises `ProxyError` (invalid_request) where an object in it names a key twice, since the upstream may then
    read another item than was read here. Nothing else in valid JSON makes it fail.
    """
    text = _string(raw)
    if text is not None:
        return MessageFacts(role="user", texts=(text,) if text else (), user_text=text)
    _refuse_ambiguous(raw)
    item = _item(raw)
    if item is None:
        return MessageFacts(texts=(_as_text(raw),))
    type_ = _string(item.type) or ""
    if type_ in ("", "message"):
        return _message(item)
    if type_ == "reasoning":
        return _reasoning(raw)
    if type_ == "mcp_approval_response":
        return _approval(item)
    if type_.endswith("_output"):
        return _answer(item)
    return _other(type_, item, raw)


def signed(raw: bytes) -> tuple[Signed, ...]:
    """The seal of a reasoning item with encrypted content: the whole item has to go with it."""
    item = _item(raw) if b'"encrypted_content"' in raw else None
    thought = _thought(raw) if item and _string(item.type) == "reasoning" else None
    seal = thought.encrypted_content if thought else ""
    return (Signed((0, len(raw)), seal, seal.startswith(MARK)),) if seal else ()


def thoughts(thought: schema.Thought) -> tuple[ReasoningPart, ...]:
    """A reasoning item's parts: its summary, its raw text and its seal, each under the item's id."""
    found = (
        (ReasoningKind.SUMMARY, joined(thought.summary)),
        (ReasoningKind.RAW, joined(thought.content)),
        (ReasoningKind.ENCRYPTED, thought.encrypted_content or ""),
    )
    return tuple(
        ReasoningPart(kind=kind, text=text, id=thought.id or "", format=RESPONSES_FORMAT)
        for kind, text in found
        if text
    )


def joined(parts: list[schema.Part] | None) -> str:
    """The parts of a summary or of raw reasoning as one text, apart by an empty line."""
    return "\n\n".join([part.text for part in parts or () if part.text])


def _refuse_ambiguous(raw: bytes) -> None:
    try:
        refuse_duplicates(raw)
    except DuplicateKey as error:
        raise invalid(
            f"Key {error.key!r} occurs twice in one object of an item: send it once", "input"
        ) from error
    except RecursionError as error:
        raise invalid("An item is nested too deeply: send a flatter document", "input") from error


def _message(item: _Item) -> MessageFacts:
    role = _string(item.role) or ""
    content = _read_content(item.content)
    return MessageFacts(
        role=role,
        texts=_texts(content.texts),
        images=tuple(content.media),
        user_text="\n".join(content.spoken) if role == "user" else "",
    )


def _reasoning(raw: bytes) -> MessageFacts:
    thought = _thought(raw)
    if thought is None:
        return MessageFacts(role="assistant", texts=(_as_text(raw),))
    parts = thoughts(thought)
    words = [part.text for part in parts if part.kind is not ReasoningKind.ENCRYPTED]
    return MessageFacts(role="assistant", texts=_texts(words), reasoning=parts)


def _approval(item: _Item) -> MessageFacts:
    verdict = "approved" if bytes(item.approve) == b"true" else "refused"
    said = f"{verdict}: {reason}" if (reason := _text(item.reason)) else verdict
    return MessageFacts(
        role="tool", texts=(said,), results=(Answered(_text(item.approval_request_id), said),)
    )


def _answer(item: _Item) -> MessageFacts:
    """A tool's output. What a tool search answers are the tools it found."""
    content = _read_content(item.output if bytes(item.output) != b"null" else item.tools)
    id_ = _text(item.call_id) or _text(item.id)
    return MessageFacts(
        role="tool",
        texts=_texts(content.texts),
        images=tuple(content.media),
        results=(Answered(id_, "\n".join(content.spoken)),) if id_ else (),
    )


def _other(type_: str, item: _Item, raw: bytes) -> MessageFacts:
    called = _called(raw)
    if called and (call := client_call(called, raw)):
        proposed = Proposed(call.id, call.name, call.arguments)
        return MessageFacts(role="assistant", texts=_texts([call.name, call.arguments]), proposed=(proposed,))
    match type_:
        case "item_reference" | "compaction" | "compaction_trigger":
            return MessageFacts()
        case "image_generation_call":
            return MessageFacts(role="assistant", images=(Media(size=len(_text(item.result))),))
        case _:
            return MessageFacts(role="assistant", texts=(_as_text(raw),))


def _read_content(raw: msgspec.Raw) -> _Content:
    content = _Content()
    parts = _list(raw)
    if parts is None:
        _read_part(raw, content)
        return content
    for part in parts:
        _read_part(part, content)
    return content


def _read_part(raw: msgspec.Raw, content: _Content) -> None:
    part = _part(raw)
    match _string(part.type) if part else None:
        case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" if part:
            content.say(_text(part.text))
        case "refusal" if part:
            content.texts.append(_text(part.refusal))
        case "input_image" | "computer_screenshot" if part:
            url = _text(part.image_url)
            content.media.append(Media(detail=_string(part.detail) or "", size=_inline(url)))
        case "input_audio" if part:
            audio = _audio(part.input_audio) or _Audio()
            content.media.append(Media(size=len(audio.data), kind=MediaKind.AUDIO))
        case "input_file" if part:
            content.media.append(Media(size=_inline(_text(part.file_data)), kind=MediaKind.FILE))
        case _:
            content.say(_text(raw))


def _inline(url: str) -> int:
    """Characters of base64 in a data URL, or in bare base64 where no scheme stands before it."""
    head, comma, _ = url.partition(",")
    if head.startswith("data:"):
        return len(url) - len(head) - len(comma)
    return 0 if "://" in url[:16] else len(url)


def _texts(texts: list[str]) -> tuple[str, ...]:
    return tuple([text for text in texts if text])


def _text(raw: msgspec.Raw) -> str:
    """A string's text; nothing for null; any other value's own JSON text."""
    text = _string(raw)
    if text is not None:
        return text
    return "" if bytes(raw) == b"null" else _as_text(bytes(raw))


def _as_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
