"""Reasoning between tags inside the text: what counts as a tag, and what waits."""

from __future__ import annotations

import pytest

from llm_proxy.chat.events import (
    CallDelta,
    Ended,
    Event,
    Finished,
    Reasoning,
    ReasoningKind,
    Refusal,
    Started,
    Text,
)
from llm_proxy.chat.thinking import FIRST_PART, ThinkTags, split_inline


def thought(text: str, choice: int = 0, nth: int = 0) -> Reasoning:
    return Reasoning(choice, text, ReasoningKind.INLINE_TAG, FIRST_PART + nth)


def split(*texts: str, prefilled: bool = False) -> list[Event]:
    tags = ThinkTags(prefilled=prefilled)
    return [*(e for text in texts for e in tags.split([Text(0, text)])), *tags.close()]


@pytest.mark.parametrize(
    ("texts", "events"),
    [
        (["<think>a</think>b"], [thought("a"), Text(0, "b")]),
        (["<thinking>a</thinking>b"], [thought("a"), Text(0, "b")]),
        (["<thought>a</thought>b"], [thought("a"), Text(0, "b")]),
        (["\n <think>\na\n</think>\n\nb\n"], [thought("a\n"), Text(0, "b\n")]),
        (["<think>\n\n</think>\n\nb"], [Text(0, "b")]),
        (["<th", "ink>a", "b</", "thi", "nk>c"], [thought("a"), thought("b"), Text(0, "c")]),
        (["<think>a</think>\n<think>b</think>c"], [thought("a"), thought("b", nth=1), Text(0, "c")]),
        (["<think>a </b> < c</think>d"], [thought("a </b> < c"), Text(0, "d")]),
        (["<think>a</thinking>b</think>c"], [thought("a</thinking>b"), Text(0, "c")]),
        (["<think>never closed"], [thought("never closed")]),
        (["<think>cut </thi"], [thought("cut "), thought("</thi")]),
        (["a <think>b</think>"], [Text(0, "a <think>b</think>")]),
        (["`", "<think>b</think>"], [Text(0, "`"), Text(0, "<think>b</think>")]),
        (["<think>a</think>b<think>c</think>"], [thought("a"), Text(0, "b<think>c</think>")]),
        (["<", "div>"], [Text(0, "<div>")]),
        (["<thi"], [Text(0, "<thi")]),
        (["\n", "\n", "a"], [Text(0, "\n\na")]),
        (["\n"], [Text(0, "\n")]),
        ([" " * 65, "<think>a"], [Text(0, " " * 65), Text(0, "<think>a")]),
        (["a</think>b"], [Text(0, "a</think>b")]),
        ([""], []),
    ],
)
def test_tags(texts: list[str], events: list[Event]) -> None:
    assert split(*texts) == events


@pytest.mark.parametrize(
    ("texts", "events"),
    [
        (["a</think>b"], [thought("a"), Text(0, "b")]),
        (["\na\n", "</th", "ink>\n\nb"], [thought("a\n"), Text(0, "b")]),
        (["a</thought>b"], [thought("a"), Text(0, "b")]),
        (["<think>a</think>b"], [thought("a"), Text(0, "b")]),
        (["<th", "ink>a</think>b"], [thought("a"), Text(0, "b")]),
        (["<thanks"], [thought("<thanks")]),
        (["</think>b"], [Text(0, "b")]),
        (["a</think><think>b</think>c"], [thought("a"), thought("b", nth=1), Text(0, "c")]),
        (["only thought"], [thought("only thought")]),
        (["", "\n"], []),
    ],
)
def test_a_template_that_opened_the_thought(texts: list[str], events: list[Event]) -> None:
    assert split(*texts, prefilled=True) == events


def test_what_needs_no_change_is_the_same_object() -> None:
    tags = ThinkTags()
    events: tuple[Event, ...] = (Started("a", "b"), Text(0, "Hello"), Text(0, "a <think>b"))
    assert tags.split(events) is events
    plain: tuple[Event, ...] = (Text(0, "<think>no</think>"),)
    assert tags.split(plain) is plain
    only: tuple[Event, ...] = (Finished(0, "stop"), Ended())
    assert tags.split(only) is only


def test_parsed_reasoning_does_not_end_the_start_of_the_text() -> None:
    tags = ThinkTags()
    parsed = Reasoning(0, "x")
    assert [*tags.split([parsed, Text(0, "<think>a</think>b")])] == [parsed, thought("a"), Text(0, "b")]


@pytest.mark.parametrize(
    "then", [Finished(0, "stop"), Ended(), CallDelta(0, 0, "c", "f", "{}"), Refusal(0, "no")]
)
def test_what_waits_goes_out_before_what_follows(then: Event) -> None:
    tags = ThinkTags()
    assert tags.split([Text(0, "<thi")]) == []
    assert tags.split([then]) == [Text(0, "<thi"), then]
    assert tags.close() == []


def test_choices_are_apart() -> None:
    tags = ThinkTags()
    events = [*tags.split([Text(0, "<think>a"), Text(1, "b"), Text(0, "c</think>d"), Text(1, "<think>")])]
    assert events == [thought("a"), Text(1, "b"), thought("c"), Text(0, "d"), Text(1, "<think>")]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>\na\n</think>\n\nb", ("a", "b")),
        ("a\n</think>\n\nb", ("a", "b")),
        ("<think>a</think><think>b</think>c", ("a\nb", "c")),
        ("<think>never closed", ("never closed", "")),
        ("plain", ("", "plain")),
        ("  plain <think>a</think>", ("", "  plain <think>a</think>")),
        ("write <think> and then </think>", ("", "write <think> and then </think>")),
        ("", ("", "")),
    ],
)
def test_a_whole_text(text: str, parts: tuple[str, str]) -> None:
    assert split_inline(text) == parts
