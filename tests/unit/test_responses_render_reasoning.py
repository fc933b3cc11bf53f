"""Reasoning in a Responses reply, and what of it a caller sends back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from llm_proxy.chat.events import (
    ANTHROPIC_FORMAT,
    GEMINI_FORMAT,
    RESPONSES_FORMAT,
    CallDelta,
    Event,
    Reasoning,
    ReasoningKind,
    Text,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.openai_responses.request import parse
from llm_proxy.wire.openai_responses.translation import TRANSLATION
from llm_proxy.wire.seal import unwrap
from tests.unit.responses_rendering import STEM, about, replies, stream


class TestReasoning:
    def test_its_own_words(self) -> None:
        events = [
            Reasoning(0, "Hm", ReasoningKind.RAW),
            Reasoning(0, ".", ReasoningKind.INLINE_TAG),
            Text(0, "x"),
        ]
        item = replies(events)["output"][0]
        assert item["summary"] == []
        assert item["content"] == [{"type": "reasoning_text", "text": "Hm."}]
        assert [data["type"] for data in stream(events, about())][2:9] == [
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
        ]

    def test_openais_own_seal_goes_under_its_own_id(self) -> None:
        item = replies(
            [
                Reasoning(0, "A.", ReasoningKind.SUMMARY, id="rs_up", format=RESPONSES_FORMAT),
                Reasoning(0, "gAAA", ReasoningKind.ENCRYPTED, id="rs_up", format=RESPONSES_FORMAT),
            ]
        )["output"][0]
        assert (item["id"], item["encrypted_content"]) == ("rs_up", "gAAA")

    def test_openais_seal_whose_id_came_late_keeps_that_id(self) -> None:
        events = [
            Reasoning(0, "A.", ReasoningKind.SUMMARY),
            Reasoning(0, "gAAA", ReasoningKind.ENCRYPTED, id="rs_up", format=RESPONSES_FORMAT),
        ]
        found = stream(events, about())
        item = next(data["item"] for data in found if data["type"] == "response.output_item.done")
        assert item["id"] == f"rs_{STEM}_0"
        assert unwrap(item["encrypted_content"]) == ReasoningPart(
            kind=ReasoningKind.ENCRYPTED, text="gAAA", id="rs_up", format=RESPONSES_FORMAT
        )

    def test_a_signature_travels_with_its_words(self) -> None:
        item = replies(
            [
                Reasoning(0, "Hm", ReasoningKind.RAW, 3, format=ANTHROPIC_FORMAT),
                Reasoning(0, ".", ReasoningKind.RAW, 3),
                Reasoning(0, "", ReasoningKind.RAW, 3, signature="EqoB"),
            ]
        )["output"][0]
        assert item["content"] == [{"type": "reasoning_text", "text": "Hm."}]
        assert unwrap(item["encrypted_content"]) == ReasoningPart(
            kind=ReasoningKind.RAW, text="Hm.", signature="EqoB", format=ANTHROPIC_FORMAT
        )

    def test_parts_are_items(self) -> None:
        output = replies(
            [
                Reasoning(0, "Emw", ReasoningKind.REDACTED, 0, format=ANTHROPIC_FORMAT),
                Reasoning(0, "", ReasoningKind.RAW, 1, signature="EqoB", format=ANTHROPIC_FORMAT),
                Text(0, "Hi"),
            ]
        )["output"]
        sealed = [unwrap(item["encrypted_content"]) for item in output[:2]]
        assert sealed == [
            ReasoningPart(kind=ReasoningKind.REDACTED, text="Emw", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.RAW, signature="EqoB", format=ANTHROPIC_FORMAT),
        ]
        assert [item["id"] for item in output] == [f"rs_{STEM}_0", f"rs_{STEM}_1", f"msg_{STEM}_2"]

    def test_a_calls_signature_goes_before_it(self) -> None:
        before, call = replies([CallDelta(0, 0, "c1", "w", "{}", signature="CiQB")])["output"]
        assert unwrap(before["encrypted_content"]) == ReasoningPart(
            kind=ReasoningKind.ENCRYPTED, signature="CiQB", id="c1", format=GEMINI_FORMAT
        )
        assert (call["id"], call["call_id"]) == (f"fc_{STEM}_1", "c1")

    def test_what_follows_a_call_keeps_its_place(self) -> None:
        output = replies(
            [
                Reasoning(0, "1", part=0),
                CallDelta(0, 0, "c1", "w", "{"),
                Reasoning(0, "2", part=1),
                Text(0, "then"),
                CallDelta(0, 0, "", "", "}"),
                CallDelta(0, 1, "c2", "w", "{}"),
            ]
        )["output"]
        assert [item["type"] for item in output] == [
            "reasoning",
            "function_call",
            "reasoning",
            "message",
            "function_call",
        ]


class TestSentBack:
    """What a caller sends back of a reply is what the model's vendor gave, whoever that is."""

    def again(self, events: Sequence[Event]) -> tuple[Any, ...]:
        output = replies(events)["output"]
        body = json.dumps({"model": "smart", "input": [{"role": "user", "content": "Hi"}, *output]})
        return TRANSLATION.read_prompt(parse(body.encode())).messages[1].parts

    @pytest.mark.parametrize(
        "thought",
        [
            ReasoningPart(kind=ReasoningKind.RAW, text="Hm.", signature="EqoB", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.SUMMARY, text="Hm.", signature="EqoB", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.RAW, signature="EqoB", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.REDACTED, text="Emw", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="xyz", id="r1", format="xai-responses-v1"),
            ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAA", id="rs_up", format=RESPONSES_FORMAT),
            ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAA", format=RESPONSES_FORMAT),
        ],
    )
    def test_sealed_reasoning(self, thought: ReasoningPart) -> None:
        piece = Reasoning(
            0, thought.text, thought.kind, signature=thought.signature, id=thought.id, format=thought.format
        )
        [found, _] = self.again([piece, Text(0, "So.")])
        assert found.thought == thought

    def test_words_beside_a_seal_share_its_id(self) -> None:
        sealed = Reasoning(0, "gAAA", ReasoningKind.ENCRYPTED, id="rs_up", format=RESPONSES_FORMAT)
        words = Reasoning(0, "A.", ReasoningKind.SUMMARY, id="rs_up", format=RESPONSES_FORMAT)
        summary, seal = [part.thought for part in self.again([words, sealed])]
        assert (summary.text, summary.id, summary.format) == ("A.", "rs_up", RESPONSES_FORMAT)
        assert (seal.text, seal.id, seal.format) == ("gAAA", "rs_up", RESPONSES_FORMAT)

    def test_calls_with_their_signatures(self) -> None:
        events = [
            CallDelta(0, 0, "c1", "w", "{}", signature="CiQB"),
            CallDelta(0, 1, "c2", "w", "{}"),
        ]
        first, second = self.again(events)
        assert (first.id, first.signature, second.id, second.signature) == ("c1", "CiQB", "c2", "")
