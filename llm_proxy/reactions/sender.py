"""Sends events to webhooks: one process per store at a time, each endpoint on its own, at least once.

What a try comes to is written after it: a process that dies between the two sends that delivery again, under
the same id, which receivers tell apart by `webhook-id`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import time
from typing import Protocol

import aiohttp
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.config.choices import Event
from llm_proxy.reactions.events import Webhook
from llm_proxy.reactions.links import Links
from llm_proxy.reactions.queue import Due, Queue, Tried
from llm_proxy.reactions.schedule import DELAYS_S, next_try_us, rest_s
from llm_proxy.reactions.signing import signed_headers
from llm_proxy.records.leases import Lease
from llm_proxy.version import VERSION
from routing.retry_after import parse_retry_after

log = structlog.get_logger("llm_proxy.webhooks")

TIMEOUT_S = 10.0
AT_ONCE = 4
"""Deliveries on their way to one endpoint."""
EVERY_S = 1.0
_TIDY_S = 3_600.0
_GONE = 410


class Counts(Protocol):
    def webhook_tried(self, webhook: str, outcome: str) -> None: ...


class Sender:
    """One per worker; only the one that holds the lease sends."""

    def __init__(
        self,
        engine: Engine,
        holder: str,
        webhooks: Sequence[Webhook],
        now_us: Callable[[], int],
        random: Callable[[], float],
        counts: Counts,
        *,
        links: Links | None = None,
        delays: tuple[float, ...] = DELAYS_S,
    ) -> None:
        """Without `links` no event carries any."""
        self._queue = Queue(engine)
        self._lease = Lease(engine, "webhooks", holder, now_us)
        self._webhooks = tuple(webhooks)
        self._now_us = now_us
        self._random = random
        self._counts = counts
        self._links = links
        self._delays = delays
        self._leads = False

    async def run(self) -> None:
        """Runs for as long as the worker does."""
        if not self._webhooks:
            return
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=timeout,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers={"user-agent": f"llm-proxy/{VERSION}"},
                    skip_auto_headers=("accept-encoding",),
                ) as http,
                asyncio.TaskGroup() as group,
            ):
                for webhook in self._webhooks:
                    group.create_task(self._serve(http, webhook), name=f"webhook-{webhook.id}")
                await self._keep_lead()
        finally:
            with suppress(SQLAlchemyError, OSError):
                await asyncio.to_thread(self._lease.release)

    async def _keep_lead(self) -> None:
        tidy_at = 0.0
        clock = asyncio.get_running_loop().time
        while True:
            try:
                self._leads = await asyncio.to_thread(self._lease.lead)
                if self._leads and clock() >= tidy_at:
                    ids = [webhook.id for webhook in self._webhooks]
                    if not await asyncio.to_thread(self._queue.tidy, ids, self._now_us()):
                        tidy_at = clock() + _TIDY_S  # else there may be more
                    if self._links is not None:
                        await asyncio.to_thread(self._links.tidy)
            except (SQLAlchemyError, OSError) as error:
                self._leads = False
                log.warning("webhooks wait for the store", error=type(error).__name__)
            await asyncio.sleep(EVERY_S)

    async def _serve(self, http: aiohttp.ClientSession, webhook: Webhook) -> None:
        """Sends what is due to one endpoint, and lets it rest while it fails."""
        failures = 0
        while True:
            try:
                found = await self._due(webhook) if self._leads else []
            except (SQLAlchemyError, OSError):
                found = []  # said where the lease is kept
            if not found:
                await asyncio.sleep(EVERY_S)
                continue
            tried = await asyncio.gather(*(self._try(http, webhook, due) for due in found))
            await self._note(tried)
            failures = 0 if any(not one.error for one in tried) else failures + 1
            await asyncio.sleep(rest_s(failures))

    async def _due(self, webhook: Webhook) -> list[Due]:
        return await asyncio.to_thread(self._queue.due, webhook.id, self._now_us(), AT_ONCE)

    async def _try(self, http: aiohttp.ClientSession, webhook: Webhook, due: Due) -> Tried:
        error, asked_s, gone = await self._post(http, webhook, due)
        now, attempts = self._now_us(), due.attempts + 1
        again = None
        if error and not gone:
            again = next_try_us(attempts, now, self._random(), asked_s, self._delays)
        outcome = "delivered" if not error else "retried" if again is not None else "given_up"
        self._counts.webhook_tried(webhook.id, outcome)
        if outcome == "given_up":
            log.error(
                "an event could not be delivered",
                webhook=webhook.id,
                event_type=due.event,
                delivery=due.id,
                attempts=attempts,
                error=error,
            )
        return Tried(due.id, webhook.id, attempts, again, now if again is None else None, error)

    async def _post(
        self, http: aiohttp.ClientSession, webhook: Webhook, due: Due
    ) -> tuple[str, float | None, bool]:
        """Why it failed, empty where it didn't; what the endpoint asks to wait; whether it wants no more."""
        try:
            body, now_s = await self._body(webhook, due), time()
        except (SQLAlchemyError, OSError) as error:
            return f"its links can't be stored: {type(error).__name__}", None, False
        headers = {
            "content-type": "application/json",
            **signed_headers(webhook.secret, due.id, int(now_s), body),
        }
        try:
            async with http.post(webhook.url, data=body, headers=headers, allow_redirects=False) as reply:
                if 200 <= reply.status < 300:
                    return "", None, False
                asked = reply.headers.get("retry-after")
                wait = parse_retry_after(asked, now_s) if asked is not None else None
                return f"HTTP {reply.status}", wait, reply.status == _GONE
        except TimeoutError:
            return f"no answer within {TIMEOUT_S:g} s", None, False
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return f"{type(error).__name__}", None, False

    async def _body(self, webhook: Webhook, due: Due) -> bytes:
        """What is sent; the links in it are good from now on."""
        if self._links is None or not webhook.links_for or due.event != Event.APPROVAL_REQUESTED:
            return due.body.encode()
        return (await asyncio.to_thread(self._links.signed, due.body, webhook.links_for)).encode()

    async def _note(self, tried: Sequence[Tried]) -> None:
        """Writes what came of them, however long the store is away: else they'd be sent again and again."""
        while True:
            try:
                await asyncio.to_thread(self._queue.tried, tried)
            except (SQLAlchemyError, OSError):
                await asyncio.sleep(EVERY_S)
            else:
                return
