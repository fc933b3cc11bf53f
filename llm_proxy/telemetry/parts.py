"""Messages and their parts in the vocabulary of OpenTelemetry's GenAI conventions, and a reply told in it.

Source: https://github.com/open-telemetry/semantic-conventions-genai (input and output message schemas).
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import ReasoningKind
from llm_proxy.chat.reply import ChoiceReply, ReasoningPart, Reply, ToolCall

UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeError)
"""What decoding a body that a caller made up can raise."""


class TextPart(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="text"):
    content: str
    refusal: bool = False


class ReasoningContent(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="reasoning"):
    """`kind` is a `ReasoningKind`; what only the vendor can read is in `encrypted_content`."""

    content: str
    kind: str = ""
    encrypted_content: str = ""
    redacted: bool = False


class ToolCallPart(msgspec.Struct, frozen=True, tag_field="type", tag="tool_call"):
    """`arguments` is JSON where the model wrote JSON, else its text."""

    id: str
    name: str
    arguments: msgspec.Raw | str


class ToolResponsePart(msgspec.Struct, frozen=True, tag_field="type", tag="tool_call_response"):
    id: str
    response: str


class UriPart(msgspec.Struct, frozen=True, tag_field="type", tag="uri"):
    modality: str
    uri: str


class BlobPart(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="blob"):
    """Inline data, left out of the span: `bytes` is the length of its text and `sha256` that text's hash."""

    modality: str
    content: str
    mime_type: str = ""
    bytes: int = 0
    sha256: str = ""


class FilePart(msgspec.Struct, frozen=True, tag_field="type", tag="file"):
    modality: str
    file_id: str


Part = (
    TextPart
    | ReasoningContent
    | ToolCallPart
    | ToolResponsePart
    | UriPart
    | BlobPart
    | FilePart
    | msgspec.Raw
)
"""`msgspec.Raw` is a part of a type not listed here, as its sender wrote it."""


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """`trimmed` is True where parts were left out or shortened to fit a backend's limit."""

    role: str
    parts: tuple[Part, ...]
    finish_reason: str | None = None
    name: str = ""
    trimmed: bool = False


def reply_messages(reply: Reply) -> tuple[Message, ...]:
    """One message per choice, each with a `finish_reason`: `error` where the choice was cut."""
    return tuple(
        Message(role="assistant", parts=tuple(_reply_parts(c)), finish_reason=finish_reason(c.finish))
        for c in reply.choices
    )


def finish_reason(word: str) -> str:
    """The conventions' word for a dialect's finish reason."""
    match word:
        case "tool_calls" | "function_call" | "tool_use":
            return "tool_call"
        case "":
            return "error"
        case _:
            return word


def _reply_parts(choice: ChoiceReply) -> list[Part]:
    parts: list[Part] = [reasoning_content(r) for r in choice.reasoning]
    if choice.text:
        parts.append(TextPart(choice.text))
    if choice.refusal:
        parts.append(TextPart(choice.refusal, refusal=True))
    parts.extend(_tool_call(c) for c in choice.calls)
    return parts


def reasoning_content(part: ReasoningPart) -> ReasoningContent:
    match part.kind:
        case ReasoningKind.ENCRYPTED:
            return ReasoningContent("", part.kind, encrypted_content=part.text)
        case ReasoningKind.REDACTED:
            return ReasoningContent("", part.kind, encrypted_content=part.text, redacted=True)
        case _:
            return ReasoningContent(part.text, part.kind)


def _tool_call(call: ToolCall) -> Part:
    return ToolCallPart(call.id, call.name, json_or_text(call.arguments))


def json_or_text(text: str) -> msgspec.Raw | str:
    """Arguments as a span shows them: the JSON itself, or the text where it is none."""
    try:
        # Encoded again, because whitespace that JSON allows would break a reader of JSON lines.
        return msgspec.Raw(msgspec.json.encode(msgspec.json.decode(text)))
    except UNREADABLE:
        return text
