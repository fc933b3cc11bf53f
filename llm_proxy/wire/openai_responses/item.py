"""OpenAI Responses, one item of the input: what it says, what it answers, what it proposed.

Content comes from a caller who may send anything: what has no known shape is counted as its own JSON text.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.content import Content, inline
from llm_proxy.wire.dialect import Signed
from llm_proxy.wire.document import refuse_ambiguous
from llm_proxy.wire.lenient import NONE, array, as_text, lenient, string, text_of
from llm_proxy.wire.openai_responses import schema
from llm_proxy.wire.openai_responses.calls import client_call
from llm_proxy.wire.request import Answered, Media, MediaKind, MessageFacts, Proposed
from llm_proxy.wire.seal import MARK


class _Item(msgspec.Struct):
    """Every value raw: one of an unexpected type must not hide the others."""

    type: msgspec.Raw = NONE
    id: msgspec.Raw = NONE
    role: msgspec.Raw = NONE
    content: msgspec.Raw = NONE
    call_id: msgspec.Raw = NONE
    output: msgspec.Raw = NONE
    tools: msgspec.Raw = NONE
    result: msgspec.Raw = NONE
    encrypted_content: msgspec.Raw = NONE
    approval_request_id: msgspec.Raw = NONE
    approve: msgspec.Raw = NONE
    reason: msgspec.Raw = NONE


class _Part(msgspec.Struct):
    type: msgspec.Raw = NONE
    text: msgspec.Raw = NONE
    refusal: msgspec.Raw = NONE
    image_url: msgspec.Raw = NONE
    detail: msgspec.Raw = NONE
    input_audio: msgspec.Raw = NONE
    file_data: msgspec.Raw = NONE


class _Audio(msgspec.Struct):
    data: str = ""


_item = lenient(_Item)
_called = lenient(schema.Called)
_thought = lenient(schema.Thought)
_part = lenient(_Part)
_audio = lenient(_Audio)


def message_facts(raw: bytes) -> MessageFacts:  # noqa: PLR0911  one answer for each kind of item
    """Read one item, given its own bytes out of a parsed body. Costs a full parse: cache it by hash.

    Raises `ProxyError` (invalid_request) where an object in it names a key twice, since the upstream may then
    read another item than was read here. Nothing else in valid JSON makes it fail.
    """
    text = string(raw)
    if text is not None:
        return MessageFacts(role="user", texts=(text,) if text else (), user_text=text)
    refuse_ambiguous(raw, "input", "an item")
    item = _item(raw)
    if item is None:
        return MessageFacts(texts=(as_text(raw),))
    type_ = string(item.type) or ""
    if not type_ and not string(item.role) and bytes(item.content) == b"null" and string(item.id):
        return _reference(item)
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
    thought = _thought(raw) if item and string(item.type) == "reasoning" else None
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


def _reference(item: _Item) -> MessageFacts:
    """An item of the vendor's store, by its id: its type may be left out."""
    return MessageFacts(elsewhere=1, reference=text_of(item.id)[:80] or "item_reference")


def _message(item: _Item) -> MessageFacts:
    role = string(item.role) or ""
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
        return MessageFacts(role="assistant", texts=(as_text(raw),))
    parts = thoughts(thought)
    words = [part.text for part in parts if part.kind is not ReasoningKind.ENCRYPTED]
    sealed = len(thought.encrypted_content or "")
    return MessageFacts(role="assistant", texts=_texts(words), reasoning=parts, sealed=sealed)


def _approval(item: _Item) -> MessageFacts:
    verdict = "approved" if bytes(item.approve) == b"true" else "refused"
    said = f"{verdict}: {reason}" if (reason := text_of(item.reason)) else verdict
    return MessageFacts(
        role="tool", texts=(said,), results=(Answered(text_of(item.approval_request_id), said),)
    )


def _answer(item: _Item) -> MessageFacts:
    """A tool's output. What a tool search answers are the tools it found."""
    content = _read_content(item.output if bytes(item.output) != b"null" else item.tools)
    id_ = text_of(item.call_id) or text_of(item.id)
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
        case "item_reference":
            return _reference(item)
        case "compaction" | "compaction_trigger":
            return MessageFacts(sealed=len(text_of(item.encrypted_content)))
        case "image_generation_call":
            return MessageFacts(role="assistant", images=(inline(text_of(item.result)),))
        case _:
            return MessageFacts(role="assistant", texts=(as_text(raw),))


def _read_content(raw: msgspec.Raw) -> Content:
    content = Content()
    parts = array(raw)
    if parts is None:
        _read_part(raw, content)
        return content
    for part in parts:
        _read_part(part, content)
    return content


def _read_part(raw: msgspec.Raw, content: Content) -> None:
    part = _part(raw)
    match string(part.type) if part else None:
        case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" if part:
            content.say(text_of(part.text))
        case "refusal" if part:
            content.texts.append(text_of(part.refusal))
        case "input_image" | "computer_screenshot" if part:
            content.media.append(_image(part))
        case "input_audio" if part:
            audio = _audio(part.input_audio) or _Audio()
            content.media.append(inline(audio.data, MediaKind.AUDIO))
        case "input_file" if part:
            content.media.append(inline(text_of(part.file_data), MediaKind.FILE))
        case _:
            content.say(text_of(raw))


def _image(part: _Part) -> Media:
    detail = string(part.detail) or ""
    return inline(text_of(part.image_url), detail=detail)


def _texts(texts: list[str]) -> tuple[str, ...]:
    return tuple([text for text in texts if text])
