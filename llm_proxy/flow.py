"""The bytes of one attempt on their way: parsed once, folded, gated, and pushed into the caller's sink."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from llm_proxy.chat.events import Ended, Event, Failed, Frame, Reasoning, Text, Unreadable, UsageSeen
from llm_proxy.chat.reply import Assembly, ToolCall
from llm_proxy.output import Output
from llm_proxy.policy.gate import Gate, GateOverflow
from llm_proxy.resume import Piece, Resume
from llm_proxy.upstream.provider import UpstreamFailure, UpstreamReply
from llm_proxy.wire.dialect import Denied, Dialect
from llm_proxy.wire.replay import events_of
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.sse import FrameTooLarge, SseFrame, SseReader, says_nothing_else
from routing.failures import FailureKind, classify_in_band

Judge = Callable[[tuple[ToolCall, ...]], Awaitable[Denied]]

MAX_REPLY = 256 << 20
"""Bytes of a reply that the record will keep."""

_MOST_TEXT = 1 << 20
"""Characters of a reply's text that are kept beside its bytes; what is longer is read again if need be."""


class Sink(Protocol):
    """Where a reply goes. Only the sink knows whether the caller gets a stream or a body."""

    started: bool
    """Whether anything has reached the caller."""

    async def release(self, data: bytes) -> None: ...

    async def finish(self, tail: bytes) -> None: ...


class Allowance(Protocol):
    """What is held for a reply, where that may be less than all of it."""

    def short(self, assembly: Assembly) -> bool:
        """Whether what came has to be covered before it is released."""
        ...

    async def cover(self, assembly: Assembly) -> None:
        """Returns once it is. Raises `ProxyError` where no more is to be had."""
        ...


class Flow:
    """One attempt's reply. `feed` its bytes; once they have `arrived`, `end` it.

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
        resumes: Resume | None = None,
        allowance: Allowance | None = None,
        earlier: Sequence[bytes] = (),
        replans: Callable[[tuple[ToolCall, ...], Denied], bool] | None = None,
        takes_in: Callable[[Assembly], Awaitable[None]] | None = None,
    ) -> None:
        """`earlier`: what the caller has of replies that this one goes on from. `replans`: whether the model
        is to be asked again instead of the caller being told of calls that were denied."""
        self._output = output
        self._sink = sink
        self._judge = judge
        self._judging = judging
        self._gate = Gate(judging=judging, ordered=dialect.ordered)
        self._choices = request.n
        self._wants_stream = request.stream
        self._hide_usage = request.stream and not request.include_usage and not output.rendered
        self._sse: SseReader | None = None
        self._read_frame = dialect.frame_reader()
        self._read_body = dialect.read_body
        self._body: Frame | None = None
        self._size = 0
        self._early: list[bytes] = []
        self._meant = False
        self._resumes = resumes
        self._allowance = allowance
        self._written: list[bytes] = [*resumes.written] if resumes else [*earlier]
        """What was released, by earlier attempts too, where it's not what came."""
        self._read_to = 0
        self._released_to = 0
        """Where in what came the frame begins that is read next, and up to where they were released."""
        self._withheld: list[tuple[int, int]] = []
        self._hidden: list[tuple[int, int]] = []
        self._sent = False
        self._tail: list[Frame] = []
        self._replans = replans
        self._takes_in = takes_in
        self._changed = output.anew
        self._dialect = dialect
        self.assembly = Assembly(_MOST_TEXT)
        self.emitted = io.BytesIO()
        self.streamed = True
        self.noted: Denied = {}
        """The notes that stand in the reply for calls that were denied."""
        self.unheard: Denied = {}
        """The notes of a reply whose end the caller is not told, since the model is to be asked again."""
        self.left_out: tuple[tuple[int, int], ...] | None = None
        """The slices of `emitted` that the caller did not get, where it got all else as it came."""

    def begin(self, reply: UpstreamReply) -> None:
        """The reply's head has come: it's an event stream or a whole body."""
        self.streamed = reply.streamed
        self.assembly.again = partial(_read_again, self._dialect, self.emitted, streamed=reply.streamed)
        if reply.streamed and not self._wants_stream:
            raise UpstreamFailure(
                FailureKind.MALFORMED, "the target streamed a reply that was asked for whole"
            )

    async def feed(self, chunk: bytes) -> None:
        """Bytes as they came off the socket."""
        self.emitted.write(chunk)
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
        ready: list[bytes] = []
        failure: UpstreamFailure | None = None
        try:
            self._read_frames(frames, ready)
        except UpstreamFailure as error:
            # Nothing can take the reply back once it began, nor so what came before the failure.
            if not self._sink.started:
                raise
            failure = error
        if self._allowance is not None and self._allowance.short(self.assembly):
            await self._allowance.cover(self.assembly)
        if data := self._releasing(ready):
            await self._sink.release(data)
        if failure is not None:
            raise failure

    def _releasing(self, ready: list[bytes]) -> bytes:
        """The bytes that go out now; empty until the reply says something."""
        if not self._meant:
            self._early += ready
            ready = self._early if self._seen_meaning() else []
        if self._meant:
            self._released_to = self._read_to
        if not ready or not (data := ready[0] if len(ready) == 1 else b"".join(ready)):
            return b""
        self._sent = True
        if self._output.anew:
            self._written.append(data)
        return data

    def _read_frames(self, frames: list[SseFrame], ready: list[bytes]) -> None:
        """Takes frames in; adds to `ready` what may be released of them."""
        read, output = self._read_frame, self._output
        for sse in frames:
            frame = output.read(read(sse))
            end = self._read_to + len(sse.raw)
            if self._hides(sse):
                self._withheld.append((self._read_to, end))
            elif self._admit(frame):
                ready.append(output.pass_on(frame))
            else:
                self._withheld.append((self._read_to, end))
            self._read_to = end

    def _hides(self, sse: SseFrame) -> bool:
        """Whether bytes that nobody reads might be more than a comment, where all that passes is judged."""
        if not self._judging or self._output.rendered or says_nothing_else(sse):
            return False
        if sse.data:
            raise _failure(Unreadable("it has lines of no known name"))
        return True

    def arrived(self) -> None:
        """No more comes. Raises UpstreamFailure where this isn't a whole reply."""
        if self.streamed:
            self._close_stream()
        else:
            self._take_body()
        if not self.assembly.finished(self._choices):
            raise UpstreamFailure(FailureKind.TRUNCATED, "the reply stopped before its end")

    async def end(self) -> bytes:
        """Judges what was held; returns the bytes that wait for the record's commit."""
        if self._allowance is not None and self._allowance.short(self.assembly):
            await self._allowance.cover(self.assembly)
        denied = await self._judged()
        if denied and self._replans is not None and self._replans(self.assembly.calls(), denied):
            self.unheard = denied
            return b""
        return self.ending(denied)

    def ending(self, denied: Denied) -> bytes:
        """The bytes that end the reply, once its calls are judged."""
        output = self._output
        self.noted = denied
        if self._body is not None:
            return output.whole(self._body, denied)
        pieces = self._early_left()
        held = self._gate.open()
        if self._hidden and not (held or self._changed):
            self.left_out = tuple(self._hidden)
        pieces.append(output.judged(held, denied, self._spoken() if denied else ()))
        pieces += [output.pass_on(frame) for frame in self._tail]
        pieces.append(output.close())
        return b"".join(pieces)

    def said(self) -> tuple[Event, ...]:
        """All that came, as its target said it."""
        return tuple(events_of(self._dialect, self.emitted.getvalue(), streamed=self.streamed))

    def shown(self) -> tuple[Event, ...]:
        """A reply that came as one body, as the caller is to see it; empty for a stream."""
        return self._body.events if self._body else ()

    def waiting(self) -> tuple[Event, ...]:
        """Words that came beside the calls, and so were held."""
        held = [event for frame in self._gate.held for event in frame.events]
        return tuple([event for event in held if isinstance(event, Text | Reasoning)])

    @property
    def output(self) -> Output:
        return self._output

    def released(self, tail: bytes) -> list[bytes] | None:
        """What the caller received, `tail` included, or None where it's all that came, but for `left_out`."""
        if self._output.anew:
            return [*self._written, tail]
        passed = self._passed()
        size = sum([end - start for start, end in passed]) + len(tail)
        missing = sum([end - start for start, end in self.left_out or ()])
        if not self._changed and size + missing == self._size:
            return None
        came = self.emitted.getvalue()
        return [*(came[start:end] for start, end in passed), tail]

    def _passed(self) -> list[tuple[int, int]]:
        """Which slices of what came were released as they came."""
        slices: list[tuple[int, int]] = []
        at = 0
        for start, end in self._withheld:
            if start >= self._released_to:
                break
            slices.append((at, start))
            at = end
        if at < self._released_to:
            slices.append((at, self._released_to))
        return slices

    @property
    def ended(self) -> bool:
        """True once nothing of meaning can follow."""
        return self.assembly.ended

    @property
    def gave(self) -> bool:
        """Whether the caller has something of this attempt."""
        return self._sent

    @property
    def said_all(self) -> bool:
        """Whether a reply that may go on elsewhere needn't: all of it came but its end marker."""
        return self._sent and self._output.continues and self.assembly.finished(self._choices)

    def left(self) -> Resume | None:
        """What another target can go on from, now that this attempt failed; None where it can't."""
        left = self._output.left() if self._sent else None
        if left is None:
            return None
        pieces = self._resumes.pieces if self._resumes else ()
        chars = len(left.text) - sum([piece.chars for piece in pieces])
        piece = Piece(self._dialect.name, self.emitted, chars)
        used = self._resumes.used if self._resumes else 0
        return Resume(left, tuple(self._written), (*pieces, piece), used)

    def _take_body(self) -> None:
        body = self.emitted.getvalue()
        frame = self._skimmed(body) or self._output.read(self._read_body(body))
        self._admit(frame)
        if self._wants_stream:  # a whole body would look to its SDK like a stream without events
            raise UpstreamFailure(FailureKind.MALFORMED, "the target did not stream the reply as asked")
        self._body = frame if self._output.anew else Frame(frame.raw)

    def _skimmed(self, body: bytes) -> Frame | None:
        skim = self._dialect.skim_body
        if skim is None or self._output.anew or len(body) < _MOST_TEXT:
            return None
        frame = skim(body)
        if frame is not None:
            self.assembly.cut()
        return frame

    def _admit(self, frame: Frame) -> bool:
        """Folds a frame in; True where it may be released now."""
        events = frame.events
        assembly = self.assembly
        if len(events) == 1 and type(event := events[0]) is Text:  # most frames are such
            assembly.add_text(event)
        elif self._fold(events) and self._hide_usage:
            self._hidden.append((self._read_to, self._read_to + len(frame.raw)))
            return False
        try:
            flows = self._gate.admit(frame)
        except GateOverflow as error:
            raise UpstreamFailure(FailureKind.MALFORMED, "the proposed tool calls are too large") from error
        if flows and assembly.finished(self._choices):
            self._tail.append(frame)
            return False
        return flows

    def _fold(self, events: tuple[Event, ...]) -> bool:
        """Takes a frame's events in; True where usage is all that they tell."""
        only_usage = False
        for event in events:
            self.assembly.add(event)
            match event:
                case Failed() | Unreadable():
                    raise _failure(event)
                case UsageSeen(_, only):
                    only_usage = only
                case _:
                    pass
        return only_usage

    def _seen_meaning(self) -> bool:
        """Whether a word of the reply has come: until then another target may still answer."""
        self._meant = self.assembly.output_chars > 0 or self.assembly.finished(self._choices)
        return self._meant

    def _early_left(self) -> list[bytes]:
        return [] if self._sent else self._early

    def _close_stream(self) -> None:
        for sse in self._sse.close() if self._sse else ():
            if self._hides(sse):
                self._withheld.append((self._read_to, self._read_to + len(sse.raw)))
                self._read_to += len(sse.raw)
                continue
            frame = self._output.read(self._read_frame(sse))
            # Some servers close right behind their end marker, without its blank line.
            if sse.truncated and Ended() not in frame.events:
                raise UpstreamFailure(FailureKind.TRUNCATED, "the stream stopped in the middle of an event")
            if self._admit(frame):
                self._tail.append(frame)
            self._read_to += len(sse.raw)

    async def _judged(self) -> Denied:
        """The notes for the calls that are denied, once every verdict is committed."""
        if self._takes_in is not None:
            await self._takes_in(self.assembly)
        calls = self.assembly.calls()
        denied: Denied = await self._judge(calls) if calls else {}
        self._changed = self._changed or bool(denied)
        return denied

    def _spoken(self) -> frozenset[int]:
        """Choices of which the caller has read some text already."""
        return self.assembly.spoken()


def _read_again(dialect: Dialect, emitted: io.BytesIO, *, streamed: bool) -> Assembly:
    """All that a reply said, where it was too much to be kept beside its bytes."""
    assembly = Assembly()
    for event in events_of(dialect, emitted.getvalue(), streamed=streamed):
        assembly.add(event)
    return assembly


def _failure(event: object) -> UpstreamFailure:
    match event:
        case Failed(_, code):
            detail = f"the target reported an error inside its reply ({code or 'no code'})"
            return UpstreamFailure(classify_in_band(code), detail)
        case Unreadable(why):
            return UpstreamFailure(FailureKind.MALFORMED, f"a frame of the reply can't be read: {why}")
        case _:
            raise AssertionError(f"{event!r} is no failure")
