"""Which recorded call answers a live request: the one that asked the same, else the next in order. Pure.

Calls that ran at once may come in another order, and a retry repeats a request. So a request is looked for
among the next WINDOW calls by what it asks. Only one that none of them asked takes the next in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from llm_proxy.replaying.compare import Asked, Difference, differences, same

WINDOW = 32
"""Calls ahead, the next included."""


class Recorded(Protocol):
    """What matching knows of a recorded call."""

    @property
    def asked(self) -> Asked: ...

    @property
    def masked(self) -> bool: ...


class Match(NamedTuple):
    """The recorded call (its place, from 0) for one live request. No differences: it asked the same."""

    place: int
    differences: tuple[Difference, ...] = ()
    again: bool = False
    """It was asked the same before, and answered."""


class Matching:
    """How far a live agent has come through the recorded calls."""

    def __init__(self, calls: Sequence[Recorded]) -> None:
        self._calls = calls
        self._ahead = list(range(len(calls)))
        """Not served yet, in order."""
        self._served: list[int] = []
        self._unasked = set(self._ahead)
        """Served to nobody who asked the same."""

    @property
    def ahead(self) -> tuple[int, ...]:
        """Places of the calls that nobody was answered with yet."""
        return tuple(self._ahead)

    def take(self, live: Asked) -> Match | None:
        """The call to answer with; None where none is left."""
        near = self._ahead[:WINDOW]
        place = self._asking(near, live)
        if place is not None:
            self._serve(place)
            self._unasked.discard(place)
            return Match(place)
        place = self._asking(reversed(self._served), live)
        if place is not None:
            again = place not in self._unasked
            self._unasked.discard(place)
            return Match(place, again=again)
        if not near:
            return None
        place = next((each for each in near if self._calls[each].asked.dialect == live.dialect), near[0])
        self._serve(place)
        call = self._calls[place]
        return Match(place, tuple(differences(call.asked, live, masked=call.masked)))

    def unheard(self, match: Match) -> None:
        """The agent left before it had the reply: asking again is no divergence."""
        self._unasked.add(match.place)

    def _serve(self, place: int) -> None:
        self._ahead.remove(place)
        self._served.append(place)

    def _asking(self, places: Iterable[int], live: Asked) -> int | None:
        for place in places:
            call = self._calls[place]
            if same(call.asked, live, masked=call.masked):
                return place
        return None
