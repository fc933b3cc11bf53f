"""Streams that hold less than their worst case: what has come is counted, and more is held ahead of it.

Where a reply comes near what is held for it, the hold is topped up, each time to twice as much and at last to
the worst case. What would pass the hold waits until that is committed; where no more is to be had, the stream
ends there.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from budgets import Held, Refused, Result, TopUp
from llm_proxy.chat.reply import Assembly
from llm_proxy.counting.error import TokenErrors, error_key
from llm_proxy.counting.reply import reply_tokens
from llm_proxy.counting.text import TokenCounter
from llm_proxy.counting.tokenizers import tokenizer_of
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.quote import LEAST_OUTPUT, Quote
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.writer import Writer

log = structlog.get_logger("llm_proxy.topup")

_ENDS = "The reply ends here: all that was held for it is used up."
Told = Callable[[Exchange, Refused], Awaitable[ProxyError]]
"""A refusal as the caller hears it."""
_STRETCHES = 4
"""How often less is asked for where others take what a refusal said was left."""
_MOST_COUNTED = 1 << 20
"""Characters of a reply that are counted by tokens; of a longer one each further character is a token."""
_NEVER = sys.maxsize


class TopUps:
    """One per worker."""

    def __init__(self, writer: Writer, counter: TokenCounter, errors: TokenErrors, told: Told) -> None:
        self.writer = writer
        self.counter = counter
        self.errors = errors
        self.told = told

    def of(self, exchange: Exchange, held: Quote) -> Allowance:
        """For a call that began with `held`."""
        return Allowance(self, exchange, held)


class Allowance:
    """What one call holds of its reply. Asked in turn, chunk by chunk, by the attempts of the call.

    Tokens of the reply are bounded from above: those counted when it was last looked at, and a token for
    every character since. What earlier attempts had said counts too.
    """

    __slots__ = ("_assembly", "_at", "_counted", "_earlier", "_exchange", "_held", "_mark", "_of", "_pinched")

    def __init__(self, of: TopUps, exchange: Exchange, held: Quote) -> None:
        self._of = of
        self._exchange = exchange
        self._held = held
        self._assembly: Assembly | None = None
        self._earlier = self._counted = self._at = 0
        self._pinched = False
        """A top-up was refused ahead of need: it's tried again when there is need."""
        self._mark = self._next_mark()

    def begin(self) -> Allowance:
        """Another attempt's reply is about to come."""
        if self._assembly is not None:
            self._earlier = self.bound(self._assembly)
        self._assembly, self._counted, self._at = None, 0, 0
        return self

    def bound(self, assembly: Assembly) -> int:
        """Output tokens so far, from above."""
        seen, usage = self._seen(assembly), assembly.usage
        return self._earlier + (seen if usage is None else max(seen, usage.output))

    def short(self, assembly: Assembly) -> bool:
        """Whether what came has to be looked at before it's released."""
        self._assembly = assembly
        return self.bound(assembly) > self._mark

    async def cover(self, assembly: Assembly) -> None:
        """Returns once what came is held, or the worst case is.

        Raises `ProxyError`: `budget_exceeded`, or `store_unavailable` where nobody can tell.
        """
        request, held = self._exchange.request, self._held.output
        assert request is not None
        need, usage = await self._counted_again(assembly), assembly.usage
        ahead = not self._pinched
        if usage is not None and assembly.finished(request.n):
            # No more comes, and what was thought in secret is charged as told, held or not.
            need, ahead = self._earlier + min(self._seen(assembly), usage.output), False
        if need <= (held // 2 if ahead else held):
            return
        outcome = await self._more(need)
        if isinstance(outcome, Held):
            self._pinched, self._mark = False, self._next_mark()
        elif need <= held:
            self._pinched, self._mark = True, held
        else:
            raise await self._over(outcome)

    def _seen(self, assembly: Assembly) -> int:
        return self._counted + assembly.output_chars - self._at

    def _next_mark(self) -> int:
        """Past three quarters of what is held it's looked at; never where that's the worst case."""
        return self._held.output * 3 // 4 if self._held.start else _NEVER

    async def _counted_again(self, assembly: Assembly) -> int:
        exchange, of = self._exchange, self._of
        if assembly.output_chars <= _MOST_COUNTED:
            way = tokenizer_of(exchange.provider, exchange.served_model)
            counted = await reply_tokens(assembly.reply(), of.counter, way)
            key = error_key(exchange.provider, exchange.served_model)
            self._counted = of.errors.raised(key, counted, way.prior)
            self._at = assembly.output_chars
        return self.bound(assembly)

    async def _more(self, need: int) -> Held | Refused | None:
        """Tops up to twice as much, or by what is left; None where the store can't say."""
        held, choices = self._held, self._held.choices
        least = need if need > held.output else held.output + LEAST_OUTPUT
        wanted = held.holding(max(2 * held.reply, -(-4 * need // (3 * choices))))
        outcome = await self._ask(wanted)
        for _ in range(_STRETCHES):
            if not isinstance(outcome, Refused):
                break
            wanted = held.stretched(outcome)
            if wanted.output < least:
                break
            outcome = await self._ask(wanted)
        return outcome

    async def _ask(self, wanted: Quote) -> Held | Refused | None:
        exchange = self._exchange
        more = wanted.amount() - self._held.amount()
        op = TopUp(exchange.id, exchange.bounds, more)
        try:
            outcome: Result = await self._of.writer.submit(Job(_first, ops=(op,)))
        except ProxyError:
            return None
        if isinstance(outcome, Held):
            exchange.held += more
            exchange.topped_up += more
            self._held = wanted
            return outcome
        if isinstance(outcome, Refused):
            return outcome
        log.warning("a hold ended before its call did", call_id=exchange.id)
        return None

    async def _over(self, refused: Refused | None) -> ProxyError:
        """What ends the stream."""
        if refused is None:
            return ProxyError(
                Kind.STORE_UNAVAILABLE,
                f"{_ENDS} The proxy's store can't say just now whether more is left. What came is charged; "
                "try again shortly.",
                retry_after_s=2,
            )
        self._exchange.refused = refused
        error = await self._of.told(self._exchange, refused)
        return replace(error, message=f"{_ENDS} {error.message}")


def _first(found: Found) -> Wrote:
    return Wrote(found.results[0])
