"""OpenAI Responses, messages as the items of an input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from llm_proxy.chat.events import RESPONSES_FORMAT, ReasoningKind
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
from llm_proxy.wire.openai_responses import prompt_shapes as shapes
from llm_proxy.wire.toolids import fitting

LONGEST_ID = 64
"""Characters that OpenAI takes in a call's id."""

_DEFAULT_NAMES = {"application/pdf": "document.pdf", "text/plain": "document.txt"}
_Mention = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class ItemWriter:
    """Writes messages one by one and notes what could not be said."""

    __slots__ = ("dropped", "items")

    def __init__(self) -> None:
        self.items: list[shapes.Item] = []
        self.dropped: dict[str, None] = {}
        """Names of hints that were left out, as an ordered set."""

    def write(self, message: Message) -> None:
        if message.name:
            self.dropped["name"] = None
        for kind, run in groupby(message.parts, _kind):
            parts = list(run)
            if kind is ThoughtPart:
                self._think([part.thought for part in parts if isinstance(part, ThoughtPart)])
            elif kind is CallPart:
                self.items += [self._call(part) for part in parts if isinstance(part, CallPart)]
            elif kind is ResultPart:
                self.items += [self._answer(part) for part in parts if isinstance(part, ResultPart)]
            elif message.role is Role.ASSISTANT:
                self._repeat([part for part in parts if isinstance(part, _Mention)])
            else:
                content = [self._say(part) for part in parts if isinstance(part, _Mention)]
                self.items.append(shapes.Message(message.role.value, content))

    def _think(self, thoughts: Sequence[ReasoningPart]) -> None:
        for group in _vendor_items(thoughts):
            item = _reasoning(group)
            if item is None:
                self.dropped["reasoning"] = None
            else:
                self.items.append(item)

    def _call(self, call: CallPart) -> shapes.Item:
        self._cached(cache=call.cache)
        if call.signature:
            self.dropped["reasoning"] = None
        id_ = fitting(call.id, LONGEST_ID)
        if call.custom:
            return shapes.CustomToolCall(id_, call.name, call.arguments)
        return shapes.FunctionCall(id_, call.name, call.arguments)

    def _answer(self, result: ResultPart) -> shapes.Item:
        self._cached(cache=result.cache)
        if result.is_error:
            self.dropped["is_error"] = None
        id_ = fitting(result.call_id, LONGEST_ID)
        shown = [self._show(part) for part in result.parts]
        match shown:
            case []:
                output = ""
            case [shapes.InputText(text)]:
                output = text
            case _:
                output = shown
        if result.custom:
            return shapes.CustomToolCallOutput(id_, output)
        return shapes.FunctionCallOutput(id_, output)

    def _repeat(self, parts: Sequence[_Mention]) -> None:
        """What the assistant said: a message each, its text a plain string.

        Parts of type `output_text` belong to messages with an id, and an id makes OpenAI look for what came
        with it.
        """
        for part in parts:
            if not isinstance(part, TextPart):
                self.items.append(shapes.Message(Role.ASSISTANT.value, [self._say(part)]))
            elif part.text:
                self._cached(cache=part.cache)
                self.items.append(shapes.Message(Role.ASSISTANT.value, part.text))

    def _say(self, part: _Mention) -> shapes.Content:
        match part:
            case RefusalPart(text=text):
                return shapes.Refusal(text)
            case AudioPart():
                return shapes.InputAudio(shapes.AudioData(part.data, part.format))
            case _:
                return self._show(part)

    def _show(self, part: TextPart | ImagePart | FilePart) -> shapes.Shown:
        self._cached(cache=part.cache)
        match part:
            case TextPart(text=text):
                return shapes.InputText(text)
            case ImagePart():
                return _image(part)
            case FilePart():
                return _file(part)

    def _cached(self, *, cache: bool) -> None:
        """A breakpoint is left out: only the newest models of OpenAI's take one, and others refuse it."""
        if cache:
            self.dropped["cache_control"] = None


def _kind(part: Part) -> type[Part] | None:
    """What may stand in one item or run of items; None for what a message holds."""
    return type(part) if isinstance(part, ThoughtPart | CallPart | ResultPart) else None


def _image(part: ImagePart) -> shapes.InputImage:
    detail = part.detail or "auto"
    if part.file_id:
        return shapes.InputImage(detail, file_id=part.file_id)
    url = f"data:{part.media_type};base64,{part.data}" if part.data else part.url
    return shapes.InputImage(detail, image_url=url)


def _file(part: FilePart) -> shapes.InputFile | shapes.InputText:
    """Text that was sent as a document is said as text, under its name."""
    name = part.name or shapes.EMPTY
    if part.data:
        name = part.name or _DEFAULT_NAMES.get(part.media_type, "document")
        return shapes.InputFile(name, file_data=f"data:{part.media_type};base64,{part.data}")
    if part.url:
        return shapes.InputFile(name, file_url=part.url)
    if part.file_id:
        return shapes.InputFile(file_id=part.file_id)
    return shapes.InputText(f"{part.name}\n\n{part.text}" if part.name else part.text)


def _vendor_items(thoughts: Iterable[ReasoningPart]) -> Iterator[list[ReasoningPart]]:
    """Thoughts by the item they came in. Where the ids were stripped, a seal ends its item.

    Words without an id belong to the seal that follows them: OpenRouter names the item beside its seal alone.
    """
    group: list[ReasoningPart] = []
    for thought in thoughts:
        if group and not _goes_on(group, thought):
            yield group
            group = []
        group.append(thought)
    if group:
        yield group


def _goes_on(group: Sequence[ReasoningPart], thought: ReasoningPart) -> bool:
    last = group[-1]
    if last.id:
        return thought.id == last.id
    return not _seal(group) and (not thought.id or thought.format == last.format == RESPONSES_FORMAT)


def _seal(group: Sequence[ReasoningPart]) -> str:
    sealed = (part.text for part in group if part.kind is ReasoningKind.ENCRYPTED)
    return next((text for text in sealed if text), "")


def _reasoning(group: Sequence[ReasoningPart]) -> shapes.ReasoningItem | None:
    """The item as it was given; None for what another vendor wrote, and for what was not sealed.

    An unsealed item exists only in its vendor's store, where nothing is kept (`store: false`).
    """
    sealed = _seal(group)
    if not sealed or any(part.format != RESPONSES_FORMAT for part in group):
        return None
    words = [shapes.ReasoningText(part.text) for part in group if part.kind is ReasoningKind.RAW]
    return shapes.ReasoningItem(
        id=group[-1].id or shapes.EMPTY,
        summary=[shapes.SummaryText(part.text) for part in group if part.kind is ReasoningKind.SUMMARY],
        content=words or shapes.EMPTY,
        encrypted_content=sealed,
    )
