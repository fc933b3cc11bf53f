"""OpenAI Responses, the parts of a message's content and of a tool's output, in neutral terms."""

from __future__ import annotations

from collections.abc import Sequence

from llm_proxy.chat.prompt import AudioPart, FilePart, ImagePart, RefusalPart, TextPart
from llm_proxy.wire.faults import invalid, unsupported
from llm_proxy.wire.lenient import NONE
from llm_proxy.wire.openai_responses import prompt_schema as schema

Spoken = TextPart | RefusalPart
Shown = TextPart | ImagePart | FilePart
Said = Shown | RefusalPart | AudioPart

_TEXTS = ("input_text", "output_text", "text")
_PDF = "application/pdf"
"""What `file_data` without a media type is taken for."""


def read_said(content: str | Sequence[schema.Content] | None, where: str) -> tuple[Said, ...]:
    """A message's content. Raises `ProxyError`: unsupported_feature for a part of no known type."""
    if content is None or isinstance(content, str):
        return (TextPart(text=content),) if content else ()
    return tuple([_read(part, f"{where}.content[{index}]") for index, part in enumerate(content)])


def read_spoken(content: str | Sequence[schema.Content] | None, where: str) -> tuple[Spoken, ...]:
    """What an assistant said. Raises `ProxyError` as `read_said` does, and where it is not words."""
    spoken: list[Spoken] = []
    for index, part in enumerate(read_said(content, where)):
        if not isinstance(part, TextPart | RefusalPart):
            raise _misplaced(f"{where}.content[{index}]", "an assistant's message holds text")
        spoken.append(part)
    return tuple(spoken)


def read_texts(content: str | Sequence[schema.Content] | None, where: str) -> tuple[TextPart, ...]:
    """What a system or developer message says. Raises `ProxyError` where it is not text."""
    texts: list[TextPart] = []
    for index, part in enumerate(read_said(content, where)):
        if not isinstance(part, TextPart):
            raise _misplaced(f"{where}.content[{index}]", "a system or developer message holds text")
        texts.append(part)
    return tuple(texts)


def read_shown(output: str | Sequence[schema.Content] | None, where: str) -> tuple[Shown, ...]:
    """What a tool answered. Raises `ProxyError` where it is not text, an image or a file."""
    if output is None or isinstance(output, str):
        return (TextPart(text=output),) if output else ()
    shown: list[Shown] = []
    for index, part in enumerate(output):
        read = _read(part, f"{where}.output[{index}]")
        if not isinstance(read, TextPart | ImagePart | FilePart):
            raise _misplaced(f"{where}.output[{index}]", "an output holds text, images and files")
        shown.append(read)
    return tuple(shown)


def _read(part: schema.Content, where: str) -> Said:
    kind = part.type
    if kind in _TEXTS:
        return TextPart(text=part.text or "", cache=_marked(part))
    if kind == "refusal":
        return RefusalPart(text=part.refusal or "")
    if kind == "input_image":
        return _image(part, where)
    if kind == "input_file":
        return _file(part, where)
    if kind == "input_audio":
        audio = part.input_audio
        if audio is None or not audio.data:
            raise invalid(f"{where}.input_audio.data is missing: send base64", f"{where}.input_audio")
        return AudioPart(data=audio.data, format=audio.format or "")
    raise unsupported(
        f"{where} is of type {kind!r}, which can't be carried over to this model's vendor: send text, "
        "images, files or audio, or choose a model that speaks the Responses API",
        where,
    )


def _image(part: schema.Content, where: str) -> ImagePart:
    detail = "" if part.detail in (None, "auto") else part.detail or ""
    url = part.image_url or ""
    if url.startswith("data:"):
        media_type, data = _data_url(url, f"{where}.image_url")
        return ImagePart(data=data, media_type=media_type, detail=detail, cache=_marked(part))
    if not url and not part.file_id:
        raise invalid(f"{where} names no image: send image_url or file_id", where)
    return ImagePart(url=url, file_id="" if url else part.file_id or "", detail=detail, cache=_marked(part))


def _file(part: schema.Content, where: str) -> FilePart:
    name, cache = part.filename or "", _marked(part)
    if data := part.file_data:
        media_type = _PDF
        if data.startswith("data:"):
            media_type, data = _data_url(data, f"{where}.file_data")
        return FilePart(name=name, data=data, media_type=media_type, cache=cache)
    if part.file_url:
        return FilePart(name=name, url=part.file_url, cache=cache)
    if part.file_id:
        return FilePart(name=name, file_id=part.file_id, cache=cache)
    raise invalid(f"{where} names no file: send file_data, file_url or file_id", where)


def _data_url(url: str, where: str) -> tuple[str, str]:
    """The media type and the base64 of a `data:` URL."""
    head, comma, data = url.partition(",")
    kind, *attributes = head.removeprefix("data:").split(";")
    if not comma or "base64" not in attributes:
        raise invalid(f"{where} is not data:<media type>;base64,<data>: send base64", where)
    return kind, data


def _marked(part: schema.Content) -> bool:
    return part.prompt_cache_breakpoint != NONE


def _misplaced(where: str, what: str) -> Exception:
    return invalid(f"{where} has another type: {what}", where)


def has_annotations(content: str | Sequence[schema.Content] | None) -> bool:
    return bool(content) and not isinstance(content, str) and any(part.annotations for part in content)
