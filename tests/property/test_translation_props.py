"""Between dialects, there and back: what both can say keeps its meaning, and seals stay what they were."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.blocks import CallBlock, Folded, ReasoningBlock, TextBlock, fold_blocks
from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    RESPONSES_FORMAT,
    CallDelta,
    Ended,
    Event,
    Finished,
    Reasoning,
    ReasoningKind,
    Started,
    Text,
    Usage,
    UsageSeen,
)
from llm_proxy.chat.prompt import (
    CallPart,
    Choose,
    Effort,
    ImagePart,
    Message,
    OutputFormat,
    Part,
    Prompt,
    ResultPart,
    Role,
    TextPart,
    Thinking,
    Tool,
    ToolChoice,
)
from llm_proxy.wire.dialect import About
from tests.golden.matrix.cells import DIALECTS, read_stream, translation

MODEL = "claude-opus-4-6"
PAIRS = list(permutations(DIALECTS, 2))

flags = st.booleans()
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10).map("x{}x".format)
names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_-]{0,15}", fullmatch=True)
ids = st.from_regex(r"[a-zA-Z0-9_-]{1,40}", fullmatch=True)
values = st.recursive(
    st.none() | flags | st.integers(-(2**53), 2**53) | words,
    lambda v: st.lists(v, max_size=2) | st.dictionaries(words, v, max_size=2),
    max_leaves=4,
)
arguments = st.dictionaries(words, values, max_size=3).map(json.dumps)
schemas = st.dictionaries(names, st.just({"type": "string"}), max_size=2).map(
    lambda of: json.dumps({"type": "object", "properties": of}).encode()
)
images = st.builds(ImagePart, url=names.map("https://x.example/{}".format)) | st.builds(
    ImagePart, data=st.binary(min_size=1, max_size=9).map(bytes.hex), media_type=st.just("image/png")
)
texts = st.builds(TextPart, text=words)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """A person asks, the assistant answers or calls, tools answer: strictly in turn."""
    turns: list[Message] = []
    for turn in range(draw(st.integers(0, 2))):
        turns.append(draw(people()))
        for step in range(draw(st.integers(0, 2))):
            calls = [
                CallPart(id=f"c{turn}_{step}_{n}", name=draw(names), arguments=draw(arguments))
                for n in range(draw(st.integers(1, 2)))
            ]
            said = draw(st.lists(texts, max_size=1))
            results = [ResultPart(call_id=call.id, parts=(draw(texts),)) for call in calls]
            turns.append(Message(role=Role.ASSISTANT, parts=(*said, *calls)))
            turns.append(Message(role=Role.USER, parts=tuple(results)))
        turns.append(Message(role=Role.ASSISTANT, parts=(draw(texts),)))
    return (*turns, draw(people()))


@st.composite
def people(draw: st.DrawFn) -> Message:
    shown = draw(st.lists(images, max_size=2))
    return Message(role=Role.USER, parts=(draw(texts), *shown))


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """What all three dialects can say to a model that takes all of it."""
    tools = draw(
        st.lists(
            st.builds(
                Tool, name=names, description=words, parameters=schemas, strict=st.sampled_from([None, True])
            ),
            max_size=3,
            unique_by=lambda tool: tool.name,
        )
    )
    effort = draw(st.none() | st.sampled_from([Effort.LOW, Effort.MEDIUM, Effort.HIGH]))
    modes = [Choose.AUTO, Choose.NONE] if effort else list(Choose)
    mode = draw(st.sampled_from(modes)) if tools and draw(flags) else None
    name = draw(st.sampled_from(tools)).name if mode is Choose.TOOL else ""
    single = bool(tools) and mode is not Choose.NONE and draw(flags)
    stream = draw(flags)
    return Prompt(
        model=MODEL,
        messages=draw(conversations()),
        system=tuple(draw(st.lists(texts, max_size=2))),
        stream=stream,
        include_usage=stream,
        tools=tuple(tools),
        tool_choice=ToolChoice(mode=mode, name=name) if mode else None,
        parallel_calls=False if single else None,
        max_output=draw(st.integers(16, 8_000)),
        temperature=None if effort else draw(st.none() | st.floats(0, 1)),
        thinking=Thinking(effort=effort) if effort else None,
        output=draw(st.none() | st.builds(OutputFormat, schema=schemas, name=names)),
        user=draw(st.just("") | names.filter(lambda name: "_session_" not in name)),
    )


def meaning_of(prompt: Prompt) -> Any:
    """What is asked, whichever way a dialect divides its messages and spells what goes without saying."""
    choice = prompt.tool_choice or ToolChoice(mode=Choose.AUTO)
    return {
        "model": prompt.model,
        "system": "\n\n".join([part.text for part in prompt.system]),
        "said": [(message.role, _part(part)) for message in prompt.messages for part in message.parts],
        "stream": prompt.stream,
        "tools": [(t.name, t.description, json.loads(t.parameters), bool(t.strict)) for t in prompt.tools],
        "choice": choice if prompt.tools else None,
        "single": prompt.parallel_calls is False,
        "max": prompt.max_output,
        "temperature": prompt.temperature,
        "effort": prompt.thinking.effort if prompt.thinking else None,
        "output": json.loads(prompt.output.schema) if prompt.output else None,
        "user": prompt.user,
    }


def _part(part: Part) -> Any:
    if isinstance(part, CallPart):
        return part.id, part.name, json.loads(part.arguments)
    return part


@pytest.mark.parametrize(("caller", "vendor"), PAIRS)
@given(prompt=prompts())
def test_a_request_keeps_its_meaning_there_and_back(caller: str, vendor: str, prompt: Prompt) -> None:
    meant = meaning_of(prompt)
    for dialect in (caller, vendor, caller):
        written = translation(dialect).write_prompt(prompt)
        prompt = translation(dialect).read_prompt(DIALECTS[dialect].parse(written.body))
        assert meaning_of(prompt) == meant
        assert set(written.dropped) <= {"reasoning.summary"}


# replies

ASKS: dict[str, dict[str, Any]] = {
    "chat": {"model": MODEL, "messages": [{"role": "user", "content": "x"}]},
    "responses": {
        "model": MODEL,
        "input": [{"role": "user", "content": "x"}],
        "include": ["reasoning.encrypted_content"],
    },
    "messages": {
        "model": MODEL,
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 9_000,
        "thinking": {"type": "adaptive"},
    },
}


def about(dialect: str) -> About:
    request = DIALECTS[dialect].parse(json.dumps(ASKS[dialect]).encode())
    return About(call_id="0198-ab", model=MODEL, created=7, request=request)


def cut(draw: st.DrawFn, text: str) -> list[str]:
    at = sorted(draw(st.lists(st.integers(0, len(text)), max_size=2)))
    return [text[a:b] for a, b in pairwise([0, *at, len(text)]) if a < b]


@st.composite
def thoughts(draw: st.DrawFn, vendor: str, part: int) -> list[Event]:
    """One part of reasoning, as the vendor of one dialect gives it."""
    match vendor:
        case "messages":
            pieces = [
                Reasoning(0, piece, ReasoningKind.RAW, part, format=ANTHROPIC_FORMAT)
                for piece in cut(draw, draw(words))
            ]
            seal = draw(ids)
            return [
                *pieces,
                Reasoning(0, "", ReasoningKind.RAW, part, signature=seal, format=ANTHROPIC_FORMAT),
            ]
        case "responses":
            id_ = f"rs_{part}"
            pieces = [
                Reasoning(0, piece, ReasoningKind.SUMMARY, part, id=id_, format=RESPONSES_FORMAT)
                for piece in cut(draw, draw(words))
            ]
            sealed = Reasoning(0, draw(ids), ReasoningKind.ENCRYPTED, part, id=id_, format=RESPONSES_FORMAT)
            return [*pieces, sealed]
        case _:
            return [Reasoning(0, piece, ReasoningKind.RAW, part) for piece in cut(draw, draw(words))]


@st.composite
def replies(draw: st.DrawFn, of: Sequence[str], least: int = 0) -> list[Event]:
    """Thoughts, words and calls, in the order in which every dialect has a place for them."""
    events: list[Event] = [Started("up", draw(words))]
    vendor = draw(st.sampled_from(of))
    for part in range(draw(st.integers(least, max(least, 2)))):
        events += draw(thoughts(vendor, part))
    events += [Text(0, piece) for piece in cut(draw, draw(st.just("") | words))]
    calls = draw(st.integers(0, 2))
    for index in range(calls):
        events.append(CallDelta(0, index, draw(ids), draw(names)))
        events += [CallDelta(0, index, arguments=piece) for piece in cut(draw, draw(arguments))]
    finish = draw(st.sampled_from(["tool_call"] if calls else ["stop", "length"]))
    used = Usage(input=9, cached=draw(st.integers(0, 9)), output=5, reasoning=draw(st.integers(0, 5)))
    return [*events, Finished(0, finish), UsageSeen(used), Ended()]


def meaning(folded: Folded) -> Any:
    (choice,) = folded.choices
    blocks = choice.blocks
    thought = "".join(
        [
            text
            for block in blocks
            if isinstance(block, ReasoningBlock)
            for kind, text in block.pieces.items()
            if kind is not ReasoningKind.ENCRYPTED
        ]
    )
    said = "".join([block.text for block in blocks if isinstance(block, TextBlock)])
    calls = [(b.id, b.name, json.loads(b.arguments)) for b in blocks if isinstance(b, CallBlock)]
    return folded.model, thought, said, calls, choice.finish, folded.usage


@pytest.mark.parametrize("caller", DIALECTS)
@given(events=replies(["messages", "responses", "chat"]), data=st.data(), size=st.integers(1, 99))
def test_a_reply_says_the_same_in_every_dialect(
    caller: str, events: list[Event], data: st.DataObject, size: int
) -> None:
    renderer = translation(caller).renderer(about(caller))
    raw, rest = b"", events
    while rest:
        at = data.draw(st.integers(1, len(rest)))
        raw, rest = raw + renderer.render(rest[:at]), rest[at:]
    raw += renderer.close()
    streamed = fold_blocks([event for frame in read_stream(caller, raw, size) for event in frame.events])
    whole = fold_blocks(
        DIALECTS[caller].read_body(translation(caller).render_body(events, about(caller))).events
    )
    assert meaning(streamed) == meaning(whole) == meaning(fold_blocks(events))


def sent_back(caller: str, body: bytes) -> bytes:
    """The next request of a client that keeps what it was given, and goes on."""
    reply = json.loads(body)
    key = "input" if caller == "responses" else "messages"
    match caller:
        case "chat":
            told = reply["choices"][0]["message"]
            said = [{name: value for name, value in told.items() if value is not None}]
            answers = [
                {"role": "tool", "tool_call_id": call["id"], "content": "ok"}
                for call in told.get("tool_calls", ())
            ]
        case "responses":
            said = reply["output"]
            answers = [
                {"type": "function_call_output", "call_id": item["call_id"], "output": "ok"}
                for item in said
                if item["type"] == "function_call"
            ]
        case _:
            said = [{"role": "assistant", "content": reply["content"]}]
            results = [
                {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
                for block in reply["content"]
                if block["type"] == "tool_use"
            ]
            answers = [{"role": "user", "content": results}] if results else []
    turns = [*ASKS[caller][key], *said, *answers, {"role": "user", "content": "y"}]
    return json.dumps({**ASKS[caller], key: turns}).encode()


def sealed(vendor: str, body: bytes) -> list[tuple[str, ...]]:
    """The reasoning in a request that its vendor checks: words, then what proves them."""
    request = json.loads(body)
    if vendor == "messages":
        blocks = [b for m in request["messages"] if m["role"] == "assistant" for b in m["content"]]
        return [(b["thinking"], b["signature"]) for b in blocks if b["type"] == "thinking"]
    return [
        ("".join([part["text"] for part in item["summary"]]), item["id"], item["encrypted_content"])
        for item in request["input"]
        if item.get("type") == "reasoning"
    ]


def given_by(vendor: str, events: list[Event]) -> list[tuple[str, ...]]:
    blocks = [block for block in fold_blocks(events).choices[0].blocks if isinstance(block, ReasoningBlock)]
    if vendor == "messages":
        return [(block.pieces[ReasoningKind.RAW], block.signature) for block in blocks]
    return [(b.pieces[ReasoningKind.SUMMARY], b.id, b.pieces[ReasoningKind.ENCRYPTED]) for b in blocks]


@pytest.mark.parametrize(("caller", "vendor"), [pair for pair in PAIRS if pair[1] != "chat"])
@given(data=st.data())
def test_a_seal_returns_to_its_vendor_byte_for_byte(caller: str, vendor: str, data: st.DataObject) -> None:
    events = data.draw(
        replies([vendor], least=1).filter(lambda events: any(isinstance(e, Text) for e in events))
    )
    body = translation(caller).render_body(events, about(caller))
    prompt = translation(caller).read_prompt(DIALECTS[caller].parse(sent_back(caller, body)))
    assert sealed(vendor, translation(vendor).write_prompt(prompt).body) == given_by(vendor, events)
