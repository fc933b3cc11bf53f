"""The clocks of one attempt, over one timer."""

from __future__ import annotations

import asyncio
from time import monotonic
from types import TracebackType

from llm_proxy.upstream.provider import UpstreamFailure, UpstreamReply
from routing.failures import FailureKind
from routing.plan import Try


class Clocks:
    """The clocks of one attempt: first event, idle and total. Time spent writing to the caller isn't idle.

    One timer for the whole attempt: a deadline that moves later costs an assignment, and the timer sets
    itself anew when it fires too early. (`asyncio.timeout` would make a timer for every chunk.)
    """

    __slots__ = ("_deadline", "_due", "_end", "_expired", "_idle", "_task", "_timeouts", "_timer")

    def __init__(self, step: Try) -> None:
        self._timeouts = step.timeouts
        now = monotonic()
        self._end = now + step.timeouts.total_s
        self._deadline: float | None = min(now + step.timeouts.first_event_s, self._end)
        self._idle = step.timeouts.idle_s
        self._expired = False
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Clocks:
        self._task = asyncio.current_task()
        self._arm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raises TimeoutError in place of the cancellation that was this watch's own."""
        if self._timer is not None:
            self._timer.cancel()
        task, self._task = self._task, None  # a task that is cancelled leads back here, by its error
        if self._expired:
            assert task is not None
            if task.uncancel() <= 0 and isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error

    async def read(self, reply: UpstreamReply) -> bytes:
        """The next bytes, within the limit that applies to them."""
        data = await reply.chunk()
        self._deadline = self._end
        return data

    def waiting(self) -> None:
        """What came was passed on: from now on the target's silence counts."""
        self._expect(min(monotonic() + self._idle, self._end))

    def suspend(self) -> None:
        """The reply has come: what remains is the proxy's own work."""
        self._deadline = None

    def timeout(self, begun: bool) -> UpstreamFailure:  # noqa: FBT001
        """Which of the clocks ran out."""
        limits = self._timeouts
        if monotonic() >= self._end:
            return UpstreamFailure(
                FailureKind.TOTAL_TIMEOUT, f"no whole reply within total_s {limits.total_s:g}"
            )
        if begun:
            return UpstreamFailure(
                FailureKind.IDLE_TIMEOUT, f"the reply stalled for idle_s {limits.idle_s:g}"
            )
        return UpstreamFailure(
            FailureKind.FIRST_EVENT_TIMEOUT, f"no first event within first_event_s {limits.first_event_s:g}"
        )

    def _expect(self, deadline: float) -> None:
        """Moves the deadline; only one that is sooner than the timer needs another timer."""
        self._deadline = deadline
        if self._timer is not None and deadline < self._due:
            self._timer.cancel()
            self._arm()

    def _arm(self) -> None:
        deadline = self._deadline
        if deadline is None:
            self._timer = None
            return
        self._due = deadline
        self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - monotonic()), self._fire)

    def _fire(self) -> None:
        if self._deadline is None or monotonic() < self._deadline:
            self._arm()
            return
        self._expired = True
        self._timer = None
        assert self._task is not None
        self._task.cancel()
