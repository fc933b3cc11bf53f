"""OpenAI chat completions, a neutral prompt's messages written as `messages`.

Text alone is one string, since many servers take nothing else: parts of a user, a tool or of instructions
stand an empty line apart, an assistant's (which may be cut anywhere) follow each other as they are. Results
come first in a turn, as the calls that they answer must stand right before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from llm_proxy.chat.events import ANTHROPIC_FORMAT, GEMINI_FORMAT, RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import (
    AudioPart,
    CallPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    Prompt,
    RefusalPart,
    ResultPart,
    Role,
    TextPart,
    ThoughtPart,
)
from llm_proxy.wire.faults import unsupported
from llm_proxy.wire.openai_chat.details import OPAQUE, Entry, entry, sealed
from llm_proxy.wire.openai_chat.reasoning import XAI_FORMAT
from llm_proxy.wire.toolids import fitting

Dropped = dict[str, None]
"""Names of the hints that could not be said, each once, in order."""

Out = dict[str, object]
"""One object of the body, about to be encoded."""

LONGEST_ID = 40
"""Characters of a tool call's id that OpenAI takes."""
MEDIA_FOLLOWS = "(The files of this result follow in the next message.)"

_encode = msgspec.json.Encoder().encode


def write_messages(prompt: Prompt, dropped: Dropped) -> list[Out]:
    """Every message. What can't be said is named in `dropped`, or refused where it is meaning."""
    out: list[Out] = []
    if prompt.system:
        out.append({"role": "system", "content": _joined(prompt.system, dropped)})
    for message in prompt.messages:
        match message.role:
            case Role.SYSTEM:
                texts = [part for part in message.parts if isinstance(part, TextPart)]
                out.append(_with_name({"role": "system", "content": _joined(texts, dropped)}, message))
            case Role.USER:
                out += _user(message, dropped)
            case Role.ASSISTANT:
                out.append(_with_name(_assistant(message, dropped), message))
    return out


def _with_name(out: Out, message: Message) -> Out:
    if message.name:
        out["name"] = message.name
    return out


def _joined(parts: Iterable[TextPart], dropped: Dropped) -> str:
    held = list(parts)
    if any(part.cache for part in held):
        dropped["cache_control"] = None
    return "\n\n".join([part.text for part in held])


def _user(message: Message, dropped: Dropped) -> list[Out]:
    """A turn's results, what they hold beside text, and what the user says, in this order."""
    out: list[Out] = []
    content: list[Part] = []
    said: list[Part] = []
    for part in message.parts:
        if isinstance(part, ResultPart):
            out.append(_result(part, dropped))
            content += [inner for inner in part.parts if not _is_text(inner)]
        else:
            said.append(part)
    if said or content or not out:
        content += said
        out.append(_with_name({"role": "user", "content": _content(content, dropped)}, message))
    return out


def _is_text(part: Part) -> bool:
    return isinstance(part, TextPart) or (isinstance(part, FilePart) and bool(part.text))


def _result(result: ResultPart, dropped: Dropped) -> Out:
    if result.is_error:
        dropped["is_error"] = None
    if result.cache:
        dropped["cache_control"] = None
    texts = [
        _as_text(part) for part in result.parts if isinstance(part, TextPart | FilePart) and _is_text(part)
    ]
    text = _joined(texts, dropped)
    if not texts and result.parts:
        text = MEDIA_FOLLOWS
    return {"role": "tool", "tool_call_id": fitting(result.call_id, LONGEST_ID), "content": text}


def _as_text(part: TextPart | FilePart) -> TextPart:
    if isinstance(part, TextPart):
        return part
    return TextPart(text=f"{part.name}\n\n{part.text}" if part.name else part.text, cache=part.cache)


def _content(parts: Sequence[Part], dropped: Dropped) -> str | list[Out]:
    texts = [_as_text(part) for part in parts if isinstance(part, TextPart | FilePart) and _is_text(part)]
    if len(texts) == len(parts):
        return _joined(texts, dropped)
    return [_part(part, dropped) for part in parts]


def _part(part: Part, dropped: Dropped) -> Out:
    if isinstance(part, TextPart | ImagePart | FilePart) and part.cache:
        dropped["cache_control"] = None
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart():
            return _image(part)
        case AudioPart(data=data, format=format_):
            return {"type": "input_audio", "input_audio": {"data": data, "format": format_ or "wav"}}
        case FilePart():
            return _file(part)
        case _:
            raise unsupported(
                f"A user's message holds a {type(part).__name__}: this dialect has no place for it",
                "messages",
            )


def _image(part: ImagePart) -> Out:
    if part.file_id:
        raise unsupported(
            "An image is named by its file id, which the model behind this can't fetch: send its data or URL",
            "messages",
        )
    image: Out = {"url": part.url or f"data:{part.media_type};base64,{part.data}"}
    if part.detail:
        image["detail"] = part.detail
    return {"type": "image_url", "image_url": image}


def _file(part: FilePart) -> Out:
    if part.text:
        return {"type": "text", "text": _as_text(part).text}
    if part.url:
        raise unsupported(
            "A document is named by its URL, which the model behind this can't fetch: send its data",
            "messages",
        )
    if part.file_id:
        file: Out = {"file_id": part.file_id}
    else:
        data = f"data:{part.media_type or 'application/pdf'};base64,{part.data}"
        file = {"filename": part.name or "document.pdf", "file_data": data}
    return {"type": "file", "file": file}


def _assistant(message: Message, dropped: Dropped) -> Out:
    texts: list[str] = []
    refusals: list[str] = []
    calls: list[Out] = []
    thoughts: list[ThoughtPart] = []
    for part in message.parts:
        match part:
            case TextPart(text=text):
                texts.append(text)
            case RefusalPart(text=text):
                refusals.append(text)
            case CallPart():
                calls.append(_call(part))
            case ThoughtPart():
                thoughts.append(part)
            case _:
                raise unsupported(
                    f"An assistant's message holds a {type(part).__name__}: this dialect has no place for it",
                    "messages",
                )
        if isinstance(part, TextPart | CallPart) and part.cache:
            dropped["cache_control"] = None
    out: Out = {"role": "assistant", "content": "".join(texts) if texts or not (calls or refusals) else None}
    if refusals:
        out["refusal"] = "".join(refusals)
    out |= _reasoning(thoughts, dropped, calling=bool(calls))
    if calls:
        out["tool_calls"] = calls
    return out


def _call(call: CallPart) -> Out:
    arguments = _encode({"input": call.arguments}).decode() if call.custom else call.arguments
    out: Out = {
        "id": fitting(call.id, LONGEST_ID),
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
    if call.signature:
        out["extra_content"] = {"google": {"thought_signature": call.signature}}
    return out


def _reasoning(thoughts: Sequence[ThoughtPart], dropped: Dropped, *, calling: bool) -> Out:
    """The fields for reasoning sent back: sealed parts to whom they are from, words with their calls.

    Another vendor's seal is left out. DeepSeek needs the words beside calls, and refuses them elsewhere.
    """
    out: Out = {}
    words: list[str] = []
    entries: list[Entry] = []
    owner = ""
    for part in thoughts:
        thought = part.thought
        foreign = not part.own and thought.format in (ANTHROPIC_FORMAT, RESPONSES_FORMAT)
        if thought.kind is ReasoningKind.ENCRYPTED and thought.format == XAI_FORMAT:
            out["encrypted_content"] = thought.text
        elif thought.format == GEMINI_FORMAT and thought.signature and not thought.text:
            out["extra_content"] = {"google": {"thought_signature": thought.signature}}
        elif sealed(thought) and not foreign:
            goes_on = bool(entries) and bool(thought.id) and thought.id == owner
            entries.append(entry(thought, entries[-1].index if goes_on else len(entries)))
            owner = thought.id
        else:
            if calling and thought.kind not in OPAQUE and thought.text:
                words.append(thought.text)
            if sealed(thought) or not calling:
                dropped["reasoning"] = None
    if words:
        out["reasoning_content"] = "\n\n".join(words)
    if entries:
        out["reasoning_details"] = entries
    return out
