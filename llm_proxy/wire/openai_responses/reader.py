"""OpenAI Responses, a stream read as one: what a client could run is what was judged, or it is `Unreadable`.

A stream says each call up to five times: the item as it is added, the deltas of its arguments, these whole,
the item as it is done, and once more in the final response. Clients differ in which of these they act on, so
all have to agree, and no frame by itself can tell. A call that is said late (a server that sends no deltas,
or nothing but the final response) becomes an event when it is first said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llm_proxy.chat.events import CallDelta, Event, Frame, Started, Unreadable
from llm_proxy.wire.openai_responses.calls import OutputCall, is_document, matching, same, writes_arguments
from llm_proxy.wire.openai_responses.reply import Item, Place, read
from llm_proxy.wire.sse import SseFrame


def stream_reader() -> Callable[[SseFrame], Frame]:
    """What reads the frames of one stream."""
    return Reader().read


class Reader:
    """Reads the frames of one stream, in order. One per attempt; not thread-safe."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls = _Calls()

    def read(self, sse: SseFrame) -> Frame:
        """One frame, as `reply.read_frame`, with every call held against what was said of it before."""
        frame = read(sse, self._calls)
        if self._calls.silent and any(type(event) is not Started for event in frame.events):
            self._calls.silent = False
        return frame


class _Call:
    """What was said of one call so far."""

    __slots__ = ("custom", "id", "name", "repeated", "repeats", "said", "type", "whole")

    def __init__(self, type_: str = "", id_: str = "", name: str = "", *, custom: bool = False) -> None:
        self.type = type_
        self.id = id_
        self.name = name
        self.custom = custom
        self.said: list[str] = []
        """The arguments that became events."""
        self.repeats = False
        """They came whole when the item was added: deltas say them again."""
        self.repeated: list[str] = []
        self.whole = False
        """They were said whole, though it may be with nothing in them."""


class _Calls:
    __slots__ = ("_calls", "_indexes", "_kinds", "silent")

    def __init__(self) -> None:
        self.silent = True
        self._calls: dict[int, _Call] = {}
        self._kinds: dict[int, str] = {}
        """Every item's type, by index."""
        self._indexes: dict[str, int] = {}
        """Every item's index, by its ids."""

    @property
    def any(self) -> bool:
        return bool(self._calls)

    def added(self, place: Place, item: Item) -> Sequence[Event]:
        index = self._index(place, new=True)
        call = item.call
        if index is None or index in self._kinds or index in self._calls:
            if call is None and index not in self._calls:
                return ()
            return [Unreadable("Two items of the reply stand in one place")]
        self.silent = False
        self._kinds[index] = item.called.type or ""
        if call is None:
            return ()
        known = self._calls[index] = _Call(call.type, call.id, call.name, custom=call.custom)
        arguments = call.arguments if writes_arguments(call) else ""
        if arguments:
            known.said.append(arguments)
            known.repeats = call.custom or is_document(arguments)
        return [CallDelta(0, index, call.id, call.name, arguments, call.custom)]

    def delta(self, place: Place, text: str, *, custom: bool) -> Sequence[Event]:
        index, known = self._known(place, custom=custom)
        if known is None:
            return [Unreadable("Arguments came for no tool call")]
        if known.whole:
            return [Unreadable(f"More arguments came for tool call {known.id!r} once they were whole")]
        if known.repeats:
            known.repeated.append(text)
            return [CallDelta(0, index)]
        known.said.append(text)
        return [CallDelta(0, index, "", "", text, custom)]

    def written(self, place: Place, text: str, name: str, *, custom: bool) -> Sequence[Event]:
        index, known = self._known(place, custom=custom)
        if known is None:
            return [Unreadable("Arguments came for no tool call")]
        if name and known.name and not known.name.endswith(name):  # its namespace is not repeated here
            return [Unreadable(f"The tool call {known.id!r} changes its name")]
        return _settle(index, known, text)

    def done(self, place: Place, item: Item) -> Sequence[Event]:
        index = self._index(place, new=True)
        call = item.call
        if index is None:
            return () if call is None else [Unreadable("An item of the reply stands in two places")]
        known = self._calls.get(index)
        if call is None:
            self._kinds.setdefault(index, item.called.type or "")
            return [Unreadable("A tool call became another item")] if known else ()
        if known is None and index in self._kinds:
            return [Unreadable("An item of the reply became a tool call")]
        return self._repeated(index, call)

    def final(self, output: Sequence[Item]) -> Sequence[Event]:
        events: list[Event] = []
        ids = {index: known.id for index, known in self._calls.items()}
        taken: set[int] = set()
        for position, item in enumerate(output):
            if item.call is None:
                continue
            index = matching(position, item.call.id, ids, taken)
            if index is None:
                used = self._kinds.keys() | self._calls.keys()
                index = position if position not in used else max(*used, len(output)) + 1
            taken.add(index)
            events += self._repeated(index, item.call)
        return events

    def _repeated(self, index: int, call: OutputCall) -> list[Event]:
        """A call said whole: the rest of what was said of it, or all of it where nothing was."""
        known = self._calls.get(index)
        if known is None or not known.type:
            known = known or _Call(custom=call.custom)
            fresh = [CallDelta(0, index, call.id, call.name, "", call.custom)]
            known.type, known.id, known.name = call.type, call.id, call.name
            self._calls[index] = known
            self._kinds[index] = call.type
        else:
            fresh = []
        if (known.type, known.id, known.name, known.custom) != (call.type, call.id, call.name, call.custom):
            return [Unreadable(f"The tool call {known.id!r} changes while it is repeated")]
        return [*fresh, *_settle(index, known, call.arguments)]

    def _known(self, place: Place, *, custom: bool) -> tuple[int, _Call | None]:
        """The call that an event is about; a new one where none was announced at its place."""
        index = self._index(place, new=False)
        if index is None:
            return 0, None
        known = self._calls.get(index)
        if known is None and index not in self._kinds:
            known = self._calls[index] = _Call(custom=custom)
        return index, known if known and known.custom == custom else None

    def _index(self, place: Place, *, new: bool) -> int | None:
        """The index of the item at a place; None where its ids and its index disagree, or say nothing."""
        found = {self._indexes[id_] for id_ in place.ids if id_ in self._indexes}
        index = place.at
        if index is None:
            if not found and new:
                found = {max([*self._kinds, *self._calls], default=-1) + 1}
            if len(found) != 1:
                return None
            (index,) = found
        elif found - {index}:
            return None
        for id_ in place.ids:
            self._indexes[id_] = index
        return index


def _settle(index: int, known: _Call, final: str) -> list[Event]:
    """Arguments said whole: they are the event where none came before, else they must be the same."""
    said = "".join(known.said)
    first, known.whole = not known.whole, True
    if not said and first:
        known.said.append(final)
        return [CallDelta(0, index, "", "", final, known.custom)]
    again = "".join(known.repeated)
    if not same(said, final, custom=known.custom) or (again and not same(said, again, custom=known.custom)):
        return [Unreadable(f"The arguments of tool call {known.id!r} change while they are repeated")]
    return [CallDelta(0, index)]
