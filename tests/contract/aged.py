"""Calls of days gone by, with content on both sides and verdicts: shared by the tests of retention."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine, func, select

from llm_proxy.archive.calls import call_view
from llm_proxy.audit.findings import Report
from llm_proxy.exchange import Exchange
from llm_proxy.records.blobs import DAY_US
from llm_proxy.records.ids import uuid7
from llm_proxy.records.tables import blobs, salts
from llm_proxy.records.view import CallView, Status
from llm_proxy.records.writer import Writer
from llm_proxy.retention.keeper import Retention, Rules
from llm_proxy.signing import SigningKey
from tests.contract.audited import KEY, verified
from tests.contract.judged import Bench, pay
from tests.contract.stored import REPLY
from tests.stores import NOW, Clock, body_of

__all__ = ["KEY", "House", "SigningKey", "house", "sound"]

TODAY = NOW // DAY_US
SECRET = "the launch is on the ninth of May"


@dataclass
class House:
    """One process: calls made in it, and its retention of `rules`."""

    engine: Engine
    writer: Writer
    clock: Clock
    rules: Rules = field(default_factory=lambda: Rules(days=30))

    def __post_init__(self) -> None:
        self.bench = Bench(self.engine, self.writer, self.clock)
        self.retention = Retention(self.engine, self.writer, self.clock, self.rules)

    async def call(self, run: str = "run-1", *, say: str = SECRET) -> Exchange:
        """A whole call of the run, one of whose tool calls was judged."""
        messages = [{"role": "user", "content": f"{say} {n} " + "and so on " * 30} for n in range(4)]
        exchange = await self.bench.desk.open(body_of(*messages, user=f"user {say}"), run)
        await self.bench.judge_of(exchange)((pay(amount=5, tool="look"),))
        exchange.emitted, exchange.status = io.BytesIO(REPLY), Status.OK
        await self.bench.desk.close(exchange)
        return exchange

    def view(self, id_: str) -> CallView:
        with self.engine.connect() as connection:
            found = call_view(connection, id_)
        assert found is not None
        return found

    def days(self) -> dict[int, int]:
        """How many pieces of content there are, by days before today."""
        query = select(blobs.c.epoch, func.count()).group_by(blobs.c.epoch)
        with self.engine.connect() as connection:
            return {TODAY - row[0]: row[1] for row in connection.execute(query)}

    def salted(self) -> set[int]:
        """Days before today that have a salt."""
        with self.engine.connect() as connection:
            return {TODAY - epoch for epoch in connection.execute(select(salts.c.epoch)).scalars()}


@asynccontextmanager
async def house(
    engine: Engine, ago: int = 0, rules: Rules | None = None, now: int = NOW
) -> AsyncGenerator[House]:
    """A process of `ago` days before today, where retention is of 30 days unless `rules` say else."""
    clock = Clock(now - ago * DAY_US)
    writer = Writer(engine, uuid7(clock()), clock)
    await writer.start()
    try:
        yield House(engine, writer, clock, rules or Rules(days=30))
    finally:
        await writer.stop()


def sound(engine: Engine) -> Report:
    """What verifying says, which has to be that nothing is wrong."""
    with engine.connect() as connection:
        report = verified(connection)
    assert report.findings == (), report.findings
    return report
