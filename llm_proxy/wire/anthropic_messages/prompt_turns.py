"""Anthropic Messages, the conversation of a prompt as turns of content blocks."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote_to_bytes

import msgspec

from llm_proxy.chat.events import ANTHROPIC_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import (
    AudioPart,
    CallPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    ResultPart,
    Role,
    TextPart,
    ThoughtPart,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.anthropic_messages import prompt_out as out
from llm_proxy.wire.anthropic_messages.call_input import input_object
from llm_proxy.wire.faults import unsupported
from llm_proxy.wire.toolids import fitting

LONGEST_ID = 64
FILLER = "."
"""What a person says where a conversation has to open with a person and doesn't."""

_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),(.*)", re.DOTALL)
_MEDIA_TYPES = {"image/jpg": "image/jpeg"}
_PDF = "application/pdf"


def turns(messages: Iterable[Message], dropped: dict[str, None]) -> list[out.Turn]:
    """User and assistant turns that alternate and open with a user's; system messages are not among them.

    Neighbours of one role are one turn, in which results come first. Text that is empty or blank, which
    Anthropic refuses, is left out, and so is blank space behind the text that an assistant ends the
    conversation with. What can't be said is added to `dropped`. Raises `ProxyError` (unsupported_feature).
    """
    said: list[out.Turn] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        blocks = [block for part in message.parts for block in _blocks(part, dropped)]
        if message.name:
            dropped["messages.name"] = None
        if not blocks:
            continue
        if said and said[-1].role == message.role.value:
            said[-1].content += blocks
        else:
            said.append(out.Turn(role=message.role.value, content=blocks))
    for turn in said:
        turn.content.sort(key=lambda block: turn.role == "user" and not isinstance(block, out.ToolResult))
    if not said or said[0].role != "user":
        said.insert(0, out.Turn(role="user", content=[out.Text(text=FILLER)]))
    _strip_ending(said[-1])
    return said


def lacks_thinking(said: Sequence[out.Turn]) -> bool:
    """Whether the conversation ends in results of calls before which no thinking stands.

    Anthropic refuses a thinking budget there: the turn that the calls opened has to start with thinking.
    """
    if len(said) < 2 or not any(isinstance(block, out.ToolResult) for block in said[-1].content):
        return False
    first = len(said) - 2
    while first >= 2 and all(isinstance(block, out.ToolResult) for block in said[first - 1].content):
        first -= 2
    return not isinstance(said[first].content[0], out.Thinking | out.RedactedThinking)


def prefilled(said: Sequence[out.Turn]) -> bool:
    """Whether the model is to go on with words of its own: Anthropic takes no thinking budget beside them."""
    return said[-1].role == "assistant"


def text_blocks(parts: Iterable[TextPart]) -> list[out.Text]:
    return [out.Text(text=p.text, cache_control=_marker(cache=p.cache)) for p in parts if p.text.strip()]


def _strip_ending(turn: out.Turn) -> None:
    last = turn.content[-1]
    if turn.role == "assistant" and isinstance(last, out.Text):
        last.text = last.text.rstrip()


def _blocks(part: Part, dropped: dict[str, None]) -> Sequence[out.Block]:
    match part:
        case TextPart():
            return text_blocks((part,))
        case RefusalPart():
            return text_blocks((TextPart(text=part.text),))
        case ImagePart() | FilePart():
            return [_media(part, dropped)]
        case CallPart():
            if part.signature:
                dropped["reasoning"] = None
            return [_call(part)]
        case ResultPart():
            return [_result(part, dropped)]
        case ThoughtPart():
            return _thought(part.thought, dropped)
        case AudioPart():
            raise unsupported(
                "The target speaks Anthropic Messages, which takes no audio: send text or another model",
                "messages",
            )


def _thought(thought: ReasoningPart, dropped: dict[str, None]) -> Sequence[out.Block]:
    """What Anthropic issued goes back as it was; what others did is nothing to it."""
    if thought.format == ANTHROPIC_FORMAT:
        if thought.kind is ReasoningKind.REDACTED:
            return [out.RedactedThinking(data=thought.text)]
        if thought.signature and thought.kind is not ReasoningKind.ENCRYPTED:
            return [out.Thinking(thinking=thought.text, signature=thought.signature)]
    dropped["reasoning"] = None
    return []


def _call(call: CallPart) -> out.ToolUse:
    return out.ToolUse(
        id=fitting(call.id, LONGEST_ID),
        name=call.name,
        input=msgspec.Raw(input_object(call.arguments, custom=call.custom)),
        cache_control=_marker(cache=call.cache),
    )


def _result(result: ResultPart, dropped: dict[str, None]) -> out.ToolResult:
    content: list[out.Said] = []
    for part in result.parts:
        if isinstance(part, TextPart):
            content += text_blocks((part,))
        else:
            content.append(_media(part, dropped))
    only = content[0] if len(content) == 1 else None
    plain = only.text if isinstance(only, out.Text) and only.cache_control is None else None
    return out.ToolResult(
        tool_use_id=fitting(result.call_id, LONGEST_ID),
        content=content if plain is None and content else plain or "",
        is_error=result.is_error,
        cache_control=_marker(cache=result.cache),
    )


def _media(part: ImagePart | FilePart, dropped: dict[str, None]) -> out.Image | out.Document:
    marker = _marker(cache=part.cache)
    if isinstance(part, ImagePart):
        if part.detail not in ("", "auto"):
            dropped["detail"] = None
        return out.Image(source=_image_source(part), cache_control=marker)
    data, media_type = _inline(part.data or part.url, part.media_type or _guessed(part.name))
    if media_type.startswith("image/") and data:
        return out.Image(source=out.Base64(media_type, data), cache_control=marker)
    source = _document_source(part, data, media_type)
    return out.Document(source=source, title=part.name, cache_control=marker)


def _image_source(part: ImagePart) -> out.Base64 | out.Url | out.File:
    if part.file_id:
        return out.File(part.file_id)
    data, media_type = _inline(part.data or part.url, part.media_type or "image/png")
    return out.Base64(media_type, data) if data else out.Url(part.url)


def _document_source(
    part: FilePart, data: str, media_type: str
) -> out.Base64 | out.Plain | out.Url | out.File:
    if part.file_id:
        return out.File(part.file_id)
    if not data:
        return out.Plain(part.text) if part.text else out.Url(part.url)
    if media_type == _PDF:
        return out.Base64(media_type, data)
    if media_type.startswith("text/") or media_type in ("application/json", "application/xml"):
        try:
            return out.Plain(base64.b64decode(data).decode())
        except ValueError:
            pass
    raise unsupported(
        f"A file of type {media_type} can't be given to Anthropic Messages: send a PDF, text or an image",
        "messages",
    )


def _inline(value: str, media_type: str) -> tuple[str, str]:
    """Base64 data and its type, out of base64 or a data URL; no data for any other URL."""
    if value.startswith(("http:", "https:")):
        return "", media_type
    if found := _DATA_URL.match(value):
        media_type = found[1] or media_type
        value = found[3]
        if ";base64" not in found[2]:
            value = base64.b64encode(unquote_to_bytes(value)).decode()
    return value, _MEDIA_TYPES.get(media_type, media_type)


def _guessed(name: str) -> str:
    return "text/plain" if name.lower().endswith((".txt", ".md", ".csv", ".json", ".html")) else _PDF


def _marker(*, cache: bool) -> msgspec.Raw | None:
    return out.EPHEMERAL if cache else None
