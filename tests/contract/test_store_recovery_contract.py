"""Who leads, and how the calls of a dead proxy end, over a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection, Engine, select, update

from budgets import Amount, Expire, Settle, SqlLedger
from llm_proxy.admission import LEASE_US
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.leases import LEASE_US as LEADER_US
from llm_proxy.records.leases import Lease
from llm_proxy.records.tables import calls, records
from llm_proxy.records.view import CostLabel, Status
from llm_proxy.recovery import Recovery, _closing
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.contract.stored import view
from tests.stores import NOW, Clock, Desk, body_of, faults_of_chain, writing

pytest_plugins = ["tests.postgres"]


def test_one_leads_until_its_lease_ends(engine: Engine) -> None:
    clock = Clock()
    one, two = (Lease(engine, "job", name, clock) for name in ("one", "two"))
    assert [one.lead(), two.lead(), one.lead()] == [True, False, True]
    clock.now += LEADER_US
    assert [two.lead(), one.lead(), two.lead()] == [True, False, True]
    two.release()
    assert [one.lead(), two.lead()] == [True, False]
    two.release()
    assert one.lead()


def test_a_leader_whose_clock_was_set_back_asks_again(engine: Engine) -> None:
    ahead, behind = Clock(NOW + 3600_000_000), Clock()
    one, two = Lease(engine, "job", "one", ahead), Lease(engine, "job", "two", behind)
    assert one.lead()
    ahead.now = NOW
    assert one.lead()
    assert not two.lead()
    behind.now += LEADER_US
    assert two.lead(), "the lease ends by the clock as it now is"


def test_of_many_that_ask_at_once_one_leads(engine: Engine) -> None:
    leaders = [Lease(engine, "job", f"holder-{n}", Clock()) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(Lease.lead, leaders)) == 1


def _ended(connection: Connection) -> list[str]:
    kinds = select(records.c.call_id).where(records.c.kind == RecordKind.CALL_CLOSED.value)
    return [str(id_) for id_ in connection.execute(kinds.order_by(records.c.call_id)).scalars()]


async def test_calls_of_a_dead_proxy_are_closed_once_with_their_prompt_and_floor(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as died:
        dead = [await Desk(died, clock).open(body_of(user=f"u{n}")) for n in range(5)]
    async with writing(engine, clock) as one, writing(engine, clock) as two:
        clock.now += LEASE_US - 1_000_000
        live = await Desk(one, clock).open(body_of(user="alive"))
        workers = [Recovery(engine, one, {live.id: live.started_us}, clock), Recovery(engine, two, {}, clock)]
        assert await asyncio.gather(*(worker.step() for worker in workers)) == [0, 0]
        clock.now += 2_000_000
        assert sum(await asyncio.gather(*(worker.step() for worker in workers))) == 5
        clock.now += LEADER_US
        assert await asyncio.gather(*(worker.step() for worker in workers)) == [0, 0]
        ledger = SqlLedger(engine.dialect)
        with engine.connect() as connection:
            assert _ended(connection) == sorted(exchange.id for exchange in dead)
            assert faults_of_chain(connection) == []
            counter = ledger.peek(connection, [live.bounds[0].key])[live.bounds[0].key]
        floor = sum((exchange.floor for exchange in dead), Amount())
        assert (counter.used, counter.held) == (floor, live.held)
    for exchange in dead:
        found = view(engine, exchange.id)
        assert (found.status, found.request) == (Status.INTERRUPTED, exchange.body)
        assert (found.cost_micro_usd, found.cost_label) == (exchange.floor.micro_usd, CostLabel.PARTIAL)
        assert found.cost_micro_usd > 0
    assert view(engine, live.id).status is Status.OPEN


async def test_a_call_is_closed_once_even_where_two_workers_found_it_dead(engine: Engine) -> None:
    """As when the lease passes on between finding and closing."""
    clock = Clock()
    async with writing(engine, clock) as one, writing(engine, clock) as two:
        desk = Desk(one, clock)
        opened = [await desk.open(body_of()) for _ in range(4)]
        clock.now += LEASE_US * 2
        await one.submit(Job(lambda _: Wrote(None), ops=(Expire(clock()),)))
        found = Recovery(engine, one, {}, clock)._dead()
        late = opened[0]
        late.status = Status.OK
        await desk.close(late)
        outcome = await asyncio.gather(
            *(writer.submit(_closing(found, clock())) for writer in (one, two, one, two))
        )
        assert (len(found), sum(outcome)) == (4, 3)
    with engine.connect() as connection:
        assert _ended(connection) == sorted(exchange.id for exchange in opened)
    assert view(engine, late.id).status is Status.OK


async def test_a_live_call_keeps_its_hold_however_long_it_runs(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        desk = Desk(writer, clock)
        exchange = await desk.open(body_of())
        recovery = Recovery(engine, writer, {exchange.id: exchange.started_us}, clock)
        for _ in range(6):
            clock.now += LEASE_US - 1_000_000
            assert await recovery.step() == 0
        settle = Job(
            lambda found: Wrote(type(found.results[0]).__name__),
            ops=(Settle(exchange.id, Amount(tokens=1)),),
        )
        assert await writer.submit(settle) == "Settled"


async def test_an_opening_record_that_cannot_be_read_is_closed_too(engine: Engine) -> None:
    clock = Clock()
    async with writing(engine, clock) as writer:
        exchange = await Desk(writer, clock).open(body_of())
        with engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(update(records).values(body=b"edited"))
        clock.now += LEASE_US * 2
        recovery = Recovery(engine, writer, {}, clock)
        assert await recovery.step() == 1
        assert await recovery.step() == 0
    with engine.connect() as connection:
        assert connection.execute(select(calls.c.status, calls.c.micro_usd)).all() == [("interrupted", 0)]
        assert _ended(connection) == [exchange.id]
