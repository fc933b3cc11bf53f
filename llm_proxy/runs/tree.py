"""Places calls in the tree of runs: which runs a call's spend counts in, and whether any of them is over."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.identity.caller import Caller
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.standing import RunEnded
from llm_proxy.runs import rows
from llm_proxy.runs.exhausted import explained
from llm_proxy.runs.lookup import RunLookup
from llm_proxy.runs.placed import Placed, below, placed, run_ended, run_expired
from llm_proxy.runs.traced import Traces

_REMEMBERED = 10_000
_GOOD_FOR_S = 60.0
"""How long a place is known without asking the store again. What ended meanwhile is told by `ended`, which
remembers for longer."""
_BEGUN_S = 2.0
"""How long the place of a run that has just begun stands for calls that come before its row is there."""

Ended = Callable[[], Mapping[tuple[str, str], RunEnded]]
"""Runs that were ended within the last two minutes, by agent and id."""


class RunTree:
    """One per worker. A run's place is fixed by its first call, or when it is opened."""

    def __init__(
        self,
        lookup: RunLookup,
        shown: Callable[[str], Awaitable[Caller]],
        ended: Ended,
        now_us: Callable[[], int],
    ) -> None:
        """`shown` tells whom a key stands for, and raises `ProxyError(invalid_credential)`."""
        self._lookup = lookup
        self._shown = shown
        self._ended = ended
        self._now_us = now_us
        self._known: OrderedDict[RunKey, tuple[float, Placed]] = OrderedDict()
        self._asking: dict[RunKey, asyncio.Future[Placed | None]] = {}
        self._traces = Traces(lookup)

    async def place(self, exchange: Exchange) -> None:
        """Sets the call's lineage, and its user: one that is verified of the run stands, and any other where
        the call names none. Raises `ProxyError`: run_ended where its run or one above it is over.

        Nothing is read for a run of one call without a trace, nor for one that was read lately.
        """
        assert exchange.caller is not None
        key = RunKey(exchange.caller.agent.id, exchange.run_id)
        found = self._at_hand(key)
        if found is None:
            found = None if exchange.run_inferred and not exchange.stitched else await self.find(key)
            found = found or await self._first(exchange, key)
        exchange.placed = True
        exchange.lineage = found.lineage
        if found.parent is not None:
            exchange.parent_run_id = found.parent.run_id
        elif not exchange.parent_run_id:
            exchange.parent_run_id = found.link
        if exchange.hints.traceparent:
            self._traces.note(exchange, key)
        if found.user_verified and not exchange.user_verified:
            exchange.user_id, exchange.user_verified = found.user_id, True
        elif not exchange.user_id:
            exchange.user_id = found.user_id
        self.check(found)

    async def explained(self, exchange: Exchange, error: ProxyError) -> ProxyError:
        """The refusal of a call, which says what is left where it's an envelope that has no room."""
        return await explained(self._lookup, exchange, error)

    def check(self, run: Placed) -> None:
        """Raises `ProxyError(run_ended)` where the run or one above it was ended or has expired."""
        if run.ending is not None:
            raise run_ended(run.key, run.ending)
        if ended := self._ended():
            for key in (run.key, *run.above):
                ending = ended.get((key.agent_id, key.run_id))
                if ending is not None:
                    raise run_ended(run.key, ending)
        until_us = run.lineage.expires_us
        if until_us is not None and until_us <= self._now_us():
            raise run_expired(run.key, run.expires or run.key, until_us)

    async def find(self, key: RunKey) -> Placed | None:
        """The run as the store has it; None where it isn't there. Raises `ProxyError(store_unavailable)`."""
        known = self._at_hand(key)
        if known is not None:
            return known
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.ensure_future(self._read(key))
            asking.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(asking)

    async def _read(self, key: RunKey) -> Placed | None:
        began = monotonic()
        found = await self._lookup.ask(lambda connection: rows.chain(connection, key))
        if not found:
            return None
        run = placed(found)
        self._remember(key, began, run)
        return run

    def _remember(self, key: RunKey, since: float, run: Placed) -> None:
        self._known[key] = since, run
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _done(self, key: RunKey, done: asyncio.Future[Placed | None]) -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # each who waits is told; where nobody does any more it is no loss

    def _at_hand(self, key: RunKey) -> Placed | None:
        known = self._known.get(key)
        if known is None:
            return None
        if monotonic() - known[0] > _GOOD_FOR_S:
            del self._known[key]
            return None
        self._known.move_to_end(key)
        return known[1]

    async def _first(self, exchange: Exchange, key: RunKey) -> Placed:
        """The place of a run that the store doesn't know yet: below whom it names, or by itself."""
        assert exchange.caller is not None
        hints = exchange.hints
        if hints.run_token:
            above = await self.shown_run(hints.run_token)
        elif hints.parent_run_id and hints.parent_run_id != key.run_id:
            found = await self.find(RunKey(key.agent_id, hints.parent_run_id))
            if found is None:
                return Placed(key)
            above = found
        else:
            return Placed(key, link=await self._traces.above(key, hints.traceparent))
        if above.key == key:
            return Placed(key)
        run = below(above, key, exchange.caller.agent.team)
        if not exchange.run_inferred:
            self._remember(key, monotonic() - _GOOD_FOR_S + _BEGUN_S, run)
        return run

    async def shown_run(self, token: str) -> Placed:
        """The run of a run token. Raises `ProxyError(invalid_credential)` where it is none."""
        caller = await self._shown(token)
        if not caller.run_id:
            raise ProxyError(
                Kind.INVALID_CREDENTIAL,
                "The key in x-run-token is bound to no run: send the token that POST /v1/runs gave.",
                param="x-run-token",
                retryable=False,
            )
        key = RunKey(caller.agent.id, caller.run_id)
        return await self.find(key) or Placed(key, team=caller.agent.team)
