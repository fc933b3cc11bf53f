"""What a caller has of a streamed reply, as far as it decides whether another model can go on with it."""

from __future__ import annotations

from collections.abc import Iterable

from llm_proxy.chat.events import CallDelta, Event, Finished, Reasoning, Refusal, ServerTool, Text


class Said:
    """Folds the events of one reply as they are released, over all the attempts that it came from.

    Events of other choices than the first settle that it can't go on: two texts can't be carried on at once.
    """

    __slots__ = ("_final", "_in_text", "_text", "parts", "size")

    def __init__(self, text: str = "", parts: int = 0) -> None:
        self._text = [text] if text else []
        self._in_text = bool(text)
        self._final = False
        self.size = len(text)
        """Characters of `text`."""
        self.parts = parts
        """Above every part of reasoning so far."""

    @property
    def text(self) -> str:
        return "".join(self._text)

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case Text(0, text):
                    if text:
                        self._text.append(text)
                        self._in_text = True
                        self.size += len(text)
                case Reasoning(0):
                    self._in_text = False
                    self.parts = max(self.parts, event.part + 1)
                case Text() | Reasoning() | CallDelta() | ServerTool() | Refusal() | Finished():
                    self._final = True
                case _:
                    pass

    def can_go_on(self) -> bool:
        """Whether a model that is given the text as its own would go on where this one stopped.

        Not before a visible word, not inside a thought (nobody but its author can end and seal it), and not
        past a tool call, a refusal or an end.
        """
        return self._in_text and not self._final and not self.text.isspace()
