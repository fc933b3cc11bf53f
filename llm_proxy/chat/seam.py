"""Where a reply that was cut goes on at another model: what is said a second time there is left out."""

from __future__ import annotations

from collections.abc import Iterable

from llm_proxy.chat.events import CallDelta, Event, Finished, Reasoning, Refusal, Text


class Seam:
    """Filters the events of a model that was given `text` as the start of its own reply. One choice.

    Some servers begin by repeating all of it: a full and exact repetition is left out, anything less is new.
    `trimmed`: it was sent without the blank space at its end, so as much of that as the model begins with is
    said already. Parts of reasoning count on from `parts`.
    """

    __slots__ = ("_blank", "_given", "_held", "_parts")

    def __init__(self, text: str, *, trimmed: bool = False, parts: int = 0) -> None:
        self._given = text.rstrip() if trimmed else text
        """What may still be repeated; empty once it's decided."""
        self._blank = text[len(self._given) :]
        """What it may begin with, since it was trimmed."""
        self._held = ""
        self._parts = parts

    def split(self, events: Iterable[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            match event:
                case Text(0, text):
                    out += self._said(self._new(text))
                case Reasoning(choice, text, kind, part, signature, id_, format_):
                    part += self._parts
                    out.append(Reasoning(choice, text, kind, part, signature, id_, format_))
                case CallDelta() | Refusal() | Finished():
                    out += self.close()
                    out.append(event)
                case _:
                    out.append(event)
        return out

    def close(self) -> list[Event]:
        """What still waits, once no more text can come."""
        self._given = ""
        return self._said(self._take())

    def _new(self, text: str) -> str:
        self._held += text
        if self._given.startswith(self._held) and self._held != self._given:
            return ""
        if self._given and self._held.startswith(self._given):
            self._held = self._held[len(self._given) :]
        self._given = ""
        if len(self._held) < len(self._blank) and not self._held.strip():
            return ""
        return self._take()

    def _take(self) -> str:
        """All that was held, less the blank space that is said already."""
        text, self._held = self._held, ""
        blank, self._blank = self._blank, ""
        return text[_overlap(blank, text) :]

    def _said(self, text: str) -> list[Event]:
        return [Text(0, text)] if text else []


def after(text: str, more: str, *, trimmed: bool = False) -> str:
    """What of `more`, all that a model said which was given `text`, is new."""
    seam = Seam(text, trimmed=trimmed)
    events = [*seam.split([Text(0, more)]), *seam.close()]
    return "".join([event.text for event in events if isinstance(event, Text)])


def _overlap(blank: str, text: str) -> int:
    """How much of the end of `blank` the text begins with."""
    sizes = range(min(len(blank), len(text)), 0, -1)
    return next((size for size in sizes if text.startswith(blank[-size:])), 0)
