"""Whether a reply that was cut goes on at another target, and from what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from llm_proxy.exchange import Exchange, Spent
from llm_proxy.sending.attempt import Attempting
from llm_proxy.sending.lost import LostTry, lost_try
from llm_proxy.upstream.provider import UpstreamFailure
from routing.failures import MEANING, Charge, FailureKind

Weigh = Callable[[Exchange, LostTry], Awaitable[Spent]]
"""What an attempt came to."""


class Resuming:
    """Of one call: keeps `exchange.resume`. An attempt that was cut is left for good once another goes on."""

    def __init__(self, exchange: Exchange, weigh: Weigh) -> None:
        self._exchange = exchange
        self._weigh = weigh
        self._cut: Attempting | None = None

    def goes_on(self, attempt: Attempting, failure: UpstreamFailure) -> bool:
        """Whether another target can go on from what the caller has, now that this attempt failed.

        One that was itself to go on and gave nothing leaves all as it was, whatever it failed of: a refusal
        is of the request that the proxy wrote.
        """
        exchange = self._exchange
        if not attempt.flow.gave:
            return exchange.resume is not None and failure.kind is not FailureKind.TOTAL_TIMEOUT
        exchange.resume = attempt.flow.left() if MEANING[failure.kind].fall_back else None
        self._cut = attempt if exchange.resume else None
        return exchange.resume is not None

    async def measure(self) -> None:
        """Counts what was written so far, which the completion cap of the next request is less by."""
        resume = self._exchange.resume
        if self._cut is not None and resume is not None:
            came = await self._weigh(self._exchange, lost_try(self._cut, Charge.USED))
            self._exchange.resume = replace(resume, used=resume.used + came.usage.output)

    def left(self) -> Attempting | None:
        """Another attempt has begun: the one that it takes the place of, told once."""
        cut, self._cut = self._cut, None
        return cut
