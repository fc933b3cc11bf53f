"""How a caller gets the reply of a model that was asked again: behind what it has of the replies before."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import structs

from llm_proxy.chat.denial import without_denied
from llm_proxy.chat.events import CallDelta, Ended, Event, Finished, Frame, Text, Usage, UsageSeen
from llm_proxy.continuing import Continuing
from llm_proxy.output import Verbatim
from llm_proxy.resume import Left
from llm_proxy.rounds import Round
from llm_proxy.wire.dialect import About, Denied, Dialect, Renderer

_APART = "\n\n"


class Joined(Verbatim):
    """The same dialect on both sides: the frames as they came, numbered on; whole replies put together.

    `waiting`: words of the reply before that did not go out yet.
    """

    anew = True

    def __init__(
        self, dialect: Dialect, so_far: bytes, rounds: Sequence[Round], waiting: Sequence[Event]
    ) -> None:
        super().__init__(dialect)
        assert dialect.onwards is not None
        came = [round_.emitted.getvalue() for round_ in rounds]
        self._came = came
        self._join = dialect.onwards.body
        self._first = b""
        if not rounds[-1].whole:
            self._onward = dialect.onwards.stream(so_far, came)
            words = "".join([event.text for event in waiting if isinstance(event, Text)])
            self._first = self._onward.say(words) if words.strip() else b""

    def pass_on(self, frame: Frame) -> bytes:
        return self._with_first(self._onward.frame(frame.raw))

    def judged(self, held: Sequence[Frame], denied: Denied, spoken: Collection[int]) -> bytes:
        frames = self._dialect.edit_frames(held, denied, spoken) if denied else [frame.raw for frame in held]
        return self._with_first(b"".join([self._onward.frame(raw) for raw in frames]))

    def whole(self, frame: Frame, denied: Denied) -> bytes:
        return self._join(self._came, super().whole(frame, denied))

    def _with_first(self, data: bytes) -> bytes:
        first, self._first = self._first, b""
        return first + data


class JoinedAnew(Continuing):
    """Written anew: the renderer of the reply before goes on. `renderer` is its own."""

    continues = False

    def __init__(
        self,
        caller: Dialect,
        upstream: Dialect,
        about: About,
        renderer: Renderer,
        rounds: Sequence[Round],
        waiting: Sequence[Event],
    ) -> None:
        shown = [event for round_ in rounds for event in round_.shown if _goes(event)]
        self._earlier: tuple[Event, ...] = tuple(shown)
        self._about_reply = about
        parts = sum([round_.parts for round_ in rounds])
        super().__init__(caller, upstream, about, Left("", parts, renderer))
        self._usage = added([round_.usage for round_ in rounds])
        self._apart = any(round_.spoke for round_ in rounds)
        assert self._waiting is not None
        self._waiting += waiting

    def left(self) -> None:
        return None

    def whole(self, frame: Frame, denied: Denied) -> bytes:
        events = without_denied(frame.events, denied) if denied else frame.events
        return self._render_body([*self._earlier, *self._onwards(events)], self._about_reply)

    def _render(self, events: Sequence[Event]) -> bytes:
        return super()._render(self._onwards(events))

    def _ending(self) -> Sequence[Event]:
        return self._onwards(super()._ending())

    def _onwards(self, events: Sequence[Event]) -> list[Event]:
        """As they follow what was said before: words an empty line apart, usage added up."""
        out: list[Event] = []
        for event in events:
            match event:
                case Text(0, text) if self._apart and text:
                    self._apart = False
                    out.append(Text(0, _APART + text))
                case UsageSeen():
                    out.append(structs.replace(event, usage=added([self._usage, event.usage])))
                case _:
                    out.append(event)
        return out


def added(usages: Sequence[Usage]) -> Usage:
    """The sum of all."""
    counts = zip(*[structs.astuple(usage) for usage in usages], strict=True)
    return Usage(**dict(zip(Usage.__struct_fields__, map(sum, counts), strict=True)))


def _goes(event: Event) -> bool:
    """Whether it stays in the reply where the model is asked again: its calls and its end don't."""
    return not isinstance(event, CallDelta | Finished | UsageSeen | Ended)
