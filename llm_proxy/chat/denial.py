"""A reply's events without the tool calls that were denied, for a reply that is written anew anyway."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from llm_proxy.chat.events import CallDelta, Event, Finished, Text

Denied = Mapping[tuple[int, int], str]
"""(choice, call index) of each denied call → the text that stands in its place."""


def without_denied(events: Iterable[Event], denied: Denied, spoken: Collection[int] = ()) -> list[Event]:
    """The events with each denied call's pieces left out and its note as text before its choice's finish.

    A choice that is left without a call ends with `stop`. In a choice of `spoken` (text went out before) the
    first note starts with an empty line.
    """
    held = list(events)
    calling = {e.choice for e in held if isinstance(e, CallDelta) and (e.choice, e.index) not in denied}
    notes: dict[int, list[str]] = {}
    for (choice, _), note in sorted(denied.items()):
        notes.setdefault(choice, []).append(note)
    out: list[Event] = []
    for event in held:
        if isinstance(event, CallDelta) and (event.choice, event.index) in denied:
            continue
        if isinstance(event, Finished):
            out += _notes(event.choice, notes, spoken)
            out.append(_ending(event, calling))
        else:
            out.append(event)
    for choice in sorted(notes):
        out += _notes(choice, notes, spoken)
    return out


def _ending(event: Finished, calling: Collection[int]) -> Finished:
    if event.reason == "tool_call" and event.choice not in calling:
        return Finished(event.choice, "stop")
    return event


def _notes(choice: int, notes: dict[int, list[str]], spoken: Collection[int]) -> list[Event]:
    due = notes.pop(choice, [])
    if not due:
        return []
    text = "\n\n".join(due)
    return [Text(choice, "\n\n" + text if choice in spoken else text)]
