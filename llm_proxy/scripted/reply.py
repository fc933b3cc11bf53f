"""What a scripted model sends: bytes, their pace, and the fault that ends them; and playing it in-process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

STALL_S = 3600.0
"""How long a stall is silent before it closes, for callers that never give up."""


class FaultKind(StrEnum):
    """cut: the connection is reset. stall: it stays silent. truncate: it closes before the end."""

    CUT = "cut"
    STALL = "stall"
    TRUNCATE = "truncate"


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens once `after` frames were sent."""

    kind: FaultKind
    after: int


@dataclass(slots=True)
class ScriptedFault(Exception):
    """The reply broke off here, as its script says."""

    fault: Fault

    def __post_init__(self) -> None:
        Exception.__init__(self, f"scripted {self.fault.kind} after {self.fault.after} frames")


@dataclass(frozen=True, slots=True)
class ScriptedReply:
    """An HTTP reply to be. A stream's frames are server-sent events; a whole reply's join to its body."""

    status: int
    stream: bool
    frames: tuple[bytes, ...]
    headers: tuple[tuple[str, str], ...] = ()
    latency_s: float = 0.0
    delta_s: float = 0.0
    fault: Fault | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.frames)


async def play(
    reply: ScriptedReply, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncIterator[bytes]:
    """The frames at their pace. ScriptedFault where the script breaks off; a stall sleeps before that."""
    if reply.latency_s:
        await sleep(reply.latency_s)
    end = len(reply.frames) if reply.fault is None else min(reply.fault.after, len(reply.frames))
    for number, frame in enumerate(reply.frames[:end]):
        if number and reply.delta_s:
            await sleep(reply.delta_s)
        yield frame
    if reply.fault is not None:
        if reply.fault.kind is FaultKind.STALL:
            await sleep(STALL_S)
        raise ScriptedFault(reply.fault)
