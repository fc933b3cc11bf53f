"""How much of a run its page takes in: texts of a run have no bound of their own, a page has."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

from msgspec import structs

from llm_proxy.admin.story import NewMessage, Step
from llm_proxy.chat.reply import ChoiceReply, ReasoningPart, Reply, ToolCall

T = TypeVar("T")

MOST = 65_536
"""Characters of one text."""
ROOM = 1 << 20
"""Characters of all texts of a page."""
OF_CALL = 20_480
"""So many more with each call: none is crowded out by those before it."""
MANY = 200
"""Messages of a call, choices of a reply, parts of one, tool calls."""


class Room:
    """What is left of one page. The calls come in their order."""

    def __init__(self) -> None:
        self._left = ROOM
        self._cut: dict[str, str] = {}
        """Texts of one call: what stands in two places is cut at the same."""

    def step(self, step: Step) -> Step:
        """The call with texts that fit; what is left out is told."""
        self._left += OF_CALL
        self._cut.clear()
        call = step.call
        problem = call.problem and structs.replace(call.problem, message=self._text(call.problem.message))
        return structs.replace(
            step,
            call=structs.replace(call, reply=self._reply(call.reply), problem=problem),
            new=self._messages(step.new),
            received=self._reply(step.received),
        )

    def _messages(self, messages: Sequence[NewMessage]) -> tuple[NewMessage, ...]:
        kept = [structs.replace(message, text=self._text(message.text)) for message in messages[-MANY:]]
        more = len(messages) - len(kept)
        left_out = (
            [NewMessage(role="left out", text=_left_out(more, "messages before these"))] if more else []
        )
        return (*left_out, *kept)

    def _reply(self, reply: Reply | None) -> Reply | None:
        if reply is None:
            return None
        choices = list(map(self._choice, reply.choices[:MANY]))
        if more := len(reply.choices) - len(choices):
            choices.append(ChoiceReply(index=-1, text=_left_out(more, "further choices")))
        return structs.replace(reply, choices=tuple(choices), error=self._text(reply.error))

    def _choice(self, choice: ChoiceReply) -> ChoiceReply:
        return structs.replace(
            choice,
            text=self._text(choice.text),
            refusal=self._text(choice.refusal),
            reasoning=self._reasoning(choice.reasoning),
            calls=self._calls(choice.calls),
        )

    def _reasoning(self, parts: Sequence[ReasoningPart]) -> tuple[ReasoningPart, ...]:
        kept = [structs.replace(part, text=self._text(part.text)) for part in parts[:MANY]]
        if more := len(parts) - len(kept):
            kept.append(ReasoningPart(kind=parts[-1].kind, text=_left_out(more, "further parts")))
        return tuple(kept)

    def _calls(self, calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
        kept = [
            structs.replace(call, name=self._text(call.name), arguments=self._text(call.arguments))
            for call in calls[:MANY]
        ]
        if more := len(calls) - len(kept):
            told = _left_out(more, "further tool calls")
            last = structs.replace(calls[-1], index=-1, id="", name="left out", arguments=told)
            kept.append(last)
        return tuple(kept)

    def _text(self, text: str) -> str:
        if (found := self._cut.get(text)) is not None:
            return found
        kept = text[: max(0, min(MOST, self._left))]
        self._left -= len(kept)
        if len(kept) < len(text):
            digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            kept += f" … (cut; the export has all {len(text):,} characters, SHA-256 {digest[:16]}…)"
        self._cut[text] = kept
        return kept


def _left_out(number: int, what: str) -> str:
    return f"{number:,} {what} are not shown: the export has them."
