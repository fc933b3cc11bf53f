"""How a reply reaches its caller: as the bytes that came, or written anew in the caller's dialect."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from msgspec import structs

from llm_proxy.chat.denial import without_denied
from llm_proxy.chat.events import CallDelta, Event, Finished, Frame
from llm_proxy.chat.thinking import ThinkTags
from llm_proxy.redacting.masking import Guard
from llm_proxy.redacting.replies import GuardedRenderer, guarded_body
from llm_proxy.resume import Left
from llm_proxy.wire.dialect import About, Denied, Dialect, Renderer


class Output(Protocol):
    """One reply's bytes for the caller. Stateful: frames come in the order in which they may be released."""

    anew: bool
    """Whether the caller gets other bytes than the model's server sent."""
    rendered: bool
    """Whether they are written from what the frames mean, and not from their bytes."""
    continues: bool
    """Whether another target may go on with what was written, if it's cut."""

    def read(self, frame: Frame) -> Frame:
        """The frame as the stages should see it."""
        ...

    def pass_on(self, frame: Frame) -> bytes: ...

    def judged(self, held: Sequence[Frame], denied: Denied, spoken: Collection[int]) -> bytes:
        """What stands for the frames that waited, now that their calls are judged."""
        ...

    def whole(self, frame: Frame, denied: Denied) -> bytes:
        """A reply that came as one body."""
        ...

    def close(self) -> bytes:
        """What ends a stream behind its last frame."""
        ...

    def left(self) -> Left | None:
        """What another target can go on from; None where it can't."""
        ...

    def onward(self) -> Renderer | None:
        """What writes the model's next reply behind this one; None where bytes are joined."""
        ...


class Verbatim:
    """The same dialect on both sides: bytes pass, and only frames with a denied call are edited."""

    anew = False
    rendered = False
    continues = False

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def read(self, frame: Frame) -> Frame:
        return frame

    def pass_on(self, frame: Frame) -> bytes:
        return frame.raw

    def judged(self, held: Sequence[Frame], denied: Denied, spoken: Collection[int]) -> bytes:
        if denied:
            return b"".join(self._dialect.edit_frames(held, denied, spoken))
        return b"".join([frame.raw for frame in held])

    def whole(self, frame: Frame, denied: Denied) -> bytes:
        return self._dialect.edit_body(frame.raw, denied) if denied else frame.raw

    def close(self) -> bytes:
        return b""

    def left(self) -> None:
        return None

    def onward(self) -> None:
        return None


class Translated:
    """Another dialect on the caller's side: every event is rendered in it."""

    anew = True
    rendered = True
    continues = False

    def __init__(
        self, caller: Dialect, upstream: Dialect, about: About, renderer: Renderer | None = None
    ) -> None:
        translation = caller.translation
        assert translation is not None
        self._renderer: Renderer = renderer or translation.renderer(about)
        self._render_body = translation.render_body
        self._call_id = translation.call_id
        self._guards = isinstance(renderer, GuardedRenderer)
        self._about = about
        self._tags = ThinkTags() if upstream.inline_reasoning else None

    def guarded(self, guard: Guard) -> None:
        """From now on the caller gets what the guard lets them read. Before anything is written."""
        if not self._guards:
            self._renderer = GuardedRenderer(self._renderer, guard)
            self._guards = True
        self._render_body = guarded_body(self._render_body, guard)

    def read(self, frame: Frame) -> Frame:
        """Calls have the ids under which the agent knows them, since its results will name these."""
        events: Sequence[Event] = self._tags.split(frame.events) if self._tags else frame.events
        if self._call_id is not None and any(type(event) is CallDelta for event in events):
            events = [self._renamed(event) for event in events]
        return frame if events is frame.events else Frame(frame.raw, tuple(events), frame.inert)

    def _renamed(self, event: Event) -> Event:
        if self._call_id is None or not isinstance(event, CallDelta) or not event.id:
            return event
        return structs.replace(event, id=self._call_id(event.id))

    def pass_on(self, frame: Frame) -> bytes:
        return self._render(frame.events)

    def judged(self, held: Sequence[Frame], denied: Denied, spoken: Collection[int]) -> bytes:
        events = _ends_last([event for frame in held for event in frame.events])
        return self._render(without_denied(events, denied, spoken) if denied else events)

    def whole(self, frame: Frame, denied: Denied) -> bytes:
        events = without_denied(frame.events, denied) if denied else frame.events
        return self._render_body(events, self._about)

    def close(self) -> bytes:
        return self._render(self._ending()) + self._renderer.close()

    def left(self) -> Left | None:
        return None

    def onward(self) -> Renderer:
        return self._renderer

    def _ending(self) -> Sequence[Event]:
        """What still waited when the stream ended."""
        return self._tags.close() if self._tags else []

    def _render(self, events: Sequence[Event]) -> bytes:
        return self._renderer.render(events)


def _ends_last(events: list[Event]) -> list[Event]:
    """With what ends a choice behind the last piece of a call, where a server sent it before."""
    last = max((n for n, event in enumerate(events) if isinstance(event, CallDelta)), default=-1)
    early = [event for event in events[: last + 1] if isinstance(event, Finished)]
    if not early:
        return events
    kept = [event for event in events[: last + 1] if not isinstance(event, Finished)]
    return [*kept, *early, *events[last + 1 :]]
