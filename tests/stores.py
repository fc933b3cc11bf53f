"""Stores, writers and calls for the tests of what is recorded: real databases, a clock set by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Connection, Engine, create_engine, make_url, select, text

from budgets import Limit, LimitBook, Refused, Scope, Unit, window_named
from llm_proxy import journal
from llm_proxy.admission import Admission, Admitted
from llm_proxy.counting.text import TokenCounter
from llm_proxy.exchange import Exchange
from llm_proxy.identity.caller import Agent, Caller
from llm_proxy.intake import Reader
from llm_proxy.judge import Rules
from llm_proxy.pricing.book import PriceBook
from llm_proxy.records import chain
from llm_proxy.records import engine as engine_module
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.engine import open_engine
from llm_proxy.records.ids import uuid7
from llm_proxy.records.migrate import upgrade
from llm_proxy.records.tables import records, writers
from llm_proxy.records.writer import Writer
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from routing.targets import Route, RouteTable, Target

NOW = 1_800_000_000_000_000
"""Unix microseconds, some hours before a midnight."""
AGENT = Agent("bot", team="support", role="triage")
PRICES = {"m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 100}}
ROUTE = RouteTable([Route("m", (Target("t", "openai", "m"),))]).resolve("m")
LIMITS = LimitBook(
    [
        Limit(
            "day",
            Scope(agent="*"),
            window_named("day"),
            {Unit.USD: 10_000_000, Unit.TOKENS: 100_000, Unit.REQUESTS: 1_000, Unit.TOOL_CALLS: 1_000},
        )
    ]
)


@dataclass(slots=True)
class Clock:
    """Microseconds; a reading moves it on by one."""

    now: int = NOW

    def __call__(self) -> int:
        self.now += 1
        return self.now


@contextmanager
def store(url: str) -> Generator[Engine]:
    """An engine on the store at `url`, its tables in the newest form."""
    engine = open_engine(url)
    try:
        upgrade(engine)
        yield engine
    finally:
        engine.dispose()


@asynccontextmanager
async def writing(engine: Engine, clock: Clock | None = None) -> AsyncGenerator[Writer]:
    """A running writer; what it was given is committed at the end."""
    clock = clock or Clock()
    writer = Writer(engine, uuid7(clock()), clock)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.stop()


@contextmanager
def outage(url: str, engine: Engine) -> Generator[None]:
    """The store takes no write, connections to a server are cut, and nobody waits long for a lock."""
    if url.startswith("sqlite"):
        with (
            pytest.MonkeyPatch.context() as patch,
            engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            patch.setattr(engine_module, "BUSY_MS", 200)
            yield
        return
    name = make_url(url).database
    admin = create_engine(make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
            cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
            connection.execute(cut, {"name": name})
            yield
            connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    finally:
        admin.dispose()


def faults_of_chain(connection: Connection) -> list[str]:
    """Every row that doesn't follow from the one before, and every head that isn't its chain's end."""
    found: list[str] = []
    for known in connection.execute(select(writers)).all():
        seq, previous = 0, chain.GENESIS
        rows = connection.execute(
            select(records).where(records.c.writer == known.writer).order_by(records.c.seq)
        )
        for row in rows:
            seq += 1
            content = (row.kind, row.at_us, row.call_id, row.run_id, row.agent_id, bytes(row.body))
            previous = chain.link(previous, chain.Row(row.writer, seq, *content))
            if (row.seq, bytes(row.hash)) != (seq, previous):
                found.append(f"{row.writer}/{row.seq}")
        if (known.head_seq, bytes(known.head_hash)) != (seq, previous):
            found.append(f"{known.writer}/head")
    return found


OWN = records.c.kind.not_in(["writer.started", "content.stored"])
"""Records of what happened, less those by which the store proves itself."""


def body_of(*messages: object, **fields: object) -> bytes:
    return json.dumps(
        {"model": "m", "messages": messages or [{"role": "user", "content": "hi"}], **fields}
    ).encode()


@dataclass(slots=True)
class Desk:
    """Opens and closes calls as the pipeline does, without an upstream."""

    writer: Writer
    clock: Clock
    prices: PriceBook = field(default_factory=lambda: PriceBook(PRICES))
    limits: LimitBook = LIMITS
    counter: TokenCounter = field(default_factory=TokenCounter)

    async def read(self, body: bytes, run: str = "run-1", *, count: bool = True) -> Exchange:
        """A call whose request was read and taken apart."""
        now = self.clock()
        exchange = Exchange(
            uuid7(now), now, OPENAI_CHAT, clock0=0.0, caller=Caller(AGENT, "key-1"), body=body
        )
        exchange.run_id, exchange.user_id = run, "ada@example.com"
        exchange.request = OPENAI_CHAT.parse(body)
        exchange.intake = await Reader(self.writer.addresser, self.counter).read(
            exchange.request, OPENAI_CHAT, count=count
        )
        return exchange

    async def admit(self, exchange: Exchange, rules: Rules | None = None) -> Admitted:
        admission = Admission(self.writer, self.limits, self.prices, self.clock, refuse_unpriced=True)
        admission.bind(exchange)
        assert ROUTE is not None
        outcome = await admission.hold(exchange, ROUTE, rules)
        if isinstance(outcome, Refused):
            raise admission.exceeded(outcome, exchange)
        return outcome

    async def open(self, body: bytes, run: str = "run-1") -> Exchange:
        """A call that holds its worst case, its opening record committed."""
        exchange = await self.read(body, run)
        await self.admit(exchange)
        return exchange

    async def close(self, exchange: Exchange) -> None:
        """Commits the closing record as the exchange stands."""
        wrote = Wrote(None, journal.closed(exchange, self.writer.addresser, self.clock()))
        await self.writer.submit(Job(lambda _: wrote))
