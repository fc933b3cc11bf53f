"""Two tries at once: a second target is started beside a silent first one, and who gives first answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from llm_proxy.errors import ProxyError
from llm_proxy.flow import Sink
from llm_proxy.sending.attempt import AnySink, Attempting, Watching
from llm_proxy.upstream.provider import UpstreamFailure
from routing.failures import MEANING
from routing.plan import Try

Outcome = bytes | UpstreamFailure | ProxyError
"""A reply's tail, a failed attempt, or a refusal of the proxy's own."""
Open = Callable[[Try, AnySink, Watching], Attempting]


@dataclass(frozen=True, slots=True)
class End:
    """How one attempt ended. `outcome` is None where it was called off."""

    attempt: Attempting
    outcome: Outcome | None
    answered: bool = True
    """The call has this reply or none: it was alone, or the first to answer."""

    @property
    def weight(self) -> int:
        """Of two attempts, the one whose end decides how the call goes on has more."""
        match self.outcome:
            case _ if self.answered:
                return 4
            case UpstreamFailure() as failure:
                # What one target says of the request itself, the other one's bad luck doesn't outweigh.
                return 2 if MEANING[failure.kind].fall_back else 3
            case ProxyError():
                return 1
            case _:
                return 0


class _Lane:
    """One contestant's way to the caller: who takes it first has it for good."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.started = False
        self.claim: Callable[[], None]

    async def release(self, data: bytes) -> None:
        self.claim()
        self.started = True
        await self._sink.release(data)

    async def finish(self, tail: bytes) -> None:
        raise AssertionError("a reply's last bytes wait for the record, and go out behind the race")


def _is_claimed() -> None:
    """The race is over."""


class Race:
    """One try, and beside it a second one if it stays silent. `run` it once, then ask for its `ends`.

    `second` gives the try to start beside the first, None where there is none to be had. `watching` is told
    of the attempt that counts: the first one, until another answers.
    """

    def __init__(self, sink: Sink, open_: Open, second: Callable[[], Try | None], watching: Watching) -> None:
        self._sink = sink
        self._open = open_
        self._second = second
        self._watching = watching
        self._tasks: dict[Attempting, asyncio.Task[None] | None] = {}
        self._lanes: list[_Lane] = []
        self._outcomes: dict[Attempting, Outcome] = {}
        self._stirred = asyncio.Event()
        self._counts: Attempting
        self._answered = False

    async def run(self, step: Try, silent_s: float) -> None:
        """Returns once all that was started has ended. A cancellation ends all of it."""
        try:
            async with asyncio.TaskGroup() as group:
                self._counts = self._start(group, step)
                if await self._stays_silent(silent_s):
                    self._counts.stays_silent()
                    other = self._second()
                    if other is not None:
                        self._start(group, other)
        except ExceptionGroup as defects:
            raise defects.exceptions[0] from defects
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Nothing leads back here any more, or all that the attempts hold would wait for the collector."""
        self._tasks = dict.fromkeys(self._tasks)
        for lane in self._lanes:
            lane.claim = _is_claimed

    def ends(self) -> list[End]:
        """Of every attempt; the one that decides how the call goes on is the last."""
        called_off = [attempt for attempt in self._tasks if attempt not in self._outcomes]
        ends = [
            End(attempt, self._outcomes.get(attempt), self._answered and attempt is self._counts)
            for attempt in (*called_off, *self._outcomes)
        ]
        return sorted(ends, key=lambda end: end.weight)

    def shows(self, attempt: Attempting) -> None:
        if attempt is self._counts:
            self._watching.shows(attempt)

    def heard(self, attempt: Attempting) -> None:
        self._stirred.set()
        self._watching.heard(attempt)

    def answers(self, attempt: Attempting) -> None:
        """Whoever is first: the other is called off. Raises CancelledError where it came second."""
        if self._answered:
            if attempt is not self._counts:
                raise asyncio.CancelledError
            return
        self._answered, self._counts = True, attempt
        self._watching.shows(attempt)
        for other, task in self._tasks.items():
            if other is not attempt and task is not None:
                other.superseded = True
                task.cancel()

    def _start(self, group: asyncio.TaskGroup, step: Try) -> Attempting:
        lane = _Lane(self._sink)
        self._lanes.append(lane)
        attempt = self._open(step, lane, self)
        lane.claim = lambda: self.answers(attempt)
        self._tasks[attempt] = group.create_task(self._run(attempt), name=f"try {step.attempt}")
        return attempt

    async def _run(self, attempt: Attempting) -> None:
        try:
            self._outcomes[attempt] = await attempt.run()
        except ProxyError as refusal:
            self._outcomes[attempt] = refusal.with_traceback(None)
        finally:
            self._stirred.set()

    async def _stays_silent(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        except TimeoutError:
            return True
        return False
