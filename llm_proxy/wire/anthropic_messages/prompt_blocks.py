"""Anthropic Messages, the content blocks of a request as neutral parts.

A block that only Anthropic's own servers act on (their tools' calls and results) is left out and named. One
of unknown type is left out of an assistant's message, which the model wrote itself, and refused in a user's.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.events import ANTHROPIC_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import (
    CallPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    ResultPart,
    Role,
    TextPart,
    ThoughtPart,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire import seal
from llm_proxy.wire.anthropic_messages import prompt_schema as schema
from llm_proxy.wire.anthropic_messages.prompt_schema import said
from llm_proxy.wire.faults import decoded, invalid, unsupported

Said = TextPart | ImagePart | FilePart

_WORDS = (ReasoningKind.RAW, ReasoningKind.SUMMARY, ReasoningKind.INLINE_TAG)
_LEFT_OUT = frozenset({"tool_reference", "browser_state", "container_upload"})
"""Blocks of a user's message that mean nothing to another vendor; the tools they name are declared anyway."""

_string = msgspec.json.Decoder(str | None).decode
_source = msgspec.json.Decoder(schema.Source).decode
_content = msgspec.json.Decoder(str | list[schema.Block] | None).decode
_web_source = msgspec.json.Decoder(str).decode


class BlockReader:
    """Reads the blocks of one request. `dropped` gathers what they say and parts can't hold, each once."""

    __slots__ = ("dropped",)

    def __init__(self) -> None:
        self.dropped: dict[str, None] = {}

    def drop(self, name: str) -> None:
        self.dropped[name] = None

    def marked(self, marker: schema.Marker | None) -> bool:
        if marker is not None and marker.ttl not in (None, "5m"):
            self.drop("cache_control.ttl")
        return marker is not None

    def texts(self, content: str | list[schema.Block] | None, where: str) -> tuple[TextPart, ...]:
        """A system prompt, which holds text alone."""
        parts: list[TextPart] = []
        for index, block in _indexed(content):
            if block.type != "text":
                raise unsupported(
                    f"{where}[{index}] is a {block.type} block: a system prompt holds text blocks", where
                )
            parts.append(self._text(block, f"{where}[{index}]"))
        return tuple(parts)

    def message(self, message: schema.Message, where: str) -> Message:
        match message.role:
            case "user":
                parts = self._user(_blocks(message.content), where)
                return Message(role=Role.USER, parts=tuple(parts))
            case "assistant":
                parts = self._assistant(_blocks(message.content), where)
                return Message(role=Role.ASSISTANT, parts=tuple(parts))
            case "system":
                return Message(role=Role.SYSTEM, parts=self.texts(message.content, f"{where}.content"))
            case role:
                raise invalid(f"{where}.role is {role!r}: send user, assistant or system", f"{where}.role")

    def _user(self, blocks: Sequence[schema.Block], where: str) -> list[Part]:
        parts: list[Part] = []
        for index, block in enumerate(blocks):
            place = f"{where}.content[{index}]"
            if block.type == "tool_result":
                parts.append(self._result(block, place))
            elif _is_server_block(block.type):
                self.drop(f"{where} ({block.type})")
            else:
                parts += self._said(block, where, place)
        return parts

    def _said(self, block: schema.Block, where: str, place: str) -> list[Said]:
        """What stands in a person's message or a tool's result."""
        match block.type:
            case "text":
                return [self._text(block, place)]
            case "image":
                return [self._image(block, place)]
            case "document":
                return self._document(block, place)
            case "search_result":
                return [self._search_result(block, place)]
            case kind if kind in _LEFT_OUT:
                self.drop(f"{where} ({kind})")
                return []
            case kind:
                raise unsupported(
                    f"{place} is a {kind} block, which only an upstream that speaks Anthropic Messages can be"
                    " given: send text, image, document or tool_result blocks",
                    place,
                )

    def _assistant(self, blocks: Sequence[schema.Block], where: str) -> list[Part]:
        parts: list[Part] = []
        seals: dict[str, str] = {}
        for index, block in enumerate(blocks):
            place = f"{where}.content[{index}]"
            match block.type:
                case "text":
                    parts.append(self._text(block, place))
                case "tool_use":
                    parts.append(self._call(block, seals, place))
                case "thinking":
                    parts += _thinking(block, place)
                case "redacted_thinking":
                    thought = _redacted(block, place)
                    if _seals_a_call(thought):
                        seals[thought.id] = thought.signature
                    else:
                        parts.append(ThoughtPart(thought=thought))
                case "compaction" if said(block.content):
                    parts.append(TextPart(text=_text_of(block.content, f"{place}.content")))
                case kind:
                    self.drop(f"{where} ({kind})")
        return parts

    def _text(self, block: schema.Block, place: str) -> TextPart:
        if said(block.citations):
            self.drop("messages.citations")
        return TextPart(text=_text_of(block.text, f"{place}.text"), cache=self.marked(block.cache_control))

    def _image(self, block: schema.Block, place: str) -> ImagePart:
        source = decoded(_source, bytes(block.source) or b"null", f"{place}.source")
        cache = self.marked(block.cache_control)
        match source.type:
            case "base64":
                return ImagePart(data=source.data or "", media_type=source.media_type or "", cache=cache)
            case "url":
                return ImagePart(url=source.url or "", cache=cache)
            case "file":
                return ImagePart(file_id=source.file_id or "", cache=cache)
            case kind:
                raise unsupported(
                    f"{place}.source is of type {kind!r}: send an image as base64, url or file", place
                )

    def _document(self, block: schema.Block, place: str) -> list[Said]:
        source = decoded(_source, bytes(block.source) or b"null", f"{place}.source")
        for field, value in (("citations", block.citations), ("context", block.context)):
            if said(value) and bytes(value).replace(b" ", b"") != b'{"enabled":false}':
                self.drop(f"messages.{field}")
        name = _text_of(block.title, f"{place}.title")
        cache = self.marked(block.cache_control)
        match source.type:
            case "base64":
                media_type = source.media_type or "application/pdf"
                return [FilePart(name=name, data=source.data or "", media_type=media_type, cache=cache)]
            case "text":
                return [FilePart(name=name, text=source.data or "", media_type="text/plain", cache=cache)]
            case "url":
                return [FilePart(name=name, url=source.url or "", cache=cache)]
            case "file":
                return [FilePart(name=name, file_id=source.file_id or "", cache=cache)]
            case "content":
                return self._composed(source, name, cache=cache, place=place)
            case kind:
                raise unsupported(
                    f"{place}.source is of type {kind!r}: send a document as base64, text, url, file or"
                    " content",
                    place,
                )

    def _composed(self, source: schema.Source, name: str, *, cache: bool, place: str) -> list[Said]:
        """A document made of blocks: its text as one file, its images behind it."""
        inner = f"{place}.source"
        blocks = _blocks(source.content)
        parts = [p for i, b in enumerate(blocks) for p in self._said(b, inner, f"{inner}.content[{i}]")]
        text = "\n\n".join([part.text for part in parts if isinstance(part, TextPart)])
        others = [part for part in parts if not isinstance(part, TextPart)]
        return [FilePart(name=name, text=text, media_type="text/plain", cache=cache), *others]

    def _search_result(self, block: schema.Block, place: str) -> TextPart:
        """A search result of the caller's own, as text that names its source."""
        body = self.texts(
            decoded(_content, bytes(block.content) or b"null", f"{place}.content"), f"{place}.content"
        )
        source = decoded(_web_source, bytes(block.source) or b'""', f"{place}.source")
        head = [text for text in (_text_of(block.title, f"{place}.title"), source) if text]
        lines = ["\n".join(head), *(part.text for part in body)]
        return TextPart(
            text="\n\n".join([line for line in lines if line]), cache=self.marked(block.cache_control)
        )

    def _call(self, block: schema.Block, seals: dict[str, str], place: str) -> CallPart:
        arguments = bytes(block.input) if said(block.input) else b"{}"
        id_ = _text_of(block.id, f"{place}.id")
        return CallPart(
            id=id_,
            name=_text_of(block.name, f"{place}.name"),
            arguments=arguments.decode(),
            signature=seals.get(id_, ""),
            cache=self.marked(block.cache_control),
        )

    def _result(self, block: schema.Block, place: str) -> ResultPart:
        content = decoded(_content, bytes(block.content) or b"null", f"{place}.content")
        parts = [part for i, b in _indexed(content) for part in self._said(b, place, f"{place}.content[{i}]")]
        return ResultPart(
            call_id=_text_of(block.tool_use_id, f"{place}.tool_use_id"),
            parts=tuple(parts),
            is_error=bool(block.is_error),
            cache=self.marked(block.cache_control),
        )


def _blocks(content: str | list[schema.Block] | None) -> list[schema.Block]:
    if isinstance(content, str):
        return [schema.Block(type="text", text=msgspec.Raw(msgspec.json.encode(content)))] if content else []
    return content or []


def _indexed(content: str | list[schema.Block] | None) -> enumerate[schema.Block]:
    return enumerate(_blocks(content))


def _text_of(raw: msgspec.Raw, place: str) -> str:
    return decoded(_string, raw, place) or "" if bytes(raw) else ""


def _is_server_block(kind: str) -> bool:
    """What Anthropic's servers or MCP connector called and answered themselves."""
    return kind in ("server_tool_use", "mcp_tool_use") or kind.endswith("_tool_result")


def _thinking(block: schema.Block, place: str) -> list[Part]:
    """A thinking block as it was issued, or what `render_parts` carried in one."""
    words = _text_of(block.thinking, f"{place}.thinking")
    signature = _text_of(block.signature, f"{place}.signature")
    carried = seal.unwrap(signature)
    if carried is None:
        thought = ReasoningPart(
            kind=ReasoningKind.RAW,
            text=words,
            signature=signature,
            format=ANTHROPIC_FORMAT if signature else "",
        )
        return [ThoughtPart(thought=thought)]
    if carried.kind in _WORDS:
        return [ThoughtPart(thought=msgspec.structs.replace(carried, text=words))]
    told = ReasoningPart(kind=ReasoningKind.SUMMARY, text=words, id=carried.id, format=carried.format)
    return [*([ThoughtPart(thought=told)] if words else []), ThoughtPart(thought=carried)]


def _redacted(block: schema.Block, place: str) -> ReasoningPart:
    data = _text_of(block.data, f"{place}.data")
    return seal.unwrap(data) or ReasoningPart(kind=ReasoningKind.REDACTED, text=data, format=ANTHROPIC_FORMAT)


def _seals_a_call(thought: ReasoningPart) -> bool:
    """Whether it is the seal of the call whose id it carries: see `render_parts.call_seal`."""
    return thought.kind is ReasoningKind.ENCRYPTED and not thought.text and bool(thought.signature)
