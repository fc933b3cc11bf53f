"""A reply's events as its caller may read them: values masked in its words, and in its calls' arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import structs

from llm_proxy.chat.events import CallDelta, Ended, Event, Finished, Reasoning, ReasoningKind, Refusal, Text
from llm_proxy.chat.reply import OPAQUE
from llm_proxy.redacting.masking import Guard, TextMask
from llm_proxy.wire.dialect import About, Renderer

_ReasoningKey = tuple[int, int, ReasoningKind]


class Masks:
    """One reply's. What waits in one of its texts comes out before anything that is said behind it."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._texts: dict[int, TextMask] = {}
        self._refusals: dict[int, TextMask] = {}
        self._thoughts: dict[_ReasoningKey, tuple[TextMask, Reasoning]] = {}
        self._calls: dict[int, list[CallDelta]] = {}

    def through(self, events: Sequence[Event]) -> list[Event]:
        """The events as far as they may go out."""
        out: list[Event] = []
        for event in events:
            match event:
                case Text(choice, text) if self._guard.masks:
                    self._quiet_thoughts(choice, out)
                    self._say(Text(choice, self._mask(self._texts, choice).feed(text)), out)
                case Refusal(choice, text) if self._guard.masks:
                    self._quiet_thoughts(choice, out)
                    self._say(Refusal(choice, self._mask(self._refusals, choice).feed(text)), out)
                case Reasoning() if self._guard.masks and event.kind not in OPAQUE:
                    self._think(event, out)
                case CallDelta() if self._guard.args:
                    self._calls.setdefault(event.choice, []).append(event)
                case CallDelta(choice):
                    self._quiet(choice, out)
                    out.append(event)
                case Finished(choice):
                    self._finish(choice, out)
                    out.append(event)
                case Ended():
                    out += self.close()
                    out.append(event)
                case _:
                    out.append(event)
        return out

    def close(self) -> list[Event]:
        """All that waits: the reply is over."""
        out: list[Event] = []
        choices = {*self._texts, *self._refusals, *self._calls, *(key[0] for key in self._thoughts)}
        for choice in sorted(choices):
            self._finish(choice, out)
        return out

    def _mask(self, masks: dict[int, TextMask], choice: int) -> TextMask:
        mask = masks.get(choice)
        if mask is None:
            mask = masks[choice] = TextMask(self._guard)
        return mask

    def _say(self, event: Text | Refusal, out: list[Event]) -> None:
        if event.text:
            out.append(event)

    def _think(self, event: Reasoning, out: list[Event]) -> None:
        key = event.choice, event.part, event.kind
        self._quiet_texts(event.choice, out)
        for other in [k for k in self._thoughts if k[0] == event.choice and k != key]:
            self._quiet_thought(other, out)
        mask = self._thoughts[key][0] if key in self._thoughts else TextMask(self._guard)
        self._thoughts[key] = mask, event
        said = mask.feed(event.text)
        if event.signature or not event.text:
            said += mask.end()  # a part is signed at its end
        if said or event.signature or event.id or not event.text:
            out.append(structs.replace(event, text=said))

    def _quiet(self, choice: int, out: list[Event]) -> None:
        self._quiet_thoughts(choice, out)
        self._quiet_texts(choice, out)

    def _quiet_thoughts(self, choice: int, out: list[Event]) -> None:
        for key in [k for k in self._thoughts if k[0] == choice]:
            self._quiet_thought(key, out)

    def _quiet_thought(self, key: _ReasoningKey, out: list[Event]) -> None:
        mask, last = self._thoughts[key]
        if said := mask.pause():
            out.append(structs.replace(last, text=said, signature="", id=""))

    def _quiet_texts(self, choice: int, out: list[Event]) -> None:
        if (mask := self._texts.get(choice)) and (said := mask.pause()):
            out.append(Text(choice, said))
        if (mask := self._refusals.get(choice)) and (said := mask.pause()):
            out.append(Refusal(choice, said))

    def _finish(self, choice: int, out: list[Event]) -> None:
        self._quiet(choice, out)
        self._texts.pop(choice, None)
        self._refusals.pop(choice, None)
        for key in [k for k in self._thoughts if k[0] == choice]:
            del self._thoughts[key]
        out += self._whole_calls(choice)

    def _whole_calls(self, choice: int) -> list[Event]:
        """The calls of a choice, each as one event with its arguments as they may be seen."""
        calls: dict[int, CallDelta] = {}
        for delta in self._calls.pop(choice, ()):
            known = calls.get(delta.index)
            calls[delta.index] = delta if known is None else _joined(known, delta)
        get = self._guard.arguments
        return [structs.replace(call, arguments=get(call.name, call.arguments)) for call in calls.values()]


def _joined(call: CallDelta, more: CallDelta) -> CallDelta:
    return CallDelta(
        call.choice,
        call.index,
        call.id or more.id,
        call.name + more.name,
        call.arguments + more.arguments,
        call.custom or more.custom,
        call.signature or more.signature,
    )


class GuardedRenderer:
    """Writes a reply anew, as its caller may read it."""

    def __init__(self, inner: Renderer, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard
        self._masks = Masks(guard)

    def render(self, events: Sequence[Event]) -> bytes:
        return self._inner.render(self._masks.through(events))

    def close(self) -> bytes:
        waited = self._masks.close()
        return (self._inner.render(waited) if waited else b"") + self._inner.close()


def guarded_body(
    render: Callable[[Sequence[Event], About], bytes], guard: Guard
) -> Callable[[Sequence[Event], About], bytes]:
    """What writes a whole reply anew, as its caller may read it."""

    def write(events: Sequence[Event], about: About) -> bytes:
        return render(masked(events, guard), about)

    return write


def masked(events: Sequence[Event], guard: Guard) -> list[Event]:
    """A whole reply's events as its caller may read them."""
    masks = Masks(guard)
    return [*masks.through(events), *masks.close()]
