"""Anthropic Messages: what a prompt can say there comes back the same, and both ways of rendering agree."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message as SdkMessage
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    RESPONSES_FORMAT,
    CallDelta,
    Event,
    Finished,
    Reasoning,
    ReasoningKind,
    Refusal,
    Started,
    Text,
    Usage,
    UsageSeen,
)
from llm_proxy.chat.prompt import (
    CallPart,
    Choose,
    Effort,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    ResultPart,
    Role,
    TextPart,
    Thinking,
    ThoughtPart,
    Tool,
    ToolChoice,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.anthropic_messages.prompt_read import read_prompt
from llm_proxy.wire.anthropic_messages.prompt_write import write_prompt
from llm_proxy.wire.anthropic_messages.translation import TRANSLATION
from llm_proxy.wire.dialect import About
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import object_spans
from llm_proxy.wire.sse import SseReader

EVENT = TypeAdapter[Any](RawMessageStreamEvent)
RAWS = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

flags = st.booleans()
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).map(
    lambda t: "x" + t + "x"
)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,20}", fullmatch=True)
base64s = st.binary(min_size=1, max_size=9).map(lambda data: data.hex())
schemas = st.dictionaries(words, st.integers(), max_size=2).map(
    lambda extra: json.dumps({"type": "object", **extra}).encode()
)
values = st.recursive(
    st.none() | flags | st.integers() | words, lambda v: st.lists(v) | st.dictionaries(words, v), max_leaves=4
)

texts = st.builds(TextPart, text=words, cache=flags)
images = st.one_of(
    st.builds(ImagePart, url=names.map("https://x.example/{}".format), cache=flags),
    st.builds(ImagePart, data=base64s, media_type=st.sampled_from(["image/png", "image/jpeg"]), cache=flags),
    st.builds(ImagePart, file_id=names, cache=flags),
)
files = st.one_of(
    st.builds(FilePart, name=words, url=names.map("https://x.example/{}".format), cache=flags),
    st.builds(FilePart, data=base64s, media_type=st.just("application/pdf"), cache=flags),
    st.builds(FilePart, text=words, media_type=st.just("text/plain")),
    st.builds(FilePart, file_id=names),
)
said = texts | images | files
results = st.builds(
    ResultPart,
    call_id=names,
    parts=st.lists(said, max_size=2).map(tuple),
    is_error=flags,
    cache=flags,
)
thoughts = st.builds(
    ThoughtPart,
    thought=st.builds(
        ReasoningPart,
        kind=st.just(ReasoningKind.RAW),
        text=st.just("") | words,
        signature=names,
        format=st.just(ANTHROPIC_FORMAT),
    )
    | st.builds(
        ReasoningPart, kind=st.just(ReasoningKind.REDACTED), text=names, format=st.just(ANTHROPIC_FORMAT)
    ),
)
calls = st.builds(
    CallPart,
    id=names,
    name=names,
    arguments=st.dictionaries(words, values, max_size=3).map(json.dumps),
    cache=flags,
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Turns that alternate, a person's first and last."""
    turns: list[Message] = []
    for _ in range(draw(st.integers(0, 2))):
        turns.append(draw(user_messages))
        turns.append(draw(assistant_messages))
    return (*turns, draw(user_messages))


user_messages = st.builds(
    lambda answers, rest: Message(role=Role.USER, parts=(*answers, *rest)),
    st.lists(results, max_size=2),
    st.lists(said, min_size=1, max_size=2),
)
assistant_messages = st.builds(
    lambda before, parts: Message(role=Role.ASSISTANT, parts=(*before, *parts)),
    st.lists(thoughts, max_size=2),
    st.lists(texts | calls, min_size=1, max_size=3),
)
tools = st.builds(
    Tool,
    name=names,
    description=words,
    parameters=schemas,
    strict=st.sampled_from([None, True]),
    cache=flags,
)
thinkings = st.one_of(
    st.none(),
    st.builds(
        Thinking,
        effort=st.sampled_from([None, Effort.LOW, Effort.MEDIUM, Effort.HIGH, Effort.MAX]),
        enabled=st.just(True),
        adaptive=st.just(True),
        summary=st.sampled_from(["summarized", "omitted"]),
    ),
)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """What Messages can say, of a model that takes adaptive thinking and sampling."""
    declared = draw(st.lists(tools, max_size=3, unique_by=lambda tool: tool.name))
    thinking = draw(thinkings)
    stream = draw(flags)
    modes = [Choose.AUTO, Choose.NONE] if thinking else list(Choose)
    mode = draw(st.sampled_from(modes)) if declared and draw(flags) else None
    name = draw(st.sampled_from(declared)).name if mode is Choose.TOOL else ""
    marked = draw(st.lists(texts, min_size=1, max_size=2)) if draw(flags) else []
    return Prompt(
        model="claude-opus-4-6",
        messages=draw(conversations()),
        system=tuple(marked) if any(part.cache for part in marked) else tuple(marked[:1]),
        stream=stream,
        include_usage=stream,
        tools=tuple(declared),
        tool_choice=ToolChoice(mode=mode, name=name) if mode else None,
        parallel_calls=False if mode and mode is not Choose.NONE and draw(flags) else None,
        max_output=draw(st.integers(1, 10_000)),
        temperature=None if thinking else draw(st.none() | st.floats(0, 1)),
        top_k=None if thinking else draw(st.none() | st.integers(1, 50)),
        stop=tuple(draw(st.lists(words, max_size=2))),
        thinking=thinking,
        output=draw(st.none() | st.builds(OutputFormat, schema=schemas)),
        user=draw(st.just("") | names.filter(lambda name: "_session_" not in name)),
        service_tier=draw(st.sampled_from(["", "auto", "default"])),
    )


@given(prompts())
def test_there_and_back(prompt: Prompt) -> None:
    written = write_prompt(prompt)
    assert written.dropped == ()
    spans = object_spans(written.body, RAWS(written.body))
    assert read_prompt(WireRequest(body=written.body, model=prompt.model, spans=spans)) == prompt


# replies


@st.composite
def thoughts_of(draw: st.DrawFn, part: int) -> list[Event]:
    format_ = draw(st.sampled_from(["", ANTHROPIC_FORMAT, RESPONSES_FORMAT]))
    kind = draw(st.sampled_from([ReasoningKind.RAW, ReasoningKind.SUMMARY]))
    pieces: list[Event] = [Reasoning(0, text, kind, part, format=format_) for text in draw(st.lists(words))]
    if draw(flags):
        pieces.append(Reasoning(0, "", kind, part, signature=draw(names), format=format_))
    sealed = draw(st.sampled_from([None, ReasoningKind.ENCRYPTED, ReasoningKind.REDACTED]))
    if sealed:
        pieces.append(Reasoning(0, draw(names), sealed, part, id="rs_1", format=format_))
    return pieces


@st.composite
def replies(draw: st.DrawFn) -> list[Event]:
    """Events as an upstream sends them: each thought in one go, calls mixed among each other at the end."""
    events: list[Event] = [Started("id", "model")] if draw(flags) else []
    for part in range(draw(st.integers(0, 3))):
        events += draw(thoughts_of(part))
        events += draw(st.lists(st.builds(Text, st.just(0), st.text(max_size=3)), max_size=3))
    events += draw(st.lists(st.builds(Refusal, st.just(0), words), max_size=2))
    arguments = {
        index: json.dumps(draw(st.dictionaries(words, values, max_size=2)))
        for index in range(draw(st.integers(0, 3)))
    }
    events += [CallDelta(0, index, f"call_{index}", "f") for index in arguments]
    pieces = [
        (start, CallDelta(0, index, arguments=text[start : start + 5]))
        for index, text in arguments.items()
        for start in range(0, len(text), 5)
    ]
    events += [piece for _, piece in sorted(pieces, key=lambda piece: piece[0])]
    events.append(Finished(0, draw(st.sampled_from(["stop", "length", "tool_call", "refusal"]))))
    return [*events, UsageSeen(Usage(input=9, output=5, cached=2))]


@given(replies(), flags, st.data())
def test_both_ways_of_rendering_agree(events: list[Event], thinking: bool, data: st.DataObject) -> None:
    asked = {"thinking": {"type": "adaptive"}} if thinking else {}
    body = json.dumps({"model": "m", "messages": [], **asked}).encode()
    request = WireRequest(body=body, model="m", spans={})
    of = About(call_id="a-b", model="m", created=1, request=request)
    renderer = TRANSLATION.renderer(of)
    raw, rest = b"", events
    while rest:
        cut = data.draw(st.integers(1, len(rest)))
        raw, rest = raw + renderer.render(rest[:cut]), rest[cut:]
    raw += renderer.close()
    whole = SdkMessage.model_validate_json(TRANSLATION.render_body(events, of), strict=True)
    assert _accumulated(raw).model_dump() == whole.model_dump()


def _accumulated(raw: bytes) -> SdkMessage:
    reader = SseReader()
    snapshot = None
    buffers: dict[int, bytes] = {}
    for frame in reader.feed(raw) + reader.close():
        event = EVENT.validate_json(frame.data, strict=True)
        snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    return SdkMessage.model_validate(snapshot.to_dict())
