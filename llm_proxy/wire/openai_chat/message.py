"""OpenAI chat completions, one message of the history: what it says, what it answers, what it proposed.

Content comes from a caller who may send anything: what has no known shape is counted as its own JSON text.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import ReasoningKind
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.chat.thinking import split_inline
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_chat.history import NONE, Reasoned, lenient, read_reasoned
from llm_proxy.wire.openai_chat.signed import signed
from llm_proxy.wire.request import Answered, Media, MediaKind, MessageFacts, Proposed
from llm_proxy.wire.spans import DuplicateKey, refuse_duplicates

__all__ = ["message_facts", "signed"]


class _Message(Reasoned):
    """Every value raw: one of an unexpected type must not hide the others."""

    role: msgspec.Raw = NONE
    name: msgspec.Raw = NONE
    refusal: msgspec.Raw = NONE
    tool_call_id: msgspec.Raw = NONE
    tool_calls: msgspec.Raw = NONE
    function_call: msgspec.Raw = NONE


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What most messages are."""

    role: str
    content: str


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
_plain = msgspec.json.Decoder(_Plain).decode
_part = lenient(_Part)
_call = lenient(_Call)
_function = lenient(_Function)
_image = lenient(_Image)
_data = lenient(_Data)
_string = lenient(str)
_list = lenient(list[msgspec.Raw])


class _Content:
    """What a message's parts add up to, while they are read."""

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
    content = _read_content(message.content)
    proposed = _proposed(message)
    name = _text(message.name)
    said = "\n".join(content.spoken)
    reasoning = read_reasoned(message)
    # Mistral's thinking parts stand among the content's texts already.
    thoughts = [part.text for part in reasoning if part.text not in content.texts]
    texts = [name, *content.texts, _text(message.refusal), *thoughts, *_unread(message, reasoning)]
    texts += [text for call in proposed for text in (call.name, call.arguments)]
    return MessageFacts(
        role=role,
        texts=tuple([text for text in texts if text]),
        images=tuple(content.media),
        results=_results(role, _text(message.tool_call_id), name, said),
        proposed=tuple(proposed),
        reasoning=reasoning + _inline(role, said),
        user_text=said if role == "user" else "",
    )


def _results(role: str, call_id: str, name: str, said: str) -> tuple[Answered, ...]:
    id_ = call_id if role == "tool" else name if role == "function" else ""
    return (Answered(id_, said),) if id_ else ()


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
    if role in ("tool", "function"):
        return None
    return MessageFacts(
        role=role,
        texts=(text,) if text else (),
        reasoning=_inline(role, text),
        user_text=text if role == "user" else "",
    )


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


def _read_content(raw: msgspec.Raw) -> _Content:
    content = _Content()
    parts = _list(raw)
    if parts is None:
        content.say(_text(raw))
        return content
    for part in parts:
        _read_part(part, content)
    return content


def _read_part(raw: msgspec.Raw, content: _Content) -> None:
    part = _part(raw)
    match _string(part.type) if part else None:
        case "text" | "input_text" | "output_text" if part:
            content.say(_text(part.text))
        case "refusal" if part:
            content.texts.append(_text(part.refusal))
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
            content.say(_text(raw))


def _read_image(raw: msgspec.Raw) -> Media:
    image = _image(raw)
    if image is None:
        return Media(size=_inline_size(_string(raw) or ""))
    return Media(detail=image.detail, size=_inline_size(image.url))


def _read_data(raw: msgspec.Raw, kind: MediaKind) -> Media:
    data = _data(raw) or _Data()
    return Media(size=len(data.data) or _inline_size(data.file_data), kind=kind)


def _inline_size(url: str) -> int:
    """Characters of base64 in a data URL, or in bare base64 where no scheme stands before it."""
    head, comma, _ = url.partition(",")
    if head.startswith("data:"):
        return len(url) - len(head) - len(comma)
    return 0 if "://" in url[:16] else len(url)


def _proposed(message: _Message) -> list[Proposed]:
    calls = [_read_call(raw) for raw in _list(message.tool_calls) or ()]
    if bytes(message.function_call) != b"null":
        calls.append(_read_function("", message.function_call))
    return calls


def _read_call(raw: msgspec.Raw) -> Proposed:
    call = _call(raw)
    if call is None:
        return Proposed("", "", _text(raw))
    custom = bytes(call.custom) != b"null"
    return _read_function(_text(call.id), call.custom if custom else call.function)


def _read_function(id_: str, raw: msgspec.Raw) -> Proposed:
    function = _function(raw)
    if function is None:
        return Proposed(id_, "", _text(raw))
    return Proposed(id_, _text(function.name), _text(function.arguments) or _text(function.input))


def _unread(message: _Message, read: tuple[ReasoningPart, ...]) -> list[str]:
    """Reasoning fields of a shape that is not known, as their own text: they cost tokens all the same."""
    if read:
        return []
    fields = (message.reasoning_details, message.reasoning_content, message.reasoning)
    return [next((text for text in map(_text, fields) if text), "")]


def _inline(role: str, said: str) -> tuple[ReasoningPart, ...]:
    """What an assistant said between `<think>` tags. It stays part of the text."""
    if role != "assistant" or ">" not in said:
        return ()
    thought, _ = split_inline(said)
    return (ReasoningPart(kind=ReasoningKind.INLINE_TAG, text=thought),) if thought else ()


def _text(raw: msgspec.Raw) -> str:
    """A string's text; nothing for null; any other value's own JSON text."""
    text = _string(raw)
    if text is not None:
        return text
    return "" if bytes(raw) == b"null" else _as_text(bytes(raw))


def _as_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
