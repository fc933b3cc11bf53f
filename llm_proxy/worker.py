"""One worker's life: opens the store, starts what runs beside the calls, and closes it all in order."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from threading import Lock

import structlog
from sqlalchemy import Engine

from budgets import LimitBook, Refused
from llm_proxy import wiring
from llm_proxy.admission import Admission
from llm_proxy.archive.lengths import newest_lengths
from llm_proxy.archive.search_indexer import Indexer
from llm_proxy.asking import Approvals, decided_in
from llm_proxy.audit.checkpointer import Checkpointer
from llm_proxy.audit.configured import loaded
from llm_proxy.body_room import Bodies
from llm_proxy.call_log import CallLog
from llm_proxy.census import Census
from llm_proxy.config import Config
from llm_proxy.config.choices import Content, Durability, LogLevel, Translation, Unpriced
from llm_proxy.config.providers import LITELLM
from llm_proxy.counting.error import TokenErrors, error_key
from llm_proxy.counting.lengths import ReplyLengths
from llm_proxy.counting.text import TokenCounter
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.exporting import Exporting, metrics_of
from llm_proxy.identity.access import Access
from llm_proxy.identity.keyring import Credential, Keyring
from llm_proxy.identity.tokens import SignedTokens
from llm_proxy.inspecting import Inspector
from llm_proxy.intake import Reader
from llm_proxy.offering import Offering
from llm_proxy.outgoing import Composer
from llm_proxy.pricing.book import PriceBook
from llm_proxy.reactions.alerts import Alerts
from llm_proxy.reactions.events import Announcer
from llm_proxy.reactions.sender import Sender
from llm_proxy.reads import Reads
from llm_proxy.recording import Recorder
from llm_proxy.records.blobs import DAY_US, KEPT, ensure_salt
from llm_proxy.records.engine import hurried, open_engine
from llm_proxy.records.ids import now_us, writer_id
from llm_proxy.records.migrate import upgrade
from llm_proxy.records.purge import Purge
from llm_proxy.records.standing import StandingReader, issued_keys
from llm_proxy.records.writer import Writer
from llm_proxy.recovery import Recovery
from llm_proxy.reloading import PolicyWatch
from llm_proxy.retention.held import held_runs
from llm_proxy.retention.keeper import Retention
from llm_proxy.runs.desk import RunDesk
from llm_proxy.runs.lookup import RunLookup
from llm_proxy.runs.stitched import Stitcher
from llm_proxy.runs.tree import RunTree
from llm_proxy.seals import Seals
from llm_proxy.services import Services
from llm_proxy.settle import Settler
from llm_proxy.sharing.sharing import Sharing
from llm_proxy.sharing.token_errors import SharedTokenErrors
from llm_proxy.standing import Standing
from llm_proxy.stitching import Threads
from llm_proxy.telemetry.metrics import Metrics
from llm_proxy.topup import TopUps
from llm_proxy.turns import Turns
from llm_proxy.unseen import UnseenTurns
from llm_proxy.upstream.http import HttpProvider
from llm_proxy.upstream.litellm import LiteLLMProvider
from llm_proxy.upstream.provider import Provider, Upstreams
from llm_proxy.upstream.scripted import ScriptedProvider
from routing.fleet import Fleet

log = structlog.get_logger("llm_proxy")

_PATIENCE_S = 60.0
"""How long a listing or a task beside the calls waits for PostgreSQL's answer."""


def _providers(config: Config) -> dict[str, Provider]:
    """Each provider that the config names; those that go through the litellm package share one."""
    http = HttpProvider()
    providers: dict[str, Provider] = {"openai": http, "anthropic": http, "scripted": ScriptedProvider()}
    named = {target.provider for model in config.models.values() for target in model.targets}
    if foreign := named & LITELLM:
        litellm = LiteLLMProvider()
        litellm.start()
        providers |= dict.fromkeys(foreign, litellm)
    return providers


class Worker:
    """Everything that one process runs. `start` it in its event loop; `stop` it there, once."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.engine: Engine
        """That of `/admin` and `/console`: however many connections it takes, calls have theirs."""
        self._engine: Engine
        self.services: Services
        self.tokens: SignedTokens
        self.retention: Retention
        self.counter: TokenCounter
        self.policy: PolicyWatch | None = None
        """None where the config names no policy."""
        self.failed = ""
        """Why the worker can't go on, empty while it can."""
        self.auditing = asyncio.Lock()
        """Held by whoever reads the whole evidence: one at a time."""
        self.simulating = Lock()
        """Held by whoever tries a policy on what was recorded."""
        self._checkpoints: Checkpointer | None = None
        """None where there is no key to sign with."""
        self._stack = AsyncExitStack()
        self._background: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Brings everything up, or raises and leaves nothing running."""
        async with AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        await self._stack.aclose()

    async def _start(self, stack: AsyncExitStack) -> None:
        config = self.config
        self._engine, self.engine = (
            open_engine(config.store.get_secret_value(), patience_s=_PATIENCE_S) for _ in range(2)
        )
        stack.callback(self._engine.dispose)
        stack.callback(self.engine.dispose)
        await asyncio.to_thread(upgrade, self._engine)
        limits, announcer = wiring.limits(config), Announcer(wiring.webhooks(config))
        keeps = config.records.content is not Content.DIGEST
        writer = Writer(
            self._engine, writer_id(now_us()), now_us, watched=limits, announce=announcer, keeps_content=keeps
        )
        await writer.start()
        stack.push_async_callback(writer.stop)
        stack.push_async_callback(self._sign_off)
        self.services = services = await self._services(stack, writer, limits, announcer)
        services.metrics.track_targets(services.fleet, services.routes, time.monotonic)
        services.metrics.track_door(services.census.counts)
        stack.push_async_callback(services.census.flush)
        await writer.submit(await asyncio.to_thread(loaded, config.path, now_us()))
        if (key := services.receipts.key) is not None:
            self._checkpoints = Checkpointer(self._engine, writer, key, now_us)
        self.policy = await self._watch(announcer)
        self._export(stack, writer.id, services.metrics)
        self._index(stack, writer.id, services.metrics)
        self.retention = Retention(self._engine, writer, now_us, wiring.retention(config))
        recovery = Recovery(self._engine, writer, services.active, now_us, services.alerts)
        await services.standing.refresh()
        sharing = Sharing(self._engine, writer.id, services.fleet, services.routes, now_us, time.monotonic)
        await sharing.step()  # a target that was given up before a restart isn't asked after it
        measured = SharedTokenErrors(self._engine, services.errors, now_us)
        await measured.step()
        self._background = asyncio.create_task(
            self._run(recovery, services.standing, sharing, measured), name="llm-proxy-background"
        )
        stack.push_async_callback(self._end_background)

    async def _services(
        self, stack: AsyncExitStack, writer: Writer, limits: LimitBook, announcer: Announcer
    ) -> Services:
        config = self.config
        self.counter, errors, prices = TokenCounter(), TokenErrors(), wiring.prices(config)
        upstreams = Upstreams(_providers(config), wiring.endpoints(config))
        stack.push_async_callback(upstreams.close)
        metrics = metrics_of(writer)
        keyring, access = self._access(writer)
        standing = self._standing(stack, keyring)
        lookup = RunLookup(self._engine, lambda: writer.healthy)
        stack.callback(lookup.close)
        runs = RunTree(lookup, access.shown, lambda: standing.ended, now_us)
        lengths = await self._lengths()
        kept_secret = await asyncio.to_thread(self._kept_secret)
        reads = Reads(self._engine, lambda: writer.healthy)
        inspector = Inspector(kept_secret, writer.addresser.address, reads.classified)
        admission = self._admission(writer, limits, prices, errors, lengths)

        async def over(exchange: Exchange, refused: Refused) -> ProxyError:
            return await runs.explained(exchange, admission.exceeded(refused, exchange))

        return Services(
            access=access,
            standing=standing,
            census=Census(writer, now_us),
            call_log=self._call_log(stack),
            runs=runs,
            desk=RunDesk(runs, lookup, limits, writer, now_us, standing.refresh),
            lookup=lookup,
            stitcher=self._stitcher(lookup, writer, kept_secret, reads),
            unseen=UnseenTurns(reads.unseen),
            inspector=inspector,
            recorder=self._recorder(writer, kept_secret, inspector),
            receipts=await asyncio.to_thread(wiring.receipts, config),
            routes=wiring.routes(config, prices),
            fleet=Fleet(),
            reader=Reader(writer.addresser, self.counter),
            admission=admission,
            approvals=Approvals(decided_in(self._engine, now_us)),
            settler=Settler(prices, self.counter),
            errors=errors,
            lengths=lengths,
            topups=TopUps(writer, self.counter, errors, over),
            alerts=Alerts(limits, announcer, metrics),
            writer=writer,
            upstreams=upstreams,
            stored=reads.stored,
            recall=reads.recall,
            offering=Offering(),
            composer=Composer(Seals(), strict=config.translation is Translation.STRICT),
            metrics=metrics,
            rules=wiring.rules(config),
            active={},
            environment=config.server.environment,
            turns=Turns(),
            now_us=now_us,
            random=random.random,
            default_model=config.default_model,
            max_body=config.server.max_body_mb << 20,
            bodies=Bodies(config.server.max_bodies_mb << 20),
            strict=config.records.durability is Durability.STRICT,
        )

    def _call_log(self, stack: AsyncExitStack) -> CallLog | None:
        wish = self.config.log
        if not (wish.calls and wish.level in (LogLevel.DEBUG, LogLevel.INFO)):
            return None
        lines = CallLog()
        stack.push_async_callback(lines.flush)
        return lines

    def _access(self, writer: Writer) -> tuple[Keyring, Access]:
        agents = wiring.agents(self.config)
        keyring = Keyring(agents, wiring.credentials(self.config))
        self.tokens = SignedTokens(wiring.issuers(self.config), agents, now_us, time.monotonic)
        return keyring, Access(keyring, self._issued, writer, now_us, self.tokens)

    def _recorder(self, writer: Writer, kept_secret: bytes, inspector: Inspector) -> Recorder:
        told = self.config.records
        return Recorder(
            writer.addresser,
            kept_secret,
            inspector.redaction,
            mask_secrets=told.mask_secrets,
            content=told.content,
        )

    def _stitcher(self, lookup: RunLookup, writer: Writer, kept_secret: bytes, reads: Reads) -> Stitcher:
        records = self.config.records
        threads = Threads(kept_secret) if records.stitch_runs else None
        strict = records.durability is Durability.STRICT
        return Stitcher(threads, lookup, writer.addresser, reads.stored, strict=strict)

    def _admission(
        self,
        writer: Writer,
        limits: LimitBook,
        prices: PriceBook,
        errors: TokenErrors,
        lengths: ReplyLengths | None,
    ) -> Admission:
        return Admission(
            writer,
            limits,
            prices,
            now_us,
            refuse_unpriced=self.config.unpriced is Unpriced.REFUSE,
            errors=errors,
            lengths=lengths,
            expecting=wiring.expecting(self.config),
            environment=self.config.server.environment,
        )

    async def _watch(self, announcer: Announcer) -> PolicyWatch | None:
        """What keeps the policy in force the one in its file; the first is on record when it returns."""
        config, services = self.config, self.services
        rules, path = services.rules, config.policy
        if rules is None or path is None:
            return None
        watch = PolicyWatch(services, rules, path, partial(wiring.rules, config), announcer)
        services.metrics.track_policy(watch.state)
        await watch.begin()
        return watch

    async def _lengths(self) -> ReplyLengths | None:
        """How long replies were lately, where the hold of a model's streams goes by that."""
        if not wiring.expecting(self.config):
            return None
        lengths = ReplyLengths()
        for provider, model, tokens in await asyncio.to_thread(self._newest_lengths):
            lengths.observe(error_key(provider, model), tokens)
        return lengths

    def _newest_lengths(self) -> list[tuple[str, str, int]]:
        with self._engine.connect() as connection:
            return newest_lengths(connection, wiring.served(self.config))

    def _kept_secret(self) -> bytes:
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            return ensure_salt(connection, KEPT)

    def _issued(self, hashes: Sequence[str]) -> list[Credential]:
        with hurried(self._engine.connect()) as connection:
            return [Credential(*row) for row in issued_keys(connection, hashes)]

    def _standing(self, stack: AsyncExitStack, keyring: Keyring) -> Standing:
        reader = StandingReader(self._engine)
        standing = Standing(keyring, reader, now_us)
        stack.callback(reader.close)
        stack.callback(standing.close)
        return standing

    def _sender(self) -> Sender:
        services, webhooks = self.services, wiring.webhooks(self.config)
        links = wiring.links(self.config, self._engine, now_us)
        return Sender(
            self._engine, services.writer.id, webhooks, now_us, random.random, services.metrics, links=links
        )

    def _index(self, stack: AsyncExitStack, holder: str, metrics: Metrics) -> None:
        indexer = Indexer(self._engine, holder, now_us, metrics.search_backlog, held_runs)
        indexer.start()
        stack.push_async_callback(asyncio.to_thread, indexer.stop)

    def _export(self, stack: AsyncExitStack, holder: str, metrics: Metrics) -> None:
        if self.config.telemetry.otlp_endpoint is None:
            return
        exporting = Exporting(self.config, self._engine, holder, metrics, os.environ)
        exporting.start()
        stack.push_async_callback(asyncio.to_thread, exporting.stop)

    async def _run(
        self, recovery: Recovery, standing: Standing, sharing: Sharing, measured: SharedTokenErrors
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(recovery.run(), name="recovery")
                retention_us = self.config.records.retention_days * DAY_US
                purge = Purge(self._engine, self.services.writer.id, now_us, retention_us)
                group.create_task(purge.run(), name="purge")
                group.create_task(self.retention.run(), name="retention")
                group.create_task(standing.run(), name="standing")
                group.create_task(self.services.approvals.run(), name="approvals")
                group.create_task(self.services.census.run(), name="census")
                if self.services.call_log is not None:
                    group.create_task(self.services.call_log.run(), name="call log")
                if self.policy is not None:
                    group.create_task(self.policy.run(), name="policy")
                if self._checkpoints is not None:
                    group.create_task(self._checkpoints.run(), name="checkpoints")
                group.create_task(self.tokens.keep_fresh(), name="issuers")
                group.create_task(sharing.run(), name="sharing")
                group.create_task(measured.run(), name="token errors")
                group.create_task(self.counter.ready(wiring.encodings(self.config)), name="encodings")
                group.create_task(self._sender().run(), name="webhooks")
        except* Exception as errors:
            self.failed = "a background task ended"
            log.critical("a background task ended; the worker is not ready any more", exc_info=errors)

    async def _sign_off(self) -> None:
        if self._checkpoints is not None:
            await self._checkpoints.stop()

    async def _end_background(self) -> None:
        if self._background is not None:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)
