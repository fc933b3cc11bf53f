"""The bytes of one attempt on their way: parsed once, folded, gated, and pushed into the caller's sink."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from llm_proxy.chat.events import (
    CallDelta,
    Ended,
    Failed,
    Finished,
    Frame,
    Reasoning,
    Text,
    Unreadable,
    UsageSeen,
)
from llm_proxy.chat.reply import Assembly, ToolCall
from llm_proxy.exchange import Exchange
from llm_proxy.policy.gate import Gate, GateOverflow
from llm_proxy.upstream.provider import UpstreamFailure
from llm_proxy.wire.sse import FrameTooLarge, SseReader
from routing.failures import FailureKind, classify_in_band

Denied = Mapping[tuple[int, int], str]
"""Notes that stand in place of denied calls, by (choice, index)."""
Judge = Callable[[tuple[ToolCall, ...]], Awaitable[Denied]]

MAX_REPLY = 256 << 20
"""Bytes of a reply that the record will keep."""


class Sink(Protocol):
    """Where a reply goes. Only the sink knows whether the caller gets a stream or a body."""

    started: bool
    """Whether anything has reached the caller."""

    async def release(self, data: bytes) -> None: ...

    async def finish(self, tail: bytes) -> None: ...


_MEANS = (Text, Reasoning, CallDelta, Finished)


class Flow:
    """One attempt's reply. `feed` its bytes, then `end` it; `tail` is what waits for the record's commit.

    Raises UpstreamFailure for what makes the attempt a failed one.
    """

    def __init__(
        self, exchange: Exchange, sink: Sink, judge: Judge, *, judging: bool, choices: int, hide_usage: bool
    ) -> None:
        self._exchange = exchange
        self._dialect = exchange.dialect
        self._sink = sink
        self._judge = judge
        self._gate = Gate(judging=judging)
        self._choices = choices
        self._hide_usage = hide_usage
        self._reader: SseReader | None = None
        self._whole: list[bytes] = []
        self._size = 0
        self._early: list[bytes] = []
        self._meant = False
        self._released: list[bytes] = []
        self._tail: list[bytes] = []
        self._changed = False
        self._edited: list[bytes] | None = None
        self.assembly = Assembly()
        self.emitted: list[bytes] = []
        self.streamed = True
        self._wants_stream = exchange.request is not None and exchange.request.stream

    def begin(self, *, streamed: bool) -> None:
        """The reply's head has come: it's an event stream or a whole body."""
        self.streamed = streamed
        if streamed and not self._wants_stream:
            raise UpstreamFailure(
                FailureKind.MALFORMED, "the target streamed a reply that was asked for whole"
            )

    async def feed(self, chunk: bytes) -> None:
        """Bytes as they came off the socket."""
        self.emitted.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_REPLY:
            raise UpstreamFailure(FailureKind.MALFORMED, f"the reply is over {MAX_REPLY >> 20} MiB")
        if not self.streamed:
            return
        try:
            if self._reader is None:
                self._reader = SseReader()
            frames = self._reader.feed(chunk)
        except FrameTooLarge as error:
            raise UpstreamFailure(FailureKind.MALFORMED, "one event of the stream is too large") from error
        read = self._dialect.read_frame
        ready = [frame.raw for sse in frames if self._admit(frame := read(sse))]
        if not self._meant:
            self._early += ready
            ready = self._early if self._seen_meaning() else []
        if ready:
            self._released += ready
            await self._sink.release(b"".join(ready))

    async def end(self) -> bytes:
        """The reply ended. Judges what was held; returns the bytes that wait for the record's commit."""
        if self.streamed:
            self._close_stream()
        else:
            self._admit(self._dialect.read_body(b"".join(self.emitted)))
            if self._wants_stream:  # a whole body would look to its SDK like a stream without events
                raise UpstreamFailure(FailureKind.MALFORMED, "the target did not stream the reply as asked")
        if not self.assembly.finished(self._choices):
            raise UpstreamFailure(FailureKind.TRUNCATED, "the reply stopped before its end")
        await self._judge_held()
        return b"".join([*self._early_left(), *self._tail])

    def released(self, tail: bytes) -> list[bytes] | None:
        """What the caller received, `tail` included, or None where it's all that the model's server sent."""
        return [*self._released, tail] if self._changed else None

    @property
    def ended(self) -> bool:
        """True once nothing of meaning can follow."""
        return self.assembly.ended

    def _admit(self, frame: Frame) -> bool:
        """Folds a frame in; True where it may be released now."""
        only_usage = False
        for event in frame.events:
            kind = type(event)
            self.assembly.add(event)
            if kind is Failed or kind is Unreadable:
                raise _failure(event)
            if isinstance(event, UsageSeen):
                only_usage = event.only
        if only_usage and self._hide_usage:
            self._changed = True
            return False
        try:
            flows = self._gate.admit(frame)
        except GateOverflow as error:
            raise UpstreamFailure(FailureKind.MALFORMED, "the proposed tool calls are too large") from error
        if flows and self.assembly.finished(self._choices):
            self._tail.append(frame.raw)
            return False
        return flows

    def _seen_meaning(self) -> bool:
        """Whether a word of the reply has come: until then another target may still answer."""
        self._meant = self.assembly.output_chars > 0 or self.assembly.finished(self._choices)
        return self._meant

    def _early_left(self) -> list[bytes]:
        return [] if self._meant and self._released else self._early

    def _close_stream(self) -> None:
        for sse in self._reader.close() if self._reader else ():
            frame = self._dialect.read_frame(sse)
            # Some servers close right behind their end marker, without its blank line.
            if sse.truncated and Ended() not in frame.events:
                raise UpstreamFailure(FailureKind.TRUNCATED, "the stream stopped in the middle of an event")
            if self._admit(frame):
                self._tail.append(frame.raw)

    async def _judge_held(self) -> None:
        calls = self.assembly.calls()
        if not calls:
            return
        denied = await self._judge(calls)
        held = self._gate.open()
        if denied:
            self._changed = True
            edited = (
                self._dialect.edit_frames(held, denied, self._spoken())
                if self.streamed
                else [self._dialect.edit_body(held[0].raw, denied)]
            )
        else:
            edited = [frame.raw for frame in held]
        self._tail = edited + self._tail

    def _spoken(self) -> frozenset[int]:
        """Choices of which the caller has read some text already."""
        return frozenset(choice.index for choice in self.assembly.reply().choices if choice.text)


def _failure(event: object) -> UpstreamFailure:
    match event:
        case Failed(_, code):
            detail = f"the target reported an error inside its reply ({code or 'no code'})"
            return UpstreamFailure(classify_in_band(code), detail)
        case Unreadable(why):
            return UpstreamFailure(FailureKind.MALFORMED, f"a frame of the reply can't be read: {why}")
        case _:
            raise AssertionError(f"{event!r} is no failure")
