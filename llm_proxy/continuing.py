"""Replies that another target goes on with where one is cut: when that may be, and how they are written."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llm_proxy.chat.events import CallDelta, Event, Finished, Frame, Reasoning, Refusal, Text
from llm_proxy.chat.said import Said
from llm_proxy.chat.seam import Seam
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.outgoing import read_prompt
from llm_proxy.output import Translated
from llm_proxy.resume import Left
from llm_proxy.wire.dialect import About, Denied, Dialect
from routing.targets import Resolved

_SHOWS = frozenset(
    {"logprobs", "top_logprobs", "web_search_options", "plugins", "mcp_servers", "container", "audio"}
)
"""Hints whose answer stands in a reply where only its own dialect has a place for it."""


def may_continue(exchange: Exchange, route: Resolved, *, strict: bool = False) -> bool:
    """Whether the call's reply may go on elsewhere, so that it has to be written anew from its start.

    Not where what goes to the next target would leave out something that only the first one's dialect can
    say of the reply. `strict`: nor where it would leave out anything.
    """
    request = exchange.request
    assert request is not None
    several = len(route.targets()) > 1
    streams = request.stream and request.n == 1 and not exchange.fetches and not exchange.answered_here
    if not (route.route.continues and several and streams and exchange.dialect.translation):
        return False
    try:
        dropped = read_prompt(exchange).dropped
    except ProxyError:  # no other dialect could be told; the one it came in may yet be
        return False
    return not (dropped if strict else any(map(_shows, dropped)))


def _shows(name: str) -> bool:
    """Also tools that the vendor runs itself (`tools[3] (web_search)`), whose work is part of the reply."""
    return name in _SHOWS or (name.startswith("tools[") and name.endswith(")"))


class Continuing(Translated):
    """Written anew, in the same dialect too, and so that another target may go on: `left` is what it needs.

    With `left` it goes on itself. Until something of meaning comes nothing is written then, so that an
    attempt which fails before leaves no trace.
    """

    continues = True

    def __init__(self, caller: Dialect, upstream: Dialect, about: About, left: Left | None = None) -> None:
        super().__init__(caller, upstream, about, left.renderer if left else None)
        self._said = Said(left.text, left.parts) if left else Said()
        self._seam: Seam | None = None
        self._waiting: list[Event] | None = None
        if left is not None:
            assert upstream.translation is not None
            self._seam = Seam(left.text, trimmed=upstream.translation.trims_ending, parts=left.parts)
            self._waiting = []

    def read(self, frame: Frame) -> Frame:
        read = super().read(frame)
        return (
            read if self._seam is None else Frame(read.raw, tuple(self._seam.split(read.events)), read.inert)
        )

    def judged(self, held: Sequence[Frame], denied: Denied, spoken: Collection[int]) -> bytes:
        return super().judged(held, denied, {*spoken, 0} if self._said.size else spoken)

    def close(self) -> bytes:
        return self._written(self._ending()) + self._renderer.close()

    def left(self) -> Left | None:
        said = self._said
        return Left(said.text, said.parts, self._renderer) if said.can_go_on() else None

    def _ending(self) -> Sequence[Event]:
        ending = super()._ending()
        return [*self._seam.split(ending), *self._seam.close()] if self._seam else ending

    def _render(self, events: Sequence[Event]) -> bytes:
        if self._waiting is not None:
            self._waiting += events
            return self._written([]) if any(map(_means, events)) else b""
        return self._written(events)

    def _written(self, events: Sequence[Event]) -> bytes:
        if self._waiting is not None:
            events, self._waiting = [*self._waiting, *events], None
        self._said.add(events)
        return self._renderer.render(events)


def _means(event: Event) -> bool:
    """Whether a caller would notice it."""
    match event:
        case Text(_, text) | Refusal(_, text) | Reasoning(_, text):
            return bool(text)
        case CallDelta():
            return bool(event.name or event.arguments)
        case _:
            return isinstance(event, Finished)
