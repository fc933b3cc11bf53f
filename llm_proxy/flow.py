"""The bytes of one attempt on their way: parsed once, folded, gated, and pushed into the caller's sink."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from llm_proxy.chat.events import Ended, Failed, Frame, Unreadable, UsageSeen
from llm_proxy.chat.reply import Assembly, ToolCall
from llm_proxy.output import Output
from llm_proxy.policy.gate import Gate, GateOverflow
from llm_proxy.upstream.provider import UpstreamFailure, UpstreamReply
from llm_proxy.wire.dialect import Denied, Dialect
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.sse import FrameTooLarge, SseReader
from routing.failures import FailureKind, classify_in_band

Judge = Callable[[tuple[ToolCall, ...]], Awaitable[Denied]]

MAX_REPLY = 256 << 20
"""Bytes of a reply that the record will keep."""


class Sink(Protocol):
    """Where a reply goes. Only the sink knows whether the caller gets a stream or a body."""

    started: bool
    """Whether anything has reached the caller."""

    async def release(self, data: bytes) -> None: ...

    async def finish(self, tail: bytes) -> None: ...


class Flow:
    """One attempt's reply. `feed` its bytes, then `end` it; `tail` is what waits for the record's commit.

    `dialect` is what the target speaks, `output` how the caller gets it. Raises UpstreamFailure for what
    makes the attempt a failed one.
    """

    def __init__(
        self,
        dialect: Dialect,
        output: Output,
        sink: Sink,
        judge: Judge,
        *,
        judging: bool,
        request: WireRequest,
    ) -> None:
        self._output = output
        self._sink = sink
        self._judge = judge
        self._gate = Gate(judging=judging, ordered=dialect.ordered)
        self._choices = request.n
        self._wants_stream = request.stream
        self._hide_usage = request.stream and not request.include_usage and not output.anew
        self._sse: SseReader | None = None
        self._read_frame = dialect.frame_reader()
        self._read_body = dialect.read_body
        self._body: Frame | None = None
        self._size = 0
        self._early: list[bytes] = []
        self._meant = False
        self._released: list[bytes] = []
        self._tail: list[Frame] = []
        self._changed = output.anew
        self.assembly = Assembly()
        self.emitted: list[bytes] = []
        self.streamed = True

    def begin(self, reply: UpstreamReply) -> None:
        """The reply's head has come: it's an event stream or a whole body."""
        self.streamed = reply.streamed
        if reply.streamed and not self._wants_stream:
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
            if self._sse is None:
                self._sse = SseReader()
            frames = self._sse.feed(chunk)
        except FrameTooLarge as error:
            raise UpstreamFailure(FailureKind.MALFORMED, "one event of the stream is too large") from error
        read, output = self._read_frame, self._output
        ready = [output.pass_on(frame) for sse in frames if self._admit(frame := output.read(read(sse)))]
        if not self._meant:
            self._early += ready
            ready = self._early if self._seen_meaning() else []
        if ready and (data := b"".join(ready)):
            self._released.append(data)
            await self._sink.release(data)

    async def end(self) -> bytes:
        """The reply ended. Judges what was held; returns the bytes that wait for the record's commit."""
        if self.streamed:
            self._close_stream()
        else:
            self._take_body()
        if not self.assembly.finished(self._choices):
            raise UpstreamFailure(FailureKind.TRUNCATED, "the reply stopped before its end")
        denied = await self._judged()
        output = self._output
        if self._body is not None:
            return output.whole(self._body, denied)
        pieces = self._early_left()
        pieces.append(output.judged(self._gate.open(), denied, self._spoken() if denied else ()))
        pieces += [output.pass_on(frame) for frame in self._tail]
        pieces.append(output.close())
        return b"".join(pieces)

    def released(self, tail: bytes) -> list[bytes] | None:
        """What the caller received, `tail` included, or None where it's all that the model's server sent."""
        pieces = [*self._released, tail]
        return pieces if self._changed or sum(map(len, pieces)) != self._size else None

    @property
    def ended(self) -> bool:
        """True once nothing of meaning can follow."""
        return self.assembly.ended

    def _take_body(self) -> None:
        body = b"".join(self.emitted)
        self.emitted[:] = [body]
        frame = self._output.read(self._read_body(body))
        self._admit(frame)
        if self._wants_stream:  # a whole body would look to its SDK like a stream without events
            raise UpstreamFailure(FailureKind.MALFORMED, "the target did not stream the reply as asked")
        self._body = frame

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
            self._tail.append(frame)
            return False
        return flows

    def _seen_meaning(self) -> bool:
        """Whether a word of the reply has come: until then another target may still answer."""
        self._meant = self.assembly.output_chars > 0 or self.assembly.finished(self._choices)
        return self._meant

    def _early_left(self) -> list[bytes]:
        return [] if self._meant and self._released else self._early

    def _close_stream(self) -> None:
        for sse in self._sse.close() if self._sse else ():
            frame = self._output.read(self._read_frame(sse))
            # Some servers close right behind their end marker, without its blank line.
            if sse.truncated and Ended() not in frame.events:
                raise UpstreamFailure(FailureKind.TRUNCATED, "the stream stopped in the middle of an event")
            if self._admit(frame):
                self._tail.append(frame)

    async def _judged(self) -> Denied:
        """The notes for the calls that are denied, once every verdict is committed."""
        calls = self.assembly.calls()
        denied: Denied = await self._judge(calls) if calls else {}
        self._changed = self._changed or bool(denied)
        return denied

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
