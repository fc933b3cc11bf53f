"""Two tries at once: a second target is started beside a silent first one, and who gives first answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llm_proxy.errors import ProxyError
from llm_proxy.flow import Sink
from llm_proxy.sending.attempt import AnySink, Attempting, Watching
from llm_proxy.upstream.provider import UpstreamFailure
from routing.plan import Try

Outcome = bytes | UpstreamFailure | ProxyError
"""A reply's tail, a failed attempt, or a refusal of the proxy's own."""
Open = Callable[[Try, AnySink, Watching], Attempting]


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


class Race:
    """One try, and beside it a second one if it stays silent. `run` it once.

    `second` gives the try to start beside the first, None where there is none to be had. `watching` is told
    of whose reply counts.
    """

    def __init__(self, sink: Sink, open_: Open, second: Callable[[], Try | None], watching: Watching) -> None:
        self._sink = sink
        self._open = open_
        self._second = second
        self._watching = watching
        self._runners: dict[Attempting, asyncio.Task[None]] = {}
        self._stirred = asyncio.Event()
        self._winner: Attempting | None = None
        self.ended: list[tuple[Attempting, Outcome | None]] = []
        """Every attempt, in the order in which they ended, and what came of it; None: it was called off."""

    async def run(self, step: Try, silent_s: float) -> None:
        """Returns once all that was started has ended. Where it's cancelled, all of it is."""
        try:
            self._start(step)
            if await self._stays_silent(silent_s):
                other = self._second()
                if other is not None:
                    self._start(other)
            await asyncio.wait(self._runners.values())
        except asyncio.CancelledError:
            await self._call_off()
            raise
        for task in self._runners.values():
            task.result()  # a defect inside is raised, not lost

    def begins(self, attempt: Attempting) -> None:
        """The first one counts until another answers."""
        if attempt is self._winner or (self._winner is None and attempt is next(iter(self._runners))):
            self._watching.begins(attempt)

    def heard(self, attempt: Attempting) -> None:
        self._stirred.set()
        self._watching.heard(attempt)

    def answers(self, attempt: Attempting) -> None:
        """Whoever is first: the other is called off. Raises CancelledError where it came second."""
        if self._winner is None:
            self._winner = attempt
            self._watching.begins(attempt)
            for other, task in self._runners.items():
                if other is not attempt:
                    other.superseded = True
                    task.cancel()
        elif self._winner is not attempt:
            raise asyncio.CancelledError

    def _start(self, step: Try) -> None:
        lane = _Lane(self._sink)
        attempt = self._open(step, lane, self)
        lane.claim = lambda: self.answers(attempt)
        self._runners[attempt] = asyncio.create_task(self._run(attempt), name=f"try {step.attempt}")

    async def _run(self, attempt: Attempting) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await attempt.run()
        except ProxyError as error:
            outcome = error
        except asyncio.CancelledError:
            if not attempt.superseded:
                raise
        finally:
            self._stirred.set()
            self.ended.append((attempt, outcome))

    async def _stays_silent(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._stirred.wait()
        except TimeoutError:
            return True
        return False

    async def _call_off(self) -> None:
        for task in self._runners.values():
            task.cancel()
        await asyncio.gather(*self._runners.values(), return_exceptions=True)
