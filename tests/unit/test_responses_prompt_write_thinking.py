"""Reasoning sent back to an upstream that speaks Responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.chat.events import ANTHROPIC_FORMAT, RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import CallPart, TextPart, ThoughtPart
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.openai_responses.prompt_write import write_prompt
from tests.unit.responses_writing import assistant, items, prompt


class TestReasoningSentBack:
    def thought(self, kind: ReasoningKind, text: str, **more: Any) -> ThoughtPart:
        more = {"id": "rs_1", "format": RESPONSES_FORMAT, **more}
        return ThoughtPart(thought=ReasoningPart(kind=kind, text=text, **more))

    def test_an_item_goes_back_as_it_was_given(self) -> None:
        [item] = items(
            assistant(
                self.thought(ReasoningKind.ENCRYPTED, "gAAA"),
                self.thought(ReasoningKind.SUMMARY, "A."),
                self.thought(ReasoningKind.SUMMARY, "B."),
                self.thought(ReasoningKind.RAW, "Raw."),
            )
        )
        assert item == {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "A."}, {"type": "summary_text", "text": "B."}],
            "content": [{"type": "reasoning_text", "text": "Raw."}],
            "encrypted_content": "gAAA",
        }

    def test_items_stand_where_they_stood(self) -> None:
        found = items(
            assistant(
                self.thought(ReasoningKind.ENCRYPTED, "1"),
                self.thought(ReasoningKind.ENCRYPTED, "2", id="rs_2"),
                CallPart(id="c", name="w", arguments="{}"),
                self.thought(ReasoningKind.ENCRYPTED, "3", id="rs_3"),
                TextPart(text="Done."),
            )
        )
        assert [item.get("encrypted_content", item["type"]) for item in found] == [
            "1",
            "2",
            "function_call",
            "3",
            "message",
        ]

    def test_items_whose_ids_were_stripped(self) -> None:
        found = write_prompt(
            prompt(
                assistant(
                    self.thought(ReasoningKind.SUMMARY, "A.", id=""),
                    self.thought(ReasoningKind.ENCRYPTED, "1", id=""),
                    self.thought(ReasoningKind.ENCRYPTED, "2", id=""),
                )
            )
        )
        assert json.loads(found.body)["input"] == [
            {
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": "A."}],
                "encrypted_content": "1",
            },
            {"type": "reasoning", "summary": [], "encrypted_content": "2"},
        ]

    @pytest.mark.parametrize(
        "thought",
        [
            ReasoningPart(kind=ReasoningKind.RAW, text="Hm."),
            ReasoningPart(kind=ReasoningKind.SUMMARY, text="Hm.", id="rs_1", format=RESPONSES_FORMAT),
            ReasoningPart(kind=ReasoningKind.RAW, text="Hm.", signature="Eq", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.REDACTED, text="Em", format=ANTHROPIC_FORMAT),
            ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="x", id="r", format="xai-responses-v1"),
        ],
    )
    def test_what_is_not_sealed_by_openai_is_left_out(self, thought: ReasoningPart) -> None:
        [item] = items(
            assistant(ThoughtPart(thought=thought), TextPart(text="Done.")), dropped=("reasoning",)
        )
        assert item["type"] == "message"
