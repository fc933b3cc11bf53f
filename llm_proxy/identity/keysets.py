"""An issuer's key set as it's known here: kept fresh in the background, and through the issuer's outages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from llm_proxy.identity.jose import Unverified
from llm_proxy.identity.jwks import Key, KeySet
from llm_proxy.identity.keyfetch import Source, Unreadable

STALE_S = 86_400.0
"""How long the last good set is used while no newer one can be had."""
RETRY_S, MOST_RETRY_S = 5.0, 60.0
"""Between two looks in the background while they fail: doubled up to the second."""
_EAGER_S = 1.0
"""The least time between two looks while there is no set at all."""
_EARLY = 0.8
"""The part of a set's fresh time after which it's looked at again."""

log = structlog.get_logger("llm_proxy.identity")


class CantTell(Exception):
    """The key set isn't known, or not well enough to say no. `retry_s` is when it may be."""

    def __init__(self, retry_s: float) -> None:
        self.retry_s = retry_s
        super().__init__("the issuer's keys can't be read")


class KeySetKeeper:
    """One issuer's keys. `clock` is in seconds and only ever moves on."""

    def __init__(self, issuer: str, source: Source, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._source = source
        self._clock = clock
        self._keys: KeySet | None = None
        self._good_at = float("-inf")
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._next_s = 0.0
        self._failures = 0
        self.revision = 0
        """Changes with the keys: what was checked by others must be checked anew."""

    async def find(self, token: Unverified) -> tuple[Key, ...]:
        """The keys that may have signed `token`; none where the issuer has no such key.

        A key that isn't known is looked for at its issuer, though not more often than the source allows,
        whatever tokens come. Raises `CantTell` where the issuer's answer is missing.
        """
        keys = self._current()
        if keys is None or not keys.named(token.key_id):
            await self._look_again()
            keys = self._current()
        if keys is None:
            raise CantTell(_EAGER_S)
        if not keys.named(token.key_id) and self._failures:
            raise CantTell(self._source.spacing_s)
        return keys.candidates(token)

    async def keep_fresh(self) -> None:
        """Runs for as long as the worker does; the first look is at once."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(self._next_s)
        finally:
            if self._looking is not None:
                self._looking.cancel()

    def _current(self) -> KeySet | None:
        return self._keys if self._clock() - self._good_at < STALE_S else None

    async def _look_again(self) -> None:
        spacing_s = self._source.spacing_s if self._current() is not None else _EAGER_S
        if self._looking is not None or self._clock() - self._looked_at >= spacing_s:
            await self._look()

    async def _look(self) -> None:
        """One look at the source, shared by all who want one meanwhile, and not ended by one who leaves."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._fetch(), name="issuer-keys")
            self._looking.add_done_callback(self._looked)
        await asyncio.shield(self._looking)

    def _looked(self, _task: asyncio.Task[None]) -> None:
        self._looking = None

    async def _fetch(self) -> None:
        self._looked_at = self._clock()
        try:
            fetched = await self._source.fetch()
        except Unreadable as error:
            self._failures += 1
            self._next_s = min(RETRY_S * 2 ** min(self._failures - 1, 10), MOST_RETRY_S)
            if self._failures == 1:
                known = self._current() is not None
                log.warning(
                    "an issuer's keys can't be read", issuer=self._issuer, why=str(error), known=known
                )
            return
        self._good_at = self._clock()
        self._next_s = fetched.fresh_s * _EARLY
        if self._failures or fetched.keys != self._keys:
            self._tell(fetched.keys)
        if fetched.keys != self._keys:
            self._keys = fetched.keys
            self.revision += 1
        self._failures = 0

    def _tell(self, keys: KeySet) -> None:
        told = log.info if keys.keys else log.warning
        told("an issuer's keys were read", issuer=self._issuer, keys=len(keys.keys), skipped=keys.skipped)
