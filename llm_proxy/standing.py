"""Who may call now: calls in flight of a revoked key, a frozen agent or an ended run end within a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import structlog
from msgspec import structs
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.identity.caller import Caller
from llm_proxy.identity.keyring import Keyring, expired, revoked
from llm_proxy.records import standing as store
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.writer import unavailable
from llm_proxy.runs.placed import iso, run_ended, run_expired

log = structlog.get_logger("llm_proxy.standing")

EVERY_S = 0.3
MARGIN_US = 120_000_000
"""How far back each look at the store goes: so far may the clocks of two hosts differ."""
FORGET_S = 60.0
"""After so long every issued key is looked up anew: whatever was missed holds no longer than this."""


class Standing:
    """One worker's view. `enter` a call as soon as its caller is known, and `leave` before it is settled."""

    def __init__(
        self,
        keyring: Keyring,
        read: Callable[[int], store.Standing],
        now_us: Callable[[], int],
    ) -> None:
        """`read` tells what changed since a moment (Unix µs), from the store; it runs in a thread."""
        self._keyring = keyring
        self._read = read
        self._now_us = now_us
        self._thread = ThreadPoolExecutor(1, "llm-proxy-standing")
        self._reading = asyncio.Lock()
        self._read_us: int | None = None
        self._blind = False
        self._forgot = monotonic()
        self._frozen: dict[str, store.Frozen] = {}
        self._live: dict[str, Exchange] = {}
        self.ended: dict[tuple[str, str], store.RunEnded] = {}
        """Runs that were ended within the last two minutes, by agent and id."""

    def check(self, caller: Caller) -> None:
        """Raises `ProxyError(agent_frozen)`."""
        found = self._frozen.get(caller.agent.id) if self._frozen else None
        if found is not None:
            raise agent_frozen(found)

    def enter(self, exchange: Exchange) -> None:
        """From now on the call ends with its key, its agent and its run. Raises as `check` does."""
        assert exchange.caller is not None
        self.check(exchange.caller)
        self._live[exchange.id] = exchange

    def leave(self, exchange: Exchange) -> None:
        """It comes to its own end now."""
        self._live.pop(exchange.id, None)

    async def refresh(self) -> None:
        """Looks at the store now. Raises `ProxyError(store_unavailable)`."""
        async with self._reading:
            now = self._now_us()
            since = (now if self._read_us is None else min(self._read_us, now)) - MARGIN_US
            loop = asyncio.get_running_loop()
            try:
                found = await loop.run_in_executor(self._thread, self._read, since)
            except (SQLAlchemyError, OSError) as error:
                if not self._blind:
                    log.error("who may call can't be read", error=type(error).__name__)
                self._blind = True
                raise unavailable() from None
            self._read_us, self._blind = now, False
            self._apply(found)

    async def run(self) -> None:
        """Runs for as long as the worker does. While the store is down, what was known stays in force."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.refresh()
            except ProxyError:
                self._end_expired()
                continue  # said in the log
            if monotonic() - self._forgot > FORGET_S:
                self._forgot = monotonic()
                self._keyring.forget()

    def close(self) -> None:
        """Waits for the look that is under way."""
        self._thread.shutdown()

    def _apply(self, found: store.Standing) -> None:
        self._frozen = {agent.agent_id: agent for agent in found.frozen}
        self.ended = {(run.agent_id, run.run_id): run for run in found.ended}
        for key in found.keys:
            self._keyring.change(key.id, key.expires_us, key.revoked_us)
        if found.keys:
            self._change({key.id: key for key in found.keys})
        self._end_expired()
        if self._frozen or self.ended:
            for exchange in tuple(self._live.values()):
                why = self._over(exchange)
                if why is not None:
                    _stop(exchange, why)

    def _change(self, changed: dict[str, store.KeyChange]) -> None:
        for exchange in tuple(self._live.values()):
            caller = exchange.caller
            assert caller is not None
            key = changed.get(caller.key_id)
            if key is None:
                continue
            if key.revoked_us is not None:
                _stop(exchange, revoked(key.id))
            elif key.expires_us != caller.expires_us:
                exchange.caller = structs.replace(caller, expires_us=key.expires_us)

    def _end_expired(self) -> None:
        now = self._now_us()
        for exchange in tuple(self._live.values()):
            caller, until_us = exchange.caller, exchange.lineage.expires_us
            assert caller is not None
            if caller.expires_us is not None and caller.expires_us <= now:
                _stop(exchange, expired(caller.key_id))
            elif until_us is not None and until_us <= now:
                run = RunKey(caller.agent.id, exchange.run_id)
                _stop(exchange, run_expired(run, run, until_us))

    def _over(self, exchange: Exchange) -> ProxyError | None:
        assert exchange.caller is not None
        agent = exchange.caller.agent.id
        if (frozen := self._frozen.get(agent)) is not None:
            return agent_frozen(frozen)
        run = RunKey(agent, exchange.run_id)
        over = (self.ended.get((key.agent, key.run)) for key in exchange.lineage.ancestors)
        ending = self.ended.get((run.agent_id, run.run_id)) or next(filter(None, over), None)
        return None if ending is None else run_ended(run, ending)


def _stop(exchange: Exchange, why: ProxyError) -> None:
    """Ends a call: at once where it is being carried, else before it would be."""
    if exchange.stopped is not None or (exchange.client_gone and not (exchange.drains and exchange.asking)):
        return
    exchange.stopped = why
    if exchange.task is not None:
        exchange.task.cancel()


def agent_frozen(frozen: store.Frozen) -> ProxyError:
    who = frozen.by if "@" in frozen.by else "an operator"
    return ProxyError(
        Kind.AGENT_FROZEN,
        f"Agent {frozen.agent_id!r} is frozen since {iso(frozen.since_us)}: {frozen.reason.rstrip('.')}. "
        f"Ask {who} to thaw it.",
        retryable=False,
    )
