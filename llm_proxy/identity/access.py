"""Lets callers in: the keyring in memory, and the store for keys issued since it was read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.caller import Caller
from llm_proxy.identity.headers import Headers, credential
from llm_proxy.identity.keyring import Credential, Keyring
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Evidence, Refusal
from llm_proxy.records.writer import Writer, unavailable

log = structlog.get_logger("llm_proxy.identity")

_REFRESH_S = 0.5


class Access:
    """Identifies callers. Refusals of the unidentified are counted in the store before they're answered."""

    def __init__(
        self,
        keyring: Keyring,
        load_issued: Callable[[], list[Credential]],
        writer: Writer,
        now_us: Callable[[], int],
    ) -> None:
        self._keyring = keyring
        self._load_issued = load_issued
        self._writer = writer
        self._now_us = now_us
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def identify(self, headers: Headers) -> Caller:
        """The caller behind the request's credential.

        Raises `ProxyError`: invalid_credential without a valid key, store_unavailable where it can't be told.
        """
        key = credential(headers)
        if key is None:
            raise await self._refused("missing", _MISSING)
        try:
            caller = self._keyring.find(key, self._now_us())
            if caller is None:
                await self.refresh()
                caller = self._keyring.find(key, self._now_us())
        except ProxyError as error:
            if error.kind is Kind.INVALID_CREDENTIAL:
                raise await self._refused("lapsed", error.message) from None
            raise
        if caller is None:
            raise await self._refused("unknown", _UNKNOWN)
        return caller

    async def refresh(self) -> None:
        """Reads the issued keys as they are now; at most twice a second however many wrong keys are tried.

        So a key that was issued a moment ago is found, and one that nobody issued waits for its answer.
        """
        clock = asyncio.get_running_loop().time
        asked = clock()
        async with self._reading:
            if self._read_at >= asked:
                return
            await asyncio.sleep(self._read_at + _REFRESH_S - clock())
            now = clock()
            try:
                issued = await asyncio.to_thread(self._load_issued)
            except (SQLAlchemyError, OSError) as error:
                log.error("issued keys can't be read", error=type(error).__name__)
                raise unavailable() from None
            self._keyring.replace_issued(issued)
            self._read_at = now

    async def keep_fresh(self) -> None:
        """Runs for as long as the worker does: a revoked key stops working within a second."""
        while True:
            await asyncio.sleep(_REFRESH_S)
            try:
                await self.refresh()
            except ProxyError:
                continue  # said in the log; the keys known before stay in force until the store is back

    async def _refused(self, reason: str, message: str) -> ProxyError:
        row = Refusal(self._now_us() // 60_000_000, reason)

        def then(_found: Found) -> Wrote:
            return Wrote(None, Evidence(refusals=(row,)))

        await self._writer.submit(Job(then))
        return ProxyError(Kind.INVALID_CREDENTIAL, message, retryable=False)


_MISSING = (
    "No key was sent. Set the SDK's api_key to an agent key (`Authorization: Bearer KEY`); "
    "an operator issues one with `llm-proxy keys issue AGENT`."
)
_UNKNOWN = (
    "The key is not known here. Check the SDK's api_key; "
    "an operator issues keys with `llm-proxy keys issue AGENT`."
)
