"""What Responses can say survives being written and read; a reply is the same streamed, whole and cut up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    RESPONSES_FORMAT,
    CallDelta,
    Ended,
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
    AudioPart,
    CallPart,
    Choose,
    Effort,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    RefusalPart,
    ResultPart,
    Role,
    TextPart,
    Thinking,
    ThoughtPart,
    Tool,
    ToolChoice,
)
from llm_proxy.chat.reply import Assembly, ChoiceReply, ReasoningPart, Reply
from llm_proxy.wire.dialect import About
from llm_proxy.wire.openai_responses.reader import Reader
from llm_proxy.wire.openai_responses.reply import read_body
from llm_proxy.wire.openai_responses.request import parse
from llm_proxy.wire.openai_responses.translation import TRANSLATION
from llm_proxy.wire.sse import SseReader

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
names = st.from_regex(r"[a-z][a-z0-9_-]{0,12}", fullmatch=True)
ids = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
raw_json = st.dictionaries(names, words, max_size=2).map(lambda found: json.dumps(found).encode())

texts = st.builds(TextPart, text=words)
images = st.one_of(
    st.builds(ImagePart, url=names.map("https://x/{}".format), detail=st.sampled_from(["", "low", "high"])),
    st.builds(ImagePart, data=names, media_type=st.just("image/png")),
    st.builds(ImagePart, file_id=ids),
)
files = st.one_of(
    st.builds(FilePart, name=names, data=names, media_type=st.just("application/pdf")),
    st.builds(FilePart, url=names.map("https://x/{}".format), name=st.one_of(st.just(""), names)),
    st.builds(FilePart, file_id=ids),
)
audio = st.builds(AudioPart, data=names, format=st.sampled_from(["wav", "mp3"]))


@st.composite
def thoughts(draw: st.DrawFn, id_: str) -> list[ThoughtPart]:
    """One item of reasoning as OpenAI gives it."""

    def part(kind: ReasoningKind) -> ThoughtPart:
        thought = ReasoningPart(kind=kind, text=draw(words), id=id_, format=RESPONSES_FORMAT)
        return ThoughtPart(thought=thought)

    return [
        *[part(ReasoningKind.SUMMARY) for _ in range(draw(st.integers(0, 2)))],
        *[part(ReasoningKind.RAW) for _ in range(draw(st.integers(0, 2)))],
        part(ReasoningKind.ENCRYPTED),
    ]


@st.composite
def rounds(draw: st.DrawFn) -> list[Message]:
    """What a person says, what the assistant does, and what its tools answer."""
    said = st.one_of(texts, images, files, audio)
    asked = Message(role=Role.USER, parts=tuple(draw(st.lists(said, min_size=1, max_size=3))))
    did: list[Any] = []
    for index in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["text", "refusal", "call", "thoughts"]))
        match kind:
            case "text":
                did.append(draw(texts))
            case "refusal":
                did.append(RefusalPart(text=draw(words)))
            case "call":
                did.append(
                    draw(st.builds(CallPart, id=ids, name=names, arguments=words, custom=st.booleans()))
                )
            case _:
                did += draw(thoughts(draw(st.sampled_from(["", f"rs_{index}"]))))
    shown = st.lists(st.one_of(texts, images, files), max_size=2).map(tuple)
    answered = [
        ResultPart(call_id=part.id, parts=draw(shown), custom=part.custom)
        for part in did
        if isinstance(part, CallPart)
    ]
    found = [asked, Message(role=Role.ASSISTANT, parts=tuple(did))]
    return [*found, Message(role=Role.USER, parts=tuple(answered))] if answered else found


@st.composite
def tool_lists(draw: st.DrawFn) -> tuple[Tool, ...]:
    found: list[Tool] = []
    for name in draw(st.lists(names, unique=True, max_size=3)):
        about = draw(st.one_of(st.just(""), words))
        if draw(st.booleans()):
            grammar = draw(st.one_of(st.just(b""), raw_json))
            found.append(Tool(name=name, description=about, custom=True, grammar=grammar))
        else:
            parameters = draw(st.one_of(st.just(b""), raw_json))
            found.append(
                Tool(name=name, description=about, parameters=parameters, strict=draw(st.booleans()))
            )
    return tuple(found)


@st.composite
def choices(draw: st.DrawFn, tools: Sequence[Tool]) -> ToolChoice | None:
    if not tools:
        return None
    listed = [tool.name for tool in tools]
    mode = draw(st.sampled_from([None, *Choose]))
    match mode:
        case None | Choose.NONE:
            return mode and ToolChoice(mode=mode)
        case Choose.TOOL:
            return ToolChoice(mode=mode, name=draw(st.sampled_from(listed)))
        case _:
            allowed = draw(st.lists(st.sampled_from(listed), unique=True))
            return ToolChoice(mode=mode, allowed=tuple(allowed))


thinking = st.builds(
    Thinking,
    effort=st.one_of(st.none(), st.sampled_from(Effort)),
    summary=st.sampled_from(["", "auto", "concise", "detailed"]),
).map(lambda found: None if found == Thinking() else found)
outputs = st.one_of(
    st.none(),
    st.just(OutputFormat()),
    st.builds(
        OutputFormat,
        schema=raw_json,
        name=names,
        description=st.one_of(st.just(""), words),
        strict=st.one_of(st.none(), st.booleans()),
    ),
)
fractions = st.one_of(st.none(), st.floats(0, 2))


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """What Responses can say as it stands: no neighbours that would be one message, results apart."""
    tools = draw(tool_lists())
    stream = draw(st.booleans())
    messages = [message for _ in range(draw(st.integers(1, 2))) for message in draw(rounds())]
    if draw(st.booleans()):
        messages.append(Message(role=Role.SYSTEM, parts=(draw(texts),)))
    return Prompt(
        model=draw(names),
        messages=tuple(messages),
        system=tuple(draw(st.lists(texts, max_size=1))),
        stream=stream,
        include_usage=stream,
        tools=tools,
        tool_choice=draw(choices(tools)),
        parallel_calls=draw(st.one_of(st.none(), st.booleans())),
        max_output=draw(st.one_of(st.none(), st.integers(16, 10_000))),
        temperature=draw(fractions),
        top_p=draw(fractions),
        thinking=draw(thinking),
        output=draw(outputs),
        verbosity=draw(st.sampled_from(["", "low", "high"])),
        user=draw(st.one_of(st.just(""), names)),
        service_tier=draw(st.sampled_from(["", "auto", "flex"])),
        cache_key=draw(st.one_of(st.just(""), names)),
    )


@given(prompts())
def test_what_is_written_reads_the_same(prompt: Prompt) -> None:
    """Other than keys that every body has (`store`, `include`), which ask for nothing of the model."""
    written = TRANSLATION.write_prompt(prompt)
    assert written.dropped == ()
    read = TRANSLATION.read_prompt(parse(written.body))
    assert read.dropped == ("include",)
    assert read == msgspec.structs.replace(prompt, dropped=("include",))


@st.composite
def replies(draw: st.DrawFn) -> list[Event]:
    """A reply's events: each part of its reasoning in one go, calls at the end in alternating pieces."""
    events: list[Event] = [Started("up", "model")]
    for part in range(draw(st.integers(0, 4))):
        match draw(st.sampled_from(["text", "refusal", "reasoning"])):
            case "text":
                events += [
                    Text(0, piece) for piece in draw(st.lists(st.one_of(st.just(""), words), max_size=3))
                ]
            case "refusal":
                events.append(Refusal(0, draw(words)))
            case _:
                events += draw(reasoning(part))
    calls = draw(st.integers(0, 2))
    for index in range(calls):
        events.append(CallDelta(0, index, f"c{index}", draw(names)))
    pieces = st.tuples(st.integers(0, max(0, calls - 1)), words)
    events += [CallDelta(0, i, "", "", text) for i, text in draw(st.lists(pieces, max_size=4)) if calls]
    events.append(Finished(0, draw(st.sampled_from(["stop", "length", "tool_call"]))))
    return [*events, UsageSeen(Usage(input=3, output=2)), Ended()]


@st.composite
def reasoning(draw: st.DrawFn, part: int) -> list[Event]:
    pieces = draw(st.lists(words, min_size=1, max_size=3))
    kind = draw(st.sampled_from([ReasoningKind.RAW, ReasoningKind.SUMMARY]))
    found: list[Event] = [Reasoning(0, text, kind, part) for text in pieces]
    match draw(st.sampled_from(["", "signature", "data"])):
        case "signature":
            found.append(Reasoning(0, "", kind, part, signature=draw(ids), format=ANTHROPIC_FORMAT))
        case "data":
            found.append(Reasoning(0, draw(ids), ReasoningKind.ENCRYPTED, part, id="r", format="xai"))
        case _:
            pass
    return found


def about() -> About:
    return About(call_id="0-1", model="m", created=1, request=parse(b'{"model":"m","input":"Hi"}'))


def rendered(events: Sequence[Event], cuts: Sequence[int]) -> bytes:
    renderer = TRANSLATION.renderer(about())
    bounds = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    chunks = [events[start:end] for start, end in pairwise(bounds)]
    return b"".join([*[renderer.render(chunk) for chunk in chunks], renderer.close()])


@given(replies(), st.lists(st.integers(0, 20), max_size=4))
def test_a_reply_is_the_same_streamed_and_whole(events: list[Event], cuts: list[int]) -> None:
    raw = rendered(events, cuts)
    assert raw == rendered(events, range(len(events)))
    whole = TRANSLATION.render_body(events, about())
    frames = SseReader().feed(raw)
    assert json.loads(frames[-1].data)["response"] == json.loads(whole)
    reader = Reader()
    streamed = folded([event for frame in frames for event in reader.read(frame).events])
    assert streamed == folded(read_body(whole).events)
    assert meaning(streamed) == meaning(folded(events))


def folded(events: Sequence[Event]) -> Reply:
    assembly = Assembly()
    for event in events:
        assembly.add(event)
    assert not assembly.unreadable
    assert assembly.finished()
    return assembly.reply()


def meaning(reply: Reply) -> Any:
    """What a reply says, other than its ids, its seals and how it is divided."""
    [choice] = reply.choices or [ChoiceReply(index=0)]
    words = [
        part.text for part in choice.reasoning if part.kind in (ReasoningKind.RAW, ReasoningKind.SUMMARY)
    ]
    calls = [(call.id, call.name, call.arguments or "{}") for call in choice.calls]
    return (
        choice.text,
        choice.refusal,
        [text for text in words if text],
        calls,
        reply.usage,
        choice.finish == "length",
    )
