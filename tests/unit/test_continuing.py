"""Whether a cut reply can go on elsewhere, how the next target is asked, and how its words are joined on."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.archive.pieces import fold_pieces
from llm_proxy.chat.events import (
    CallDelta,
    Event,
    Finished,
    Frame,
    Reasoning,
    Refusal,
    ServerTool,
    Started,
    Text,
    Usage,
    UsageSeen,
)
from llm_proxy.chat.prefill import begun
from llm_proxy.chat.prompt import Message, Prompt, Role, TextPart
from llm_proxy.chat.said import Said
from llm_proxy.chat.seam import Seam, after
from llm_proxy.continuing import Continuing, may_continue
from llm_proxy.exchange import Exchange
from llm_proxy.records.view import Piece
from llm_proxy.wire.dialect import About, Dialect
from llm_proxy.wire.dialects import DIALECTS
from routing.targets import Leg, Resolved, Route, Target

CHAT, RESPONSES, MESSAGES = (
    DIALECTS[name] for name in ("openai_chat", "openai_responses", "anthropic_messages")
)
callers = pytest.mark.parametrize("caller", [CHAT, RESPONSES, MESSAGES], ids=lambda dialect: dialect.name)
START = Started("r", "m")
WORDS = Text(0, "one two")
THOUGHT = Reasoning(0, "Hm.", part=2, signature="sig")
CALL = CallDelta(0, 0, "call_1", "crm_read", "{}")


@pytest.mark.parametrize(
    ("events", "goes_on"),
    [
        ([], False),
        ([START], False),
        ([START, WORDS], True),
        ([START, Text(0, "")], False),
        ([Text(0, " \n")], False),
        ([Text(0, " \n"), WORDS], True),
        ([WORDS, UsageSeen(Usage(input=1, output=1))], True),
        ([THOUGHT], False),
        ([THOUGHT, WORDS], True),
        ([THOUGHT, Text(0, "")], False),
        ([WORDS, THOUGHT], False),
        ([WORDS, THOUGHT, WORDS], True),
        ([WORDS, CallDelta(0, 0, "call_1")], False),
        ([WORDS, CALL, WORDS], False),
        ([WORDS, ServerTool(0, 1, "web_search"), WORDS], False),
        ([WORDS, Refusal(0, "No.")], False),
        ([WORDS, Finished(0, "stop")], False),
        ([WORDS, Text(1, "heads")], False),
    ],
)
def test_what_can_go_on(events: list[Event], goes_on: bool) -> None:
    said = Said()
    said.add(events)
    assert said.can_go_on() is goes_on


def test_what_was_said_adds_up_over_attempts() -> None:
    first = Said()
    first.add([THOUGHT, WORDS])
    second = Said(first.text, first.parts)
    assert second.can_go_on()
    second.add([Text(0, " three")])
    assert (second.text, second.size, second.parts) == ("one two three", 13, 3)


@pytest.mark.parametrize(
    ("said", "more", "trimmed", "new"),
    [
        ("one two", " three", False, " three"),
        ("one two", "one two three", False, " three"),
        ("one two", "one twos", False, "s"),
        ("one two", "one tree", False, "one tree"),
        ("one two", "one", False, "one"),
        ("one two", "One two three", False, "One two three"),
        ("one two", "one two", False, ""),
        ("one ", " two", False, " two"),
        ("one ", " two", True, "two"),
        ("one ", "two", True, "two"),
        ("one ", "one two", True, "two"),
        ("one \n", "\n two", True, " two"),
        ("one\n\n", "\n\n\ntwo", True, "\ntwo"),
        ("one\n  ", "\n    two", True, "  two"),
        ("one  ", " two", True, "two"),
        ("one ", " ", True, ""),
        ("one", "", True, ""),
    ],
)
def test_where_it_was_cut_nothing_is_said_twice_or_lost(
    said: str, more: str, trimmed: bool, new: str
) -> None:
    assert after(said, more, trimmed=trimmed) == new


@given(
    said=st.text("ab \n", min_size=1, max_size=6),
    more=st.text("ab \n", max_size=14),
    cuts=st.lists(st.integers(0, 14), max_size=5),
    trimmed=st.booleans(),
)
def test_it_makes_no_difference_how_the_words_come(
    said: str, more: str, cuts: list[int], trimmed: bool
) -> None:
    seam = Seam(said, trimmed=trimmed)
    edges = [0, *sorted(cuts), len(more)]
    pieces = [more[start:end] for start, end in pairwise(edges)]
    events = [event for piece in pieces for event in seam.split([Text(0, piece)])]
    events += seam.close()
    joined = "".join([event.text for event in events if isinstance(event, Text)])
    assert joined == after(said, more, trimmed=trimmed)
    assert more.endswith(joined), "only a beginning is ever left out"


def test_words_that_wait_go_before_what_ends_them() -> None:
    seam = Seam("one two", parts=3)
    assert seam.split([Text(0, "one"), Reasoning(0, "Hm.", part=1)]) == [Reasoning(0, "Hm.", part=4)]
    assert seam.split([CALL]) == [Text(0, "one"), CALL]


ASKED = Message(role=Role.USER, parts=(TextPart(text="hi"),))
BEGUN = Message(role=Role.ASSISTANT, parts=(TextPart(text="Well, "),))


def test_the_next_target_is_given_the_words_as_its_own() -> None:
    prompt = Prompt(model="m", messages=(ASKED,))
    assert begun(prompt, "one").messages == (
        ASKED,
        Message(role=Role.ASSISTANT, parts=(TextPart(text="one"),)),
    )
    prompt = Prompt(model="m", messages=(ASKED, BEGUN))
    assert begun(prompt, "one").messages == (
        ASKED,
        Message(role=Role.ASSISTANT, parts=(TextPart(text="Well, "), TextPart(text="one"))),
    )


@pytest.mark.parametrize(
    ("dialect", "key", "last"),
    [
        (CHAT, "messages", {"role": "assistant", "content": "Well, one "}),
        (RESPONSES, "input", {"type": "message", "role": "assistant", "content": "one "}),
        (
            MESSAGES,
            "messages",
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "Well, "}, {"type": "text", "text": "one"}],
            },
        ),
    ],
    ids=["chat", "responses", "messages"],
)
def test_how_each_dialect_puts_them(dialect: Dialect, key: str, last: dict[str, Any]) -> None:
    assert dialect.translation is not None
    prompt = begun(Prompt(model="m", messages=(ASKED, BEGUN)), "one ")
    body = json.loads(dialect.translation.write_prompt(prompt).body)
    assert body[key][-1] == last


def body(caller: Dialect, **more: Any) -> bytes:
    key = "input" if caller is RESPONSES else "messages"
    asked: dict[str, Any] = {"model": "m", "stream": True, key: [{"role": "user", "content": "hi"}]}
    return json.dumps(asked | ({"max_tokens": 9} if caller is MESSAGES else {}) | more).encode()


def about(caller: Dialect) -> About:
    request = caller.parse(body(caller))
    return About(call_id="0199a000-0000-7000-8000-000000000001", model="m", created=1, request=request)


def written(output: Continuing, *events: Event) -> bytes:
    return output.pass_on(output.read(Frame(b"-", events)))


@callers
def test_an_attempt_that_fails_before_a_word_leaves_no_trace(caller: Dialect) -> None:
    end = (Finished(0, "stop"), UsageSeen(Usage(input=9, output=2)))
    streams: list[bytes] = []
    for failing in (False, True):
        first = Continuing(caller, CHAT, about(caller))
        stream = written(first, START, WORDS)
        if failing:
            again = Continuing(caller, MESSAGES, about(caller), first.left())
            assert written(again, Started("x", "other"), UsageSeen(Usage(input=5)), Text(0, "")) == b""
            assert written(again, Text(0, "one")) == b"", "it may be an echo"
        last = Continuing(caller, CHAT, about(caller), first.left())
        stream += written(last, START, Text(0, " three"))
        stream += written(last, *end) + last.close()
        streams.append(stream)
    assert streams[0] == streams[1]
    piece = Piece(dialect=caller.name, emitted=streams[0], chars=0)
    reply = fold_pieces((), piece, stream=True)
    assert reply is not None
    assert [choice.text for choice in reply.choices] == ["one two three"]


@callers
def test_what_denied_calls_leave_stands_apart_from_what_was_said_before(caller: Dialect) -> None:
    first = Continuing(caller, CHAT, about(caller))
    stream = written(first, START, WORDS)
    last = Continuing(caller, CHAT, about(caller), first.left())
    held = [Frame(b"-", (CALL,)), Frame(b"-", (Finished(0, "tool_call"),))]
    stream += last.judged(held, {(0, 0): "Not allowed."}, frozenset()) + last.close()
    reply = fold_pieces((), Piece(dialect=caller.name, emitted=stream, chars=0), stream=True)
    assert reply is not None
    assert reply.choices[0].text == "one two\n\nNot allowed."


def exchange(caller: Dialect, **more: Any) -> Exchange:
    request = caller.parse(body(caller, **more))
    return Exchange(id="c", started_us=0, dialect=caller, clock0=0.0, request=request)


def resolved(targets: int = 2, *, continues: bool = True) -> Resolved:
    them = tuple(Target(f"t{n}", "openai", "m") for n in range(targets))
    route = Route("m", them, continues=continues)
    return Resolved(route, "m", (Leg(route, "m", them),))


@callers
def test_a_stream_may_continue(caller: Dialect) -> None:
    assert may_continue(exchange(caller), resolved())
    assert not may_continue(exchange(caller), resolved(continues=False))
    assert not may_continue(exchange(caller), resolved(1)), "there is nobody to go on with it"
    assert not may_continue(exchange(caller, stream=False), resolved())


@pytest.mark.parametrize(
    ("caller", "more"),
    [
        (CHAT, {"n": 2}),
        (CHAT, {"logprobs": True}),
        (CHAT, {"modalities": ["text", "audio"], "audio": {"voice": "x", "format": "mp3"}}),
        (RESPONSES, {"tools": [{"type": "web_search"}]}),
        (RESPONSES, {"background": True}),
        (RESPONSES, {"previous_response_id": "resp_1"}),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ],
)
def test_what_only_its_own_dialect_can_answer_may_not(caller: Dialect, more: dict[str, Any]) -> None:
    assert not may_continue(exchange(caller, **more), resolved())


def test_a_hint_that_would_be_left_out_is_a_hindrance_only_where_translation_is_strict() -> None:
    assert may_continue(exchange(CHAT, metadata={"a": "b"}), resolved())
    assert not may_continue(exchange(CHAT, metadata={"a": "b"}), resolved(), strict=True)


def chat_stream(*texts: str) -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    return b"".join([f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks])


def test_pieces_are_folded_as_far_as_they_reached_the_agent() -> None:
    unfinished = chat_stream(" three")[:-1]  # its frame never ended
    first = Piece(dialect="openai_chat", emitted=chat_stream("one", " two") + unfinished, chars=7)
    last = Piece(dialect="openai_chat", emitted=chat_stream("one two", " three four"), chars=0)
    reply = fold_pieces((first,), last, stream=True)
    assert reply is not None
    assert reply.choices[0].text == "one two three four"
    nothing = Piece(dialect="openai_chat", emitted=None, chars=0)
    alone = fold_pieces((first,), nothing, stream=True)
    assert alone is not None
    assert alone.choices[0].text == "one two"
    assert fold_pieces((nothing,), last, stream=True) is None, "no longer kept"
