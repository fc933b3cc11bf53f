"""Lets callers in: the keyring in memory, and the store for issued keys that it doesn't have at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.caller import Caller
from llm_proxy.identity.headers import Headers, credential
from llm_proxy.identity.keyring import Credential, Keyring, hash_key
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Evidence, Refusal
from llm_proxy.records.writer import Writer, unavailable

log = structlog.get_logger("llm_proxy.identity")

_PACE_S = 0.05


class TokenRefused(Exception):
    """A token that lets nobody in. `reason` is counted, at most 64 characters; `error` is what's answered."""

    def __init__(self, reason: str, error: ProxyError) -> None:
        self.reason = reason
        self.error = error
        super().__init__(reason)


class Tokens(Protocol):
    """Signed tokens of the config's issuers, which stand in for keys."""

    def looks_like_one(self, credential: str) -> bool:
        """Whether `credential`, which is no known key, is to be read as a token. No I/O."""
        ...

    async def caller(self, token: str) -> Caller:
        """Who shows it. Raises `TokenRefused`, and `ProxyError` where it can't be told just now."""
        ...


@dataclass(slots=True)
class _Look:
    """One look at the store, for all the hashes that gather until it begins."""

    hashes: set[str]
    task: asyncio.Task[None] | None = None


class Access:
    """Identifies callers. Refusals of the unidentified are counted in the store before they're answered."""

    def __init__(
        self,
        keyring: Keyring,
        find_issued: Callable[[Sequence[str]], list[Credential]],
        writer: Writer,
        now_us: Callable[[], int],
        tokens: Tokens | None = None,
    ) -> None:
        """`find_issued` reads from the store those of the issued keys that have one of these hashes."""
        self._keyring = keyring
        self._find_issued = find_issued
        self._writer = writer
        self._now_us = now_us
        self._tokens = tokens
        self._next: _Look | None = None
        self._looked_at = float("-inf")
        self._reading = asyncio.Lock()

    async def identify(self, headers: Headers) -> Caller:
        """The caller behind the request's credential. Nothing is awaited between finding and returning it.

        Raises `ProxyError`: invalid_credential without a valid key, store_unavailable where it can't be told.
        """
        key = credential(headers)
        if key is None:
            raise await self._refused("missing", _invalid(_MISSING))
        try:
            caller = await self._by_key(key)
        except ProxyError as error:
            if error.kind is Kind.INVALID_CREDENTIAL:
                raise await self._refused("lapsed", error) from None
            raise
        if caller is not None:
            return caller
        if self._tokens is None or not self._tokens.looks_like_one(key):
            raise await self._refused("unknown", _invalid(_UNKNOWN))
        try:
            return await self._tokens.caller(key)
        except TokenRefused as refused:
            raise await self._refused(refused.reason, refused.error) from None

    async def shown(self, key: str) -> Caller:
        """Whom a key stands for that is shown beside the credential.

        Raises `ProxyError` as `identify` does; nothing is counted, since the call itself is recorded.
        """
        caller = await self._by_key(key)
        if caller is None:
            raise _invalid("The run token is not known here: send the one that POST /v1/runs gave.")
        return caller

    async def _by_key(self, key: str) -> Caller | None:
        """The caller that a key of the config or of the store stands for. No signed token is looked up."""
        caller = self._keyring.find(key, self._now_us())
        if caller is None and not (self._tokens is not None and self._tokens.looks_like_one(key)):
            await self._look_up(hash_key(key))
            caller = self._keyring.find(key, self._now_us())
        return caller

    async def _look_up(self, sha256: str) -> None:
        """Asks the store for a key; at most twenty times a second however many wrong keys are tried."""
        look = self._next
        if look is None:
            look = self._next = _Look(set())
            look.task = asyncio.create_task(self._read(look), name="keys")
        look.hashes.add(sha256)
        assert look.task is not None
        await asyncio.shield(look.task)

    async def _read(self, look: _Look) -> None:
        clock = asyncio.get_running_loop().time
        async with self._reading:
            await asyncio.sleep(self._looked_at + _PACE_S - clock())
            self._next, self._looked_at = None, clock()
            if not self._writer.healthy:
                raise unavailable()  # nobody waits for a store that is known to be down
            try:
                found = await asyncio.to_thread(self._find_issued, tuple(look.hashes))
            except (SQLAlchemyError, OSError) as error:
                log.error("issued keys can't be read", error=type(error).__name__)
                raise unavailable() from None
            self._keyring.remember(found)

    async def _refused(self, reason: str, error: ProxyError) -> ProxyError:
        row = Refusal(self._now_us() // 60_000_000, reason)

        def then(_found: Found) -> Wrote:
            return Wrote(None, Evidence(refusals=(row,)))

        await self._writer.submit(Job(then))
        error.counted = True
        return error


def _invalid(message: str) -> ProxyError:
    return ProxyError(Kind.INVALID_CREDENTIAL, message, retryable=False)


_MISSING = (
    "No key was sent. Set the SDK's api_key to an agent key (`Authorization: Bearer KEY`); "
    "an operator issues one with `llm-proxy keys issue AGENT`."
)
_UNKNOWN = (
    "The key is not known here. Check the SDK's api_key; "
    "an operator issues keys with `llm-proxy keys issue AGENT`."
)
