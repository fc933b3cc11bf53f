"""The gate in a reply: text and reasoning flow at once, tool calls wait until all of them can be judged."""

from __future__ import annotations

from llm_proxy.chat.events import CallDelta, Finished, Frame

MAX_HELD = 4 << 20
"""Bytes of tool calls that a reply may keep waiting."""


class GateOverflow(Exception):
    """A reply's tool calls are larger than the gate will hold."""


class Gate:
    """Pure state machine over the frames of one reply. With `judging` false everything flows.

    Once a tool call has begun, every frame that holds part of a call, or that ends a choice, is held;
    what remains (text, reasoning, comments) flows past them. In an `ordered` dialect only comments and pings
    flow past.
    """

    __slots__ = ("_judging", "_ordered", "_size", "held")

    def __init__(self, *, judging: bool, ordered: bool = False) -> None:
        self._judging = judging
        self._ordered = ordered
        self._size = 0
        self.held: list[Frame] = []

    def admit(self, frame: Frame) -> bool:
        """Whether `frame` may flow now; otherwise it's held."""
        if not self._judging:
            return True
        held = self.held
        if held and self._ordered and not frame.inert:
            return self._hold(frame)
        for event in frame.events:
            kind = type(event)
            if kind is CallDelta or (kind is Finished and held):
                return self._hold(frame)
        return True

    def _hold(self, frame: Frame) -> bool:
        self.held.append(frame)
        self._size += len(frame.raw)
        if self._size > MAX_HELD:
            raise GateOverflow
        return False

    def open(self) -> list[Frame]:
        """Takes everything that was held."""
        frames, self.held, self._size = self.held, [], 0
        return frames
