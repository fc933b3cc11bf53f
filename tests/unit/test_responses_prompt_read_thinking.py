"""Reasoning that a Responses request sends back: whose it is, and what it is sealed with."""

from __future__ import annotations

from typing import Any

from llm_proxy.chat.events import ANTHROPIC_FORMAT, GEMINI_FORMAT, RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import CallPart, ThoughtPart
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.seal import wrap
from tests.unit.responses_reading import messages


class TestReasoningSentBack:
    def item(self, **fields: Any) -> tuple[Any, ...]:
        [message] = messages({"type": "reasoning", "summary": [], **fields})
        return tuple(part.thought for part in message.parts if isinstance(part, ThoughtPart))

    def test_words_without_a_seal_have_no_format(self) -> None:
        [found] = self.item(id="rs_1", summary=[{"type": "summary_text", "text": "A."}])
        assert found == ReasoningPart(kind=ReasoningKind.SUMMARY, text="A.", id="rs_1")

    def test_ids_may_be_stripped(self) -> None:
        [found] = self.item(encrypted_content="gAAA")
        assert found == ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAA", format=RESPONSES_FORMAT)

    def test_an_envelope_with_words_is_all_there_is(self) -> None:
        signed = ReasoningPart(kind=ReasoningKind.RAW, text="Hm.", signature="EqoB", format=ANTHROPIC_FORMAT)
        words = [{"type": "reasoning_text", "text": "Hm."}]
        assert self.item(id="rs_x_0", content=words, encrypted_content=wrap(signed)) == (signed,)

    def test_an_envelope_beside_words_lends_them_its_id(self) -> None:
        sealed = ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="xyz", id="r1", format="xai-responses-v1")
        words = [{"type": "summary_text", "text": "Hm."}]
        assert self.item(id="rs_x_0", summary=words, encrypted_content=wrap(sealed)) == (
            ReasoningPart(kind=ReasoningKind.SUMMARY, text="Hm.", id="r1", format="xai-responses-v1"),
            sealed,
        )

    def test_redacted_thinking(self) -> None:
        sealed = ReasoningPart(kind=ReasoningKind.REDACTED, text="Emw", format=ANTHROPIC_FORMAT)
        assert self.item(id="rs_x_0", encrypted_content=wrap(sealed)) == (sealed,)

    def test_a_damaged_envelope_is_opaque(self) -> None:
        [found] = self.item(id="rs_1", encrypted_content="llmp1.!!")
        assert (found.kind, found.text) == (ReasoningKind.ENCRYPTED, "llmp1.!!")

    def test_a_calls_signature_finds_its_call(self) -> None:
        signature = ReasoningPart(
            kind=ReasoningKind.ENCRYPTED, signature="CiQB", id="c1", format=GEMINI_FORMAT
        )
        [message] = messages(
            {"type": "reasoning", "id": "rs_x_0", "summary": [], "encrypted_content": wrap(signature)},
            {"type": "function_call", "call_id": "c0", "name": "w", "arguments": "{}"},
            {"type": "function_call", "call_id": "c1", "name": "w", "arguments": "{}"},
        )
        assert message.parts == (
            CallPart(id="c0", name="w", arguments="{}"),
            CallPart(id="c1", name="w", arguments="{}", signature="CiQB"),
        )
