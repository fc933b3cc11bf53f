"""Which provider sealed what: foreign seals go, one's own stay, and what is left is a valid request."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from llm_proxy.chat.events import ANTHROPIC_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import CallPart, Message, Part, Prompt, Role, TextPart, ThoughtPart
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.seals import Seals, without_items
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.spans import array_spans, splice

A, B = "openai@a:1", "openai@b:1"


def seals() -> Seals:
    known = Seals()
    known.remember(["a1", "a2", "a3"], A)
    known.remember(["b1"], B)
    return known


def sent(dialect: str, body: dict[str, Any], to: str, known: Seals | None = None) -> Any:
    """The body as `to` would get it."""
    request = DIALECTS[dialect].parse(json.dumps(body).encode())
    edits = (known or seals()).foreign(DIALECTS[dialect], request, to)
    return json.loads(splice(request.body, edits))


def thinking(*signatures: str) -> list[dict[str, str]]:
    return [{"type": "thinking", "thinking": "hm", "signature": s} for s in signatures]


def messages(*content: Any) -> dict[str, Any]:
    said = [{"role": "user" if n % 2 == 0 else "assistant", "content": c} for n, c in enumerate(content)]
    return {"model": "m", "max_tokens": 9, "messages": said}


def test_blocks_of_another_provider_go_and_ones_own_stay() -> None:
    text = {"type": "text", "text": "hi"}
    body = messages("q", [*thinking("a1", "a2"), text], "q", [*thinking("b1"), text, *thinking("x")], "q")
    to_b = sent("anthropic_messages", body, B)["messages"]
    assert [to_b[1]["content"], to_b[3]["content"]] == [[text], body["messages"][3]["content"]]
    to_a = sent("anthropic_messages", body, A)["messages"]
    assert [to_a[1]["content"], to_a[3]["content"]] == [
        body["messages"][1]["content"],
        [text, *thinking("x")],
    ]


def test_a_message_of_nothing_else_goes_whole() -> None:
    body = messages("q", thinking("a1", "a2"), "r")
    assert sent("anthropic_messages", body, B)["messages"] == [body["messages"][0], body["messages"][2]]


def test_reasoning_items_go_whole() -> None:
    said = {"role": "user", "content": "q"}
    items = [{"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": s} for s in ("a1", "b1")]
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    body = {"model": "m", "input": [said, items[0], call, items[1]]}
    assert sent("openai_responses", body, B)["input"] == [said, call, items[1]]
    assert sent("openai_responses", body, A)["input"] == [said, items[0], call]


ENTRIES = {
    "a1": {"type": "reasoning.text", "text": "t", "signature": "a1"},
    "a2": {"type": "reasoning.encrypted", "data": "a2"},
    "unknown": {"type": "reasoning.encrypted", "data": "unknown"},
    "unsealed": {"type": "reasoning.summary", "summary": "s"},
}


@given(st.lists(st.sampled_from(list(ENTRIES)), min_size=1, max_size=5))
def test_whatever_stands_beside_them_details_stay_valid(names: list[str]) -> None:
    details = [ENTRIES[name] for name in names]
    body = {"model": "m", "messages": [{"role": "assistant", "content": "", "reasoning_details": details}]}
    left = sent("openai_chat", body, B)["messages"][0]["reasoning_details"]
    assert not [entry for entry in left if entry in (ENTRIES["a1"], ENTRIES["a2"])]
    assert [e for e in left if e == ENTRIES["unsealed"]] == [e for e in details if e == ENTRIES["unsealed"]]
    if not {"a1", "a2"} & set(names):
        assert left == details


def test_nothing_is_touched_while_one_provider_is_known() -> None:
    known = Seals()
    known.remember(["a1"], A)
    body = messages("q", thinking("a1", "z"), "q")
    assert sent("anthropic_messages", body, A, known) == body
    assert sent("anthropic_messages", body, B, Seals()) == body
    assert sent("anthropic_messages", body, B, known) != body


LOOP = [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]
RESULT = [{"type": "tool_result", "tool_use_id": "t", "content": "1"}]
ENABLED = {"type": "enabled", "budget_tokens": 2000}


@pytest.mark.parametrize(
    ("content", "asked", "off"),
    [
        (["q", [*thinking("a1"), *LOOP], RESULT], ENABLED, True),
        (["q", [*thinking("a1"), *LOOP], RESULT, [*thinking("b1"), *LOOP], RESULT], ENABLED, True),
        (["q", [*thinking("b1"), *LOOP], RESULT, [*thinking("a1"), *LOOP], RESULT], ENABLED, False),
        (["q", [*thinking("a1"), *LOOP], [*RESULT], "fine", "next"], ENABLED, False),
        (["q", [*thinking("a1"), {"type": "text", "text": "x"}], "next"], ENABLED, False),
        (["q", [*thinking("a1"), *LOOP], RESULT], {"type": "adaptive"}, False),
        (["q", [*thinking("a1"), *LOOP], RESULT], None, False),
    ],
)
def test_a_budget_is_turned_off_where_the_open_turn_lost_its_thinking(
    content: list[Any], asked: Any, off: bool
) -> None:
    dialect = DIALECTS["anthropic_messages"]
    body = messages(*content) | ({"thinking": asked} if asked else {})
    request = dialect.parse(json.dumps(body).encode())
    cut = seals().foreign(dialect, request, B)
    assert cut
    assert dialect.unsealed is not None
    left = json.loads(splice(request.body, cut + dialect.unsealed(request, cut)))
    assert left.get("thinking") == ({"type": "disabled"} if off else asked)


def thought(seal: str, text: str = "hm", kind: ReasoningKind = ReasoningKind.RAW) -> ThoughtPart:
    opaque = kind is ReasoningKind.ENCRYPTED
    part = ReasoningPart(
        kind=kind,
        text=seal if opaque else text,
        signature="" if opaque else seal,
        id="rs",
        format=ANTHROPIC_FORMAT,
    )
    return ThoughtPart(thought=part)


def test_a_prompt_is_told_to_each_provider_with_its_own_seals() -> None:
    call = CallPart(id="c", name="f", arguments="{}")
    mine, theirs, hidden = thought("b1"), thought("a1"), thought("a2", kind=ReasoningKind.ENCRYPTED)
    parts: tuple[Part, ...] = (mine, theirs, hidden, thought("new"), TextPart(text="x"), call)
    prompt = Prompt(
        model="m",
        messages=(
            Message(role=Role.USER, parts=()),
            Message(role=Role.ASSISTANT, parts=(hidden,)),
            Message(role=Role.ASSISTANT, parts=parts),
        ),
    )
    told, foreign = seals().told_to(prompt, B)
    assert foreign
    first, second = told.messages
    assert first.parts == ()
    own, words, new, text, same = second.parts
    assert isinstance(own, ThoughtPart)
    assert own == ThoughtPart(thought=mine.thought, own=True)
    assert isinstance(words, ThoughtPart)
    assert (words.thought.text, words.thought.signature, words.own) == ("hm", "", False)
    assert (new, text, same) == parts[3:]
    assert Seals().told_to(prompt, B) == (prompt, False)
    only_b = Seals()
    only_b.remember(["b1"], B)
    assert only_b.told_to(prompt, B)[1] is False


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_items_go_with_one_comma_each(count: int) -> None:
    body = json.dumps([{"n": n} for n in range(count)]).encode()
    spans = array_spans(body, 0, [Raw(json.dumps({"n": n}).encode()) for n in range(count)])
    for size in range(count + 1):
        for gone in combinations(range(count), size):
            left = json.loads(splice(body, without_items(spans, set(gone))))
            assert left == [{"n": n} for n in range(count) if n not in gone]
