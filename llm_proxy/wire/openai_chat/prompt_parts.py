"""OpenAI chat completions, a request's messages read into neutral parts.

The legacy `function_call` has no id, so one is made from its name and its place among such calls
(`call_1_lookup`); a `function` message answers the last call of its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

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
from llm_proxy.wire.faults import invalid, unsupported
from llm_proxy.wire.openai_chat import prompt_schema as schema
from llm_proxy.wire.openai_chat.history import reasoning_of
from llm_proxy.wire.openai_chat.reasoning import thought_signature

_THOUGHTS = ("thinking",)
"""Parts of an assistant's content that `reasoning_of` reads."""
_PDF = "application/pdf"

_raws = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Conversation(msgspec.Struct, kw_only=True):
    """What the messages come to. `dropped` names what they hold that can't be carried."""

    system: tuple[TextPart, ...] = ()
    messages: tuple[Message, ...] = ()
    dropped: tuple[str, ...] = ()


def read_messages(messages: Sequence[schema.Message], raws: Sequence[bytes]) -> Conversation:
    """Every message, in order. `raws` are their own bytes. Raises `ProxyError` that names the place."""
    reader = _Reader()
    for index, (message, raw) in enumerate(zip(messages, raws, strict=True)):
        reader.read(f"messages[{index}]", message, raw)
    return reader.conversation()


class _Reader:
    """One request's messages, read in order."""

    __slots__ = ("_customs", "_dropped", "_legacy", "_messages", "_results", "_system")

    def __init__(self) -> None:
        self._system: list[TextPart] = []
        self._messages: list[Message] = []
        self._results: list[Part] = []
        """Results of tools that follow each other, still without their message."""
        self._customs: set[str] = set()
        """Ids of calls of freeform tools."""
        self._legacy: list[CallPart] = []
        self._dropped: dict[str, None] = {}

    def conversation(self) -> Conversation:
        self._end_results()
        return Conversation(
            system=tuple(self._system), messages=tuple(self._messages), dropped=tuple(self._dropped)
        )

    def read(self, where: str, message: schema.Message, raw: bytes) -> None:
        self._note_unread(where, raw)
        if message.role in ("tool", "function"):
            self._results.append(self._result(where, message))
            return
        self._end_results()
        name = message.name or ""
        match message.role:
            case "system" | "developer":
                said = _marked(self._parts(where, message), message)
                texts = tuple([_as_text(where, part) for part in said])
                if self._messages:
                    self._messages.append(Message(role=Role.SYSTEM, parts=texts, name=name))
                    return
                self._system += texts
                if name:
                    self._drop(f"{where}.name")
            case "user":
                parts = tuple(_marked(self._parts(where, message), message))
                self._messages.append(Message(role=Role.USER, parts=parts, name=name))
            case "assistant":
                parts = self._assistant(where, message, raw)
                self._messages.append(Message(role=Role.ASSISTANT, parts=parts, name=name))
            case _:
                raise invalid(
                    f"{where} has the role {message.role!r}: use system, developer, user, assistant or tool",
                    f"{where}.role",
                )

    def _assistant(self, where: str, message: schema.Message, raw: bytes) -> tuple[Part, ...]:
        said = _marked(self._parts(where, message), message)
        calls = [
            self._call(f"{where}.tool_calls[{index}]", call)
            for index, call in enumerate(message.tool_calls or ())
        ]
        if function := message.function_call:
            call = CallPart(
                id=f"call_{len(self._legacy) + 1}_{function.name}",
                name=function.name,
                arguments=function.arguments or "{}",
            )
            self._legacy.append(call)
            calls.append(call)
        refusal = [RefusalPart(text=message.refusal)] if message.refusal else []
        thoughts = [ThoughtPart(thought=thought) for thought in reasoning_of(raw)]
        return (*thoughts, *said, *refusal, *calls)

    def _call(self, where: str, call: schema.Call) -> CallPart:
        id_, cache = call.id or "", self._cache(call.cache_control)
        if custom := call.custom:
            self._customs.add(id_)
            return CallPart(id=id_, name=custom.name, arguments=custom.input or "", custom=True, cache=cache)
        if call.function is None:
            raise invalid(f"{where} has no function: send its name and arguments", where)
        return CallPart(
            id=id_,
            name=call.function.name,
            arguments=call.function.arguments or "{}",
            signature=thought_signature(call.extra_content),
            cache=cache,
        )

    def _result(self, where: str, message: schema.Message) -> ResultPart:
        id_ = message.tool_call_id or ""
        if message.role == "function":
            of_name = [call.id for call in self._legacy if call.name == message.name]
            id_ = of_name[-1] if of_name else f"call_0_{message.name or ''}"
        elif not id_:
            raise invalid(f"{where} has no tool_call_id: name the call it answers", f"{where}.tool_call_id")
        parts: list[TextPart | ImagePart | FilePart] = []
        for part in self._parts(where, message):
            if not isinstance(part, TextPart | ImagePart | FilePart):
                raise unsupported(f"{where} holds a part that no tool can answer with: send text", where)
            parts.append(part)
        return ResultPart(
            call_id=id_,
            parts=tuple(parts),
            custom=id_ in self._customs,
            cache=self._cache(message.cache_control),
        )

    def _end_results(self) -> None:
        if self._results:
            self._messages.append(Message(role=Role.USER, parts=tuple(self._results)))
            self._results = []

    def _parts(self, where: str, message: schema.Message) -> list[Part]:
        """The content in parts, empty texts left out."""
        content = message.content
        if isinstance(content, str):
            return [TextPart(text=content)] if content else []
        parts: list[Part] = []
        for index, part in enumerate(content or ()):
            cache = self._cache(part.cache_control) or part.prompt_cache_breakpoint is not None
            at = f"{where}.content[{index}]"
            if read := _READ.get(part.type):
                parts += read(at, part, cache)
            elif message.role != "assistant":
                raise unsupported(
                    f"{at} is of type {part.type!r}, which a model of another vendor can't be sent: "
                    "send text, image_url, input_audio or file",
                    at,
                )
            elif part.type not in _THOUGHTS:
                self._drop(f"{at} ({part.type})")
        return parts

    def _cache(self, mark: schema.Cache | None) -> bool:
        if mark and mark.ttl:
            self._drop("cache_control.ttl")
        return mark is not None

    def _note_unread(self, where: str, raw: bytes) -> None:
        for key, value in _raws(raw).items():
            if key not in schema.MESSAGE_KEYS and bytes(value) not in (b"null", b"[]", b"{}"):
                self._drop(f"{where}.{key}")

    def _drop(self, what: str) -> None:
        self._dropped[what] = None


def _marked(parts: list[Part], message: schema.Message) -> list[Part]:
    """LiteLLM takes `cache_control` on a message, too: the breakpoint stands behind its last part."""
    last = parts[-1] if parts else None
    if message.cache_control is None or not isinstance(last, TextPart | ImagePart | FilePart):
        return parts
    return [*parts[:-1], msgspec.structs.replace(last, cache=True)]


def _as_text(where: str, part: Part) -> TextPart:
    if isinstance(part, TextPart):
        return part
    raise unsupported(f"{where} holds something other than text: send instructions as text", where)


def _read_text(where: str, part: schema.Part, cache: bool) -> list[Part]:  # noqa: FBT001
    return [TextPart(text=part.text, cache=cache)] if part.text else []


def _read_refusal(where: str, part: schema.Part, cache: bool) -> list[Part]:  # noqa: FBT001
    return [RefusalPart(text=part.refusal)] if part.refusal else []


def _read_image(where: str, part: schema.Part, cache: bool) -> list[Part]:  # noqa: FBT001
    image = part.image_url
    url, detail = (image.url, image.detail or "") if isinstance(image, schema.Image) else (image or "", "")
    if url.startswith(("https://", "http://")):
        return [ImagePart(url=url, detail=detail, cache=cache)]
    media_type, data = _data_url(url)
    if not media_type or not data:
        raise invalid(f"{where} is no image: send an http(s) URL or a base64 data URL", f"{where}.image_url")
    return [ImagePart(data=data, media_type=media_type, detail=detail, cache=cache)]


def _read_audio(where: str, part: schema.Part, cache: bool) -> list[Part]:  # noqa: FBT001
    audio = part.input_audio
    if audio is None or not audio.data:
        raise invalid(f"{where} holds no audio: send base64 in input_audio.data", f"{where}.input_audio")
    return [AudioPart(data=audio.data, format=audio.format or "")]


def _read_file(where: str, part: schema.Part, cache: bool) -> list[Part]:  # noqa: FBT001
    file = part.file or schema.File()
    name = file.filename or ""
    if file.file_data:
        media_type, data = _data_url(file.file_data)
        return [FilePart(name=name, data=data, media_type=media_type or _PDF, cache=cache)]
    if file.file_id:
        return [FilePart(name=name, file_id=file.file_id, cache=cache)]
    raise invalid(f"{where} holds no file: send file_data or file_id", f"{where}.file")


_READ: dict[str, Callable[[str, schema.Part, bool], list[Part]]] = {
    "text": _read_text,
    "refusal": _read_refusal,
    "image_url": _read_image,
    "input_audio": _read_audio,
    "file": _read_file,
}


def _data_url(url: str) -> tuple[str, str]:
    """Media type and base64 of a data URL; no media type for bare base64, nothing for another URL."""
    if not url.startswith("data:"):
        return ("", url) if "://" not in url[:16] else ("", "")
    head, _, data = url.removeprefix("data:").partition(",")
    media_type, *parameters = head.split(";")
    return (media_type, data) if "base64" in parameters else ("", "")
