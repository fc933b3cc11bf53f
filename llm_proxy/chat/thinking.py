"""Reasoning that a server leaves inside the text, between tags, taken out of it.

Raw templates write `<think>…</think>` (also `thinking`; `thought` at Gemini's compatible endpoint). A tag
counts only where a choice's text begins, whitespace aside, and again right behind a thought that just ended:
in the middle of an answer it is as likely to be quoted, in code or in talk about tags, and text that vanished
would be worse than a thought that stays in the text. A template that opens the tag itself (`prefilled`)
leaves only the closing tag to be seen: everything up to it is reasoning.

Whitespace before an opening tag, behind it, and behind a closing one belongs to the template and is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_proxy.chat.events import (
    CallDelta,
    Ended,
    Event,
    Finished,
    Reasoning,
    ReasoningKind,
    Refusal,
    Text,
)

FIRST_PART = 1 << 16
"""The `part` of a choice's first thought, above every index that a server gives its own parts."""

_NAMES = ("think", "thinking", "thought")
_OPENERS = tuple(f"<{name}>" for name in _NAMES)
_CLOSERS = tuple(f"</{name}>" for name in _NAMES)
_MOST_SPACE = 64
"""Whitespace characters before which an opening tag still counts; more is text."""


class ThinkTags:
    """Turns tagged text of a reply's events into `Reasoning`, however the text is cut. One per reply.

    What may be the start of a tag waits until it is decided; everything else passes at once. `prefilled`:
    every choice begins inside a thought.
    """

    __slots__ = ("_choices", "_prefilled")

    def __init__(self, *, prefilled: bool = False) -> None:
        self._choices: dict[int, _Choice] = {}
        self._prefilled = prefilled

    def split(self, events: Sequence[Event]) -> Sequence[Event]:
        """The events with the tagged text as reasoning; the same object where nothing changes."""
        if len(events) == 1 and isinstance(event := events[0], Text):
            state = self._choices.get(event.choice)
            if state is not None and state.past:
                return events
        out: list[Event] = []
        for event in events:
            match event:
                case Text(choice, text):
                    state = self._choices.get(choice)
                    if state is None:
                        state = self._choices[choice] = _Choice(choice, prefilled=self._prefilled)
                    if state.plain(text):
                        out.append(event)
                    else:
                        state.add(text, out)
                case CallDelta() | Refusal():
                    self._flush(event.choice, out)
                    out.append(event)
                case Finished(choice):
                    self._flush(choice, out)
                    out.append(event)
                case Ended():
                    out += self.close()
                    out.append(event)
                case _:
                    out.append(event)
        if len(out) == len(events) and all(map(_same, out, events)):
            return events
        return out

    def close(self) -> list[Event]:
        """What still waits, once the reply is over or was cut."""
        out: list[Event] = []
        for choice in sorted(self._choices):
            self._flush(choice, out)
        return out

    def _flush(self, choice: int, out: list[Event]) -> None:
        if state := self._choices.get(choice):
            state.flush(out)


def split_inline(text: str) -> tuple[str, str]:
    """The reasoning inside a whole text, and the rest of it. Thoughts are joined by a line end.

    A text that opens no thought but closes one is taken for what a prefilled template leaves, so this is for
    showing what was said and not for changing it.
    """
    start = text.lstrip()
    opened = start.startswith(_OPENERS)
    if not opened and not _closes_unopened(text):
        return "", text
    filter_ = ThinkTags(prefilled=not opened)
    events = [*filter_.split([Text(0, text)]), *filter_.close()]
    thoughts: dict[int, str] = {}
    for event in events:
        if isinstance(event, Reasoning):
            thoughts[event.part] = thoughts.get(event.part, "") + event.text
    rest = "".join([event.text for event in events if isinstance(event, Text)])
    return "\n".join([thought.rstrip() for thought in thoughts.values()]), rest


class _Choice:
    """Where one choice's text stands: before a thought that may come, inside of one, or past them all."""

    __slots__ = ("_choice", "_closers", "_fresh", "_held", "_inside", "_part", "past")

    def __init__(self, choice: int, *, prefilled: bool) -> None:
        self._choice = choice
        self._inside = prefilled
        self.past = False
        """No tag counts from here on."""
        self._fresh = True
        """Nothing but whitespace came since the last tag, or since the text began."""
        self._closers = _CLOSERS
        self._part = FIRST_PART
        self._held = ""

    def plain(self, text: str) -> bool:
        """Whether this text passes as it is. Decides, too, that text which can open no thought has begun."""
        if self.past:
            return True
        if self._inside or self._held or not text or text[0] == "<" or text[0].isspace():
            return False
        self.past = True
        return True

    def add(self, text: str, out: list[Event]) -> None:
        waiting = self._held + text
        self._held = ""
        while waiting:
            if self.past:
                out.append(Text(self._choice, waiting))
                return
            waiting = self._think(waiting, out) if self._inside else self._begin(waiting)

    def flush(self, out: list[Event]) -> None:
        held, self._held = self._held, ""
        if held:
            out.append(self._thought(held) if self._inside else Text(self._choice, held))

    def _begin(self, text: str) -> str:
        """Look for an opening tag at the start; return what is still to be read, nothing where it waits."""
        start = text.lstrip()
        if self._part > FIRST_PART:  # behind a thought
            text = start
        elif len(text) - len(start) > _MOST_SPACE:
            self.past = True
            return text
        for opener, closer in zip(_OPENERS, _CLOSERS, strict=True):
            if start.startswith(opener):
                self._inside = self._fresh = True
                self._closers = (closer,)
                return start[len(opener) :]
        if not _may_become(start, _OPENERS):
            self.past = True
            return text
        self._held = text
        return ""

    def _think(self, text: str, out: list[Event]) -> str:
        """Take reasoning up to the closing tag; return what follows it."""
        if self._fresh:
            text = text.lstrip()
            if not text:
                return ""
            if len(self._closers) > 1:  # prefilled, and yet some models open the thought again
                for opener in _OPENERS:
                    if text.startswith(opener):
                        return text[len(opener) :]
                if _may_become(text, _OPENERS):
                    self._held = text
                    return ""
        found = [(at, closer) for closer in self._closers if (at := text.find(closer)) >= 0]
        if found:
            at, closer = min(found)
            if at:
                out.append(self._thought(text[:at]))
            self._inside = False
            self._part += 1
            return text[at + len(closer) :]
        self._held = text[_tail(text, self._closers) :]
        words = text[: len(text) - len(self._held)]
        if words:
            self._fresh = False
            out.append(self._thought(words))
        return ""

    def _thought(self, words: str) -> Reasoning:
        return Reasoning(self._choice, words, ReasoningKind.INLINE_TAG, self._part)


def _may_become(text: str, tags: tuple[str, ...]) -> bool:
    return any(tag.startswith(text) for tag in tags)


def _tail(text: str, tags: tuple[str, ...]) -> int:
    """Where a tag may have begun that the text ends inside of; the text's length where none has."""
    at = text.rfind("<")
    return at if at >= 0 and _may_become(text[at:], tags) else len(text)


def _closes_unopened(text: str) -> bool:
    closed = [at for tag in _CLOSERS if (at := text.find(tag)) >= 0]
    return bool(closed) and not any(0 <= text.find(tag) < min(closed) for tag in _OPENERS)


def _same(one: Event, other: Event) -> bool:
    return one is other
