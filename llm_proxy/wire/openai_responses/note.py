"""OpenAI Responses, the message that stands where denied tool calls were, whole and as events of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from llm_proxy.wire.sse import render
from llm_proxy.wire.toolids import fitting

_LONGEST_ID = 64

_encode = msgspec.json.Encoder().encode


class Note:
    """An assistant's message. Its id is made of a denied call's, so that it is told from any other's."""

    __slots__ = ("_id", "text")

    def __init__(self, call_id: str, notes: Sequence[str]) -> None:
        self._id = fitting(f"msg_{call_id or 'denied'}", _LONGEST_ID)
        self.text = "\n\n".join(notes)

    def item(self) -> bytes:
        return _encode(self._item("completed", [self._part(self.text)]))

    def frames(self, index: int | None, sequence: int | None) -> list[bytes]:
        """The six events that bring the message. Both numbers are left out where the server sends none."""
        at: dict[str, Any] = {} if index is None else {"output_index": index}
        within = {"item_id": self._id, **at, "content_index": 0}
        events: list[dict[str, Any]] = [
            {"type": "response.output_item.added", **at, "item": self._item("in_progress", [])},
            {"type": "response.content_part.added", **within, "part": self._part("")},
            {"type": "response.output_text.delta", **within, "delta": self.text, "logprobs": []},
            {"type": "response.output_text.done", **within, "text": self.text, "logprobs": []},
            {"type": "response.content_part.done", **within, "part": self._part(self.text)},
            {"type": "response.output_item.done", **at, "item": msgspec.Raw(self.item())},
        ]
        if sequence is not None:
            events = [{**event, "sequence_number": sequence + more} for more, event in enumerate(events)]
        return [render(_encode(event), event["type"]) for event in events]

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "status": status,
            "content": content,
            "role": "assistant",
        }
