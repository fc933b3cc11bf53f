"""OpenAI chat, there and back: prompts keep their meaning, and a stream adds up to its body."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.blocks import CallBlock, Folded, ReasoningBlock, TextBlock, fold_blocks
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
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.dialect import About
from llm_proxy.wire.openai_chat.reasoning import XAI_FORMAT
from llm_proxy.wire.openai_chat.reply import read_body, read_frame
from llm_proxy.wire.openai_chat.request import parse
from llm_proxy.wire.openai_chat.translation import TRANSLATION
from llm_proxy.wire.sse import SseReader

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
NAMES = st.text("abc_", min_size=1, max_size=6)
IDS = st.text("abc0123_-", min_size=1, max_size=40)
JSON = st.dictionaries(NAMES, st.integers() | WORDS, max_size=2).map(json.dumps)
TEXT = st.builds(TextPart, text=WORDS)
BASE64 = st.text("ABCDabcd0123", min_size=4, max_size=8)
IMAGE = st.builds(
    ImagePart, url=WORDS.map("https://example.com/".__add__), detail=st.sampled_from(["", "low"])
)
DATA = st.builds(ImagePart, data=BASE64, media_type=st.just("image/png"))
AUDIO = st.builds(AudioPart, data=BASE64, format=st.sampled_from(["wav", "mp3"]))
FILE = st.builds(FilePart, name=NAMES, data=BASE64, media_type=st.just("application/pdf"))
CALL = st.builds(CallPart, id=IDS, name=NAMES, arguments=JSON, signature=st.sampled_from(["", "Cv=="]))
RESULT = st.builds(ResultPart, call_id=IDS, parts=st.tuples(TEXT) | st.just(()))


@st.composite
def thoughts(draw: st.DrawFn, *, calling: bool) -> tuple[ReasoningPart, ...]:
    """Reasoning as one server gives it: either words alone, beside calls, or sealed parts."""
    if draw(st.booleans()):
        plain = ReasoningPart(kind=ReasoningKind.RAW, text=draw(WORDS))
        sealed = ReasoningPart(kind=ReasoningKind.ENCRYPTED, text=draw(WORDS), format=XAI_FORMAT)
        return ((plain,) if calling else ()) + draw(st.sampled_from([(), (sealed,)]))
    raw = st.builds(ReasoningPart, kind=st.just(ReasoningKind.RAW), text=WORDS, signature=WORDS)
    opaque = st.builds(ReasoningPart, kind=st.just(ReasoningKind.ENCRYPTED), text=WORDS, id=IDS)
    return tuple(draw(st.lists(raw | opaque, max_size=3)))


@st.composite
def assistants(draw: st.DrawFn) -> Message:
    calls = draw(st.lists(CALL, max_size=2))
    texts = draw(st.lists(TEXT, max_size=1))
    refusals = draw(st.lists(st.builds(RefusalPart, text=WORDS), max_size=1))
    given_ = [ThoughtPart(thought=thought) for thought in draw(thoughts(calling=bool(calls)))]
    return Message(role=Role.ASSISTANT, parts=(*given_, *texts, *refusals, *calls), name=draw(NAMES))


MEDIA = st.lists(TEXT | IMAGE | DATA | AUDIO | FILE, max_size=3)
SAID = st.lists(TEXT, max_size=1) | st.tuples(IMAGE | DATA | AUDIO | FILE, MEDIA).map(lambda v: [v[0], *v[1]])
USERS = st.builds(Message, role=st.just(Role.USER), parts=SAID.map(tuple), name=st.just("") | NAMES)
RESULTS = st.builds(
    Message, role=st.just(Role.USER), parts=st.lists(RESULT, min_size=1, max_size=2).map(tuple)
)
SYSTEMS = st.builds(Message, role=st.just(Role.SYSTEM), parts=st.tuples(TEXT))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Turns that chat can tell apart: results of one turn do not follow those of another."""
    first = draw(USERS)
    rest = draw(
        st.lists(st.tuples(RESULTS, USERS).map(list) | st.tuples(assistants() | SYSTEMS | USERS).map(list))
    )
    return (first, *[message for group in rest[:4] for message in group])


NUMBER = st.none() | st.floats(0, 1, allow_subnormal=False)
TOOLS = st.lists(
    st.builds(
        Tool,
        name=NAMES,
        description=st.just("") | WORDS,
        parameters=st.sampled_from([b"", b'{"type":"object"}']),
        strict=st.none() | st.booleans(),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
CHOICES = st.none() | st.one_of(
    st.builds(ToolChoice, mode=st.sampled_from([Choose.AUTO, Choose.NONE, Choose.REQUIRED])),
    st.builds(ToolChoice, mode=st.just(Choose.TOOL), name=NAMES),
    st.builds(
        ToolChoice,
        mode=st.sampled_from([Choose.AUTO, Choose.REQUIRED]),
        allowed=st.lists(NAMES, min_size=1, max_size=2).map(tuple),
    ),
)
OUTPUTS = st.none() | st.one_of(
    st.just(OutputFormat()),
    st.builds(
        OutputFormat,
        schema=st.just(b'{"type":"object"}'),
        name=NAMES,
        description=st.just("") | WORDS,
        strict=st.none() | st.booleans(),
    ),
)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    tools = draw(st.just(()) | TOOLS)
    stream = draw(st.booleans())
    return Prompt(
        model=draw(WORDS),
        messages=draw(conversations()),
        system=draw(st.just(()) | st.tuples(TEXT)),
        stream=stream,
        include_usage=stream,
        n=draw(st.integers(1, 3)),
        tools=tools,
        tool_choice=draw(CHOICES) if tools else None,
        parallel_calls=draw(st.none() | st.booleans()) if tools else None,
        max_output=draw(st.none() | st.integers(1, 9)),
        temperature=draw(NUMBER),
        top_p=draw(NUMBER),
        stop=tuple(draw(st.lists(WORDS, max_size=2))),
        seed=draw(st.none() | st.integers(0, 9)),
        presence_penalty=draw(NUMBER),
        frequency_penalty=draw(NUMBER),
        thinking=draw(st.none() | st.builds(Thinking, effort=st.sampled_from(Effort))),
        output=draw(OUTPUTS),
        verbosity=draw(st.sampled_from(["", "low"])),
        user=draw(st.just("") | WORDS),
        service_tier=draw(st.sampled_from(["", "flex"])),
        cache_key=draw(st.just("") | WORDS),
    )


@given(prompts())
def test_what_chat_can_say_comes_back_whole(prompt: Prompt) -> None:
    written = TRANSLATION.write_prompt(prompt)
    assert written.dropped == ()
    assert TRANSLATION.read_prompt(parse(written.body)) == prompt


ABOUT = About(
    call_id="0198-ab",
    model="alias",
    created=7,
    request=parse(b'{"model":"alias","messages":[{"role":"user","content":"x"}]}'),
)


@st.composite
def replies(draw: st.DrawFn) -> list[Event]:
    """A reply as an upstream gives it: parts in order, each cut anywhere."""
    events: list[Event] = [Started("up", draw(WORDS))]
    format_ = draw(st.sampled_from(["", ANTHROPIC_FORMAT, RESPONSES_FORMAT]))
    redacts = format_ == ANTHROPIC_FORMAT
    kinds = [ReasoningKind.RAW, ReasoningKind.SUMMARY, *([ReasoningKind.REDACTED] if redacts else [])]
    for choice in range(draw(st.integers(1, 2))):
        for part in range(draw(st.integers(0, 3))):
            text = draw(WORDS)
            kind = draw(st.sampled_from(kinds))
            for piece in cut(draw, text):
                events.append(Reasoning(choice, piece, kind, part, "", "", format_))
            if kind is ReasoningKind.RAW and format_ and draw(st.booleans()):
                events.append(Reasoning(choice, "", kind, part, draw(WORDS), "", format_))
        events += [Text(choice, piece) for piece in cut(draw, draw(st.just("") | WORDS))]
        events += [Refusal(choice, piece) for piece in cut(draw, draw(st.just("") | WORDS))]
        for index in range(draw(st.integers(0, 2))):
            events.append(CallDelta(choice, index * 3, draw(IDS), draw(NAMES)))
            events += [CallDelta(choice, index * 3, "", "", piece) for piece in cut(draw, draw(JSON))]
        events.append(Finished(choice, draw(st.sampled_from(["stop", "length", "content_filter", "odd"]))))
    events.append(UsageSeen(Usage(input=draw(st.integers(0, 9)), output=draw(st.integers(0, 9)))))
    return events


def cut(draw: st.DrawFn, text: str) -> list[str]:
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=2)))
    return [text[a:b] for a, b in pairwise([0, *at, len(text)]) if a < b]


def meaning(folded: Folded) -> object:
    """What a reply says, less the order of blocks of different kinds (a body has no place for it).

    Anthropic's summaries are its reasoning text in this dialect; unsealed words of several parts are one.
    """
    found: list[object] = []
    for choice in folded.choices:
        sealed: list[object] = []
        words = ""
        for block in choice.blocks:
            if isinstance(block, ReasoningBlock):
                for kind, text in block.pieces.items():
                    if block.signature or block.format:
                        anthropic = block.format == ANTHROPIC_FORMAT and kind is ReasoningKind.SUMMARY
                        kind = ReasoningKind.RAW if anthropic else kind  # noqa: PLW2901
                        sealed.append((block.part, kind, text, block.signature, block.format))
                    else:
                        words += text
        rest = [b for b in choice.blocks if not isinstance(b, ReasoningBlock)]
        calls = [(b.id, b.name, b.arguments) for b in rest if isinstance(b, CallBlock)]
        said = [(type(b) is TextBlock, b.text) for b in rest if not isinstance(b, CallBlock) and b.text]
        # Details that can be read leave nothing to read in the plain field beside them.
        told = any(text for _, kind, text, _, _ in sealed if kind is not ReasoningKind.REDACTED)  # pyright: ignore
        found.append((choice.index, sealed, "" if told else words, said, calls, choice.finish))
    return folded.model, folded.usage, found


@given(replies())
def test_a_stream_adds_up_to_its_body(events: list[Event]) -> None:
    renderer = TRANSLATION.renderer(ABOUT)
    stream = b"".join([renderer.render([event]) for event in events]) + renderer.close()
    frames = SseReader().feed(stream)
    streamed = fold_blocks(event for frame in frames for event in read_frame(frame).events)
    whole = fold_blocks(read_body(TRANSLATION.render_body(events, ABOUT)).events)
    assert read_calls(streamed) == read_calls(whole)
    assert msgspec.to_builtins(meaning_of_details(streamed)) == msgspec.to_builtins(meaning_of_details(whole))
    assert (streamed.id, streamed.model, streamed.usage) == (whole.id, whole.model, whole.usage)


@given(replies())
def test_a_body_says_what_the_upstream_said(events: list[Event]) -> None:
    before = meaning(fold_blocks(events))
    after = meaning(fold_blocks(read_body(TRANSLATION.render_body(events, ABOUT)).events))
    assert _without_finish(after) == _without_finish(before)


def _without_finish(found: object) -> object:
    model, usage, choices = found  # pyright: ignore
    return model, usage, [choice[:-1] for choice in choices]  # pyright: ignore


def read_calls(folded: Folded) -> object:
    return [
        (choice.index, choice.finish, [b for b in choice.blocks if isinstance(b, CallBlock | TextBlock)])
        for choice in folded.choices
    ]


def meaning_of_details(folded: Folded) -> object:
    return [
        [b for b in choice.blocks if isinstance(b, ReasoningBlock) and b.format] for choice in folded.choices
    ]
