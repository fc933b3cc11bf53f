"""OpenAI chat completions, one message of the history: what it says, what it answers, what it proposed.

Content comes from a caller who may send anything: what has no known shape is counted as its own JSON text.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import ReasoningKind
from llm_proxy.chat.reply import OPAQUE, ReasoningPart
from llm_proxy.chat.thinking import split_inline
from llm_proxy.wire.content import Content, inline, read_plain
from llm_proxy.wire.document import refuse_ambiguous
from llm_proxy.wire.lenient import NONE, array, as_text, lenient, string, text_of
from llm_proxy.wire.openai_chat.history import Reasoned, read_reasoned
from llm_proxy.wire.openai_chat.signed import signed
from llm_proxy.wire.request import Answered, Media, MediaKind, MessageFacts, Proposed

__all__ = ["message_facts", "signed"]


class _Message(Reasoned):
    """Every value raw: one of an unexpected type must not hide the others."""

    role: msgspec.Raw = NONE
    name: msgspec.Raw = NONE
    refusal: msgspec.Raw = NONE
    tool_call_id: msgspec.Raw = NONE
    tool_calls: msgspec.Raw = NONE
    function_call: msgspec.Raw = NONE
    audio: msgspec.Raw = NONE
    """An earlier spoken reply, by its id."""


class _Part(msgspec.Struct):
    type: msgspec.Raw = NONE
    text: msgspec.Raw = NONE
    refusal: msgspec.Raw = NONE
    thinking: msgspec.Raw = NONE
    image_url: msgspec.Raw = NONE
    input_audio: msgspec.Raw = NONE
    file: msgspec.Raw = NONE


class _Call(msgspec.Struct):
    id: msgspec.Raw = NONE
    function: msgspec.Raw = NONE
    custom: msgspec.Raw = NONE


class _Function(msgspec.Struct):
    name: msgspec.Raw = NONE
    arguments: msgspec.Raw = NONE
    input: msgspec.Raw = NONE


class _Image(msgspec.Struct):
    url: str = ""
    detail: str = ""


class _Data(msgspec.Struct):
    data: str = ""
    file_data: str = ""


_message = lenient(_Message)
_part = lenient(_Part)
_call = lenient(_Call)
_function = lenient(_Function)
_image = lenient(_Image)
_data = lenient(_Data)


def message_facts(raw: bytes) -> MessageFacts:
    """Read one message, given its own bytes out of a parsed body. Costs a full parse: cache it by hash.

    Raises `ProxyError` (invalid_request) where an object in it names a key twice, since the upstream may then
    read another message than was read here. Nothing else in valid JSON makes it fail.
    """
    plain = read_plain(raw)
    if plain is not None and plain.role not in ("tool", "function"):
        role, text = plain.role, plain.content
        return MessageFacts(
            role=role,
            texts=(text,) if text else (),
            reasoning=_inline(role, text),
            user_text=text if role == "user" else "",
        )
    refuse_ambiguous(raw, "messages", "a message")
    message = _message(msgspec.Raw(raw))
    if message is None:
        return MessageFacts(texts=(as_text(raw),))
    role = string(message.role) or ""
    content = _read_content(message.content)
    proposed = _proposed(message)
    name = text_of(message.name)
    said = "\n".join(content.spoken)
    reasoning = read_reasoned(message)
    # Mistral's thinking parts stand among the content's texts already.
    thoughts = [p.text for p in reasoning if p.kind not in OPAQUE and p.text not in content.texts]
    texts = [name, *content.texts, text_of(message.refusal), *thoughts, *_unread(message, reasoning)]
    texts += [text for call in proposed for text in (call.name, call.arguments)]
    return MessageFacts(
        role=role,
        texts=tuple([text for text in texts if text]),
        images=tuple(content.media),
        results=_results(role, text_of(message.tool_call_id), name, said),
        proposed=tuple(proposed),
        reasoning=reasoning + _inline(role, said),
        user_text=said if role == "user" else "",
        sealed=sum([len(part.text) for part in reasoning if part.kind in OPAQUE]),
        elsewhere=int(bytes(message.audio) != b"null"),
    )


def _results(role: str, call_id: str, name: str, said: str) -> tuple[Answered, ...]:
    id_ = call_id if role == "tool" else name if role == "function" else ""
    return (Answered(id_, said),) if id_ else ()


def _read_content(raw: msgspec.Raw) -> Content:
    content = Content()
    parts = array(raw)
    if parts is None:
        content.say(text_of(raw))
        return content
    for part in parts:
        _read_part(part, content)
    return content


def _read_part(raw: msgspec.Raw, content: Content) -> None:
    part = _part(raw)
    match string(part.type) if part else None:
        case "text" | "input_text" | "output_text" if part:
            content.say(text_of(part.text))
        case "refusal" if part:
            content.texts.append(text_of(part.refusal))
        case "thinking" if part:
            inner = _read_content(part.thinking)
            content.texts += inner.texts
        case "image_url" if part:
            content.media.append(_read_image(part.image_url))
        case "input_audio" if part:
            content.media.append(_read_data(part.input_audio, MediaKind.AUDIO))
        case "file" if part:
            content.media.append(_read_data(part.file, MediaKind.FILE))
        case _:
            content.say(text_of(raw))


def _read_image(raw: msgspec.Raw) -> Media:
    image = _image(raw)
    if image is None:
        return inline(string(raw) or "")
    return inline(image.url, detail=image.detail)


def _read_data(raw: msgspec.Raw, kind: MediaKind) -> Media:
    data = _data(raw) or _Data()
    return inline(data.data or data.file_data, kind)


def _proposed(message: _Message) -> list[Proposed]:
    calls = [_read_call(raw) for raw in array(message.tool_calls) or ()]
    if bytes(message.function_call) != b"null":
        calls.append(_read_function("", message.function_call))
    return calls


def _read_call(raw: msgspec.Raw) -> Proposed:
    call = _call(raw)
    if call is None:
        return Proposed("", "", text_of(raw))
    custom = bytes(call.custom) != b"null"
    return _read_function(text_of(call.id), call.custom if custom else call.function)


def _read_function(id_: str, raw: msgspec.Raw) -> Proposed:
    function = _function(raw)
    if function is None:
        return Proposed(id_, "", text_of(raw))
    return Proposed(id_, text_of(function.name), text_of(function.arguments) or text_of(function.input))


def _unread(message: _Message, read: tuple[ReasoningPart, ...]) -> list[str]:
    """Reasoning fields of a shape that is not known, as their own text: they cost tokens all the same."""
    if read:
        return []
    fields = (message.reasoning_details, message.reasoning_content, message.reasoning)
    return [next((text for text in map(text_of, fields) if text), "")]


def _inline(role: str, said: str) -> tuple[ReasoningPart, ...]:
    """What an assistant said between `<think>` tags. It stays part of the text."""
    if role != "assistant" or ">" not in said:
        return ()
    thought, _ = split_inline(said)
    return (ReasoningPart(kind=ReasoningKind.INLINE_TAG, text=thought),) if thought else ()
