"""What processes on one store tell each other of breakers and traffic, over SQLite and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, update
from structlog.testing import capture_logs

from llm_proxy.records import fleet_rows
from llm_proxy.records.fleet_rows import DAY_US, BreakerDraft, BreakerRow, TargetRow
from llm_proxy.records.tables import breakers, targets
from llm_proxy.sharing.sharing import Sharing
from routing.failures import FailureKind
from routing.fleet import ANY, Fleet, Why
from routing.health import Breaker, BreakerSettings, Health
from routing.targets import Limits, Route, RouteTable, Target
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.stores import NOW, outage

pytest_plugins = ["tests.postgres"]

SETTINGS = BreakerSettings(threshold=2, cool_down_s=10)
LIMITED = Target("limited", "openai", "m", limits=Limits(rpm=100, concurrency=3))
TARGETS = (Target("plain", "openai", "m"), Target("keyed", "openai", "m", api_keys=2), LIMITED)
ROUTES = RouteTable([Route("m", TARGETS[:2]), Route("wild-*", (LIMITED,))])


@dataclass(slots=True)
class World:
    """The time that all processes live in, in seconds since `NOW`."""

    s: float = 0.0

    def now_us(self) -> int:
        return NOW + round(self.s * 1e6)


class Process:
    """One process's fleet and its sharing; its monotonic clock shows `ahead` at the world's 0."""

    def __init__(self, engine: Engine, world: World, name: str, ahead: float) -> None:
        self.fleet = Fleet(Health(SETTINGS))
        self.world = world
        self.ahead = ahead
        self.sharing = Sharing(engine, name, self.fleet, ROUTES, world.now_us, self.now)

    def now(self) -> float:
        return self.world.s + self.ahead

    async def step(self) -> None:
        await self.sharing.step()

    def fails(self, key: str = "plain", retry_after_s: float | None = None) -> None:
        """Until its breaker opens."""
        for _ in range(SETTINGS.threshold):
            self.fleet.health.failed(key, FailureKind.OVERLOADED, self.now(), retry_after_s)

    def probes(self, key: str = "plain") -> None:
        """With success."""
        assert self.fleet.health.claim(key, self.now())
        self.fleet.health.succeeded(key, self.now())

    def state(self, key: str = "plain") -> Breaker:
        return self.fleet.health.state(key, self.now())

    def until(self, key: str = "plain") -> float | None:
        """In the world's seconds."""
        until = self.fleet.health.open_until(key)
        return None if until is None else round(until - self.ahead, 5)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def a(engine: Engine, world: World) -> Process:
    return Process(engine, world, "a", 1_000.0)


@pytest.fixture
def b(engine: Engine, world: World) -> Process:
    return Process(engine, world, "b", 5.0)


async def shared(*processes: Process) -> None:
    """Everyone has told, and everyone has heard."""
    for process in (*processes, *processes):
        await process.step()


def rows(engine: Engine) -> dict[str, tuple[int | None, str]]:
    with engine.connect() as connection:
        return {row.key: (row.until_us, row.writer) for row in connection.execute(select(breakers))}


def reported(engine: Engine) -> list[Any]:
    query = select(targets).order_by(targets.c.key, targets.c.writer)
    with engine.connect() as connection:
        return list(connection.execute(query))


@contextmanager
def statements(engine: Engine) -> Generator[list[str]]:
    """The first word of each statement that is sent meanwhile."""
    seen: list[str] = []

    def on_execute(_c: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement.split()[0])

    event.listen(engine, "before_cursor_execute", on_execute)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", on_execute)


# Breakers


async def test_what_opened_here_is_open_there(engine: Engine, a: Process, b: Process) -> None:
    a.fails()
    await a.step()
    await b.step()
    assert b.state() is Breaker.OPEN
    assert b.until() == 10.0
    assert b.fleet.health.why("plain") is FailureKind.OVERLOADED
    assert b.fleet.passed_over(TARGETS[0], ANY, b.now()) is Why.OPEN
    assert rows(engine) == {"plain": (NOW + 10_000_000, "a")}


async def test_one_api_key_rests_everywhere(engine: Engine, a: Process, b: Process) -> None:
    a.fleet.health.rest("keyed#2", FailureKind.RATE_LIMITED, a.now(), 30)
    await shared(a, b)
    assert b.until("keyed#2") == 30.0
    assert b.state("keyed#1") is Breaker.CLOSED
    assert [b.fleet.claim(TARGETS[1], ANY, b.now()) for _ in range(2)] == [0, 0]


@pytest.mark.parametrize("longer_first", [True, False])
async def test_the_longer_deadline_wins(
    engine: Engine, a: Process, b: Process, *, longer_first: bool
) -> None:
    a.fails(retry_after_s=40 if longer_first else 20)
    b.fails(retry_after_s=20 if longer_first else 40)
    await shared(a, b)
    assert (a.until(), b.until()) == (40.0, 40.0)
    assert rows(engine) == {"plain": (NOW + 40_000_000, "a" if longer_first else "b")}


async def test_a_good_probe_closes_it_everywhere(
    engine: Engine, world: World, a: Process, b: Process
) -> None:
    a.fails()
    await shared(a, b)
    world.s = 11
    assert (a.state(), b.state()) == (Breaker.HALF_OPEN, Breaker.HALF_OPEN)
    b.probes()
    await shared(b, a)
    assert (a.state(), b.state()) == (Breaker.CLOSED, Breaker.CLOSED)
    assert rows(engine) == {"plain": (None, "b")}


async def test_a_closing_applies_once(world: World, a: Process, b: Process) -> None:
    a.fails()
    await shared(a, b)
    world.s = 11
    b.probes()
    await shared(b, a)
    a.fails()
    await shared(b, a)
    assert (a.until(), b.until()) == (21.0, 21.0)


async def test_a_closing_spares_an_opening_that_it_did_not_know(
    engine: Engine, world: World, a: Process, b: Process
) -> None:
    a.fails()
    await shared(a, b)
    world.s = 11
    b.probes()
    a.fails()
    await a.step()
    await b.step()
    assert (a.until(), b.until()) == (21.0, 21.0)
    assert rows(engine) == {"plain": (NOW + 21_000_000, "a")}


async def test_a_closing_does_not_overtake_an_opening_between_reading_and_writing(
    engine: Engine, world: World, a: Process, b: Process
) -> None:
    a.fails()
    await shared(a, b)
    ((until, writer),) = rows(engine).values()
    stale = BreakerDraft(BreakerRow("plain", None, "", NOW + 12_000_000, "b"), (NOW, "a"))
    world.s = 11
    a.fails()
    await a.step()
    assert (until, writer) == (NOW + 10_000_000, "a")
    assert fleet_rows.write(engine, [stale], []) == {}
    assert rows(engine) == {"plain": (NOW + 21_000_000, "a")}


async def test_an_opening_that_is_not_told_yet_outlives_a_closing(
    engine: Engine, world: World, a: Process, b: Process
) -> None:
    a.fails()
    await shared(a, b)
    world.s = 11
    b.probes()
    await b.step()
    a.fails()
    await a.step()
    assert a.until() == 21.0
    await b.step()
    assert b.until() == 21.0
    assert rows(engine) == {"plain": (NOW + 21_000_000, "a")}


async def test_opened_and_closed_within_one_step_is_nobody_elses_matter(engine: Engine, a: Process) -> None:
    await a.step()
    a.fleet.health.failed("plain", FailureKind.OVERLOADED, a.now(), retry_after_s=0.2)
    a.world.s = 0.3
    a.probes()
    await a.step()
    assert rows(engine) == {}


async def test_a_restart_keeps_what_is_open(engine: Engine, world: World, a: Process) -> None:
    a.fails(retry_after_s=30)
    a.fails("limited")
    await a.step()
    world.s = 20
    again = Process(engine, world, "a-2", 77.0)
    await again.step()
    assert (again.until(), again.state()) == (30.0, Breaker.OPEN)
    assert again.state("limited") is Breaker.HALF_OPEN
    world.s = 90.5
    later = Process(engine, world, "a-3", 3.0)
    await later.step()
    assert (later.state(), later.state("limited")) == (Breaker.CLOSED, Breaker.CLOSED)


async def test_strange_rows_do_no_harm(engine: Engine, a: Process) -> None:
    strange = [
        BreakerRow("plain", NOW + 400 * DAY_US, "a_kind_of_a_later_version", NOW, "x"),
        BreakerRow("gone", NOW + DAY_US, "", NOW, "x"),
        BreakerRow("keyed#9", NOW + DAY_US, "", NOW, "x"),
    ]
    fleet_rows.write(engine, [BreakerDraft(row) for row in strange], [])
    await a.step()
    assert a.until() == 3_600.0
    assert a.fleet.health.why("plain") is None
    assert a.fleet.health.open_until("gone") is None
    assert a.fleet.health.open_until("keyed#9") is None


# Traffic


async def test_what_others_send_counts_against_the_limits(world: World, a: Process, b: Process) -> None:
    for _ in range(3):
        a.fleet.traffic.began("limited", 50, a.now())
    await shared(a, b)
    told = b.fleet.traffic.elsewhere("limited")
    assert (told.in_flight, told.requests, told.tokens) == (3, 3.0, 150.0)
    assert b.fleet.passed_over(LIMITED, ANY, b.now()) is Why.CONCURRENCY
    assert a.fleet.traffic.elsewhere("limited").in_flight == 0
    a.fleet.traffic.ended("limited", 25, a.now())
    world.s = 0.5
    await shared(a, b)
    assert b.fleet.traffic.elsewhere("limited").in_flight == 2
    assert b.fleet.passed_over(LIMITED, ANY, b.now()) is None


async def test_a_row_says_how_the_target_does(engine: Engine, world: World, a: Process) -> None:
    load = a.fleet.traffic.load("plain")
    a.fleet.traffic.began("plain", 10, a.now())
    load.whole.heard(0.25, a.now())
    load.streamed.heard(0.125, a.now())
    world.s = 1
    load.failed("cut", a.now())
    a.fleet.traffic.ended("plain", 0, a.now())
    world.s = 1.5
    await a.step()
    (row,) = reported(engine)
    assert (row.key, row.writer, row.at_us, row.in_flight) == ("plain", "a", NOW + 1_500_000, 0)
    assert (row.attempts, row.failures, row.last_failure) == (1, 1, "cut")
    assert row.last_failure_us == NOW + 1_000_000
    assert (row.whole_us, row.streamed_us) == (237_807, 118_904), "both fade, as told by routing.traffic"


async def test_a_silent_process_is_forgotten_by_and_by(world: World, a: Process, b: Process) -> None:
    for _ in range(3):
        a.fleet.traffic.began("limited", 0, a.now())
    await shared(a, b)
    world.s = 5.5
    await b.step()
    told = b.fleet.traffic.elsewhere("limited")
    assert (told.in_flight, round(told.requests, 3)) == (0, 2.725)
    world.s = 60
    await b.step()
    assert b.fleet.traffic.elsewhere("limited").requests == 0


async def test_a_long_call_stays_known(world: World, a: Process, b: Process) -> None:
    a.fleet.traffic.began("plain", 0, a.now())
    for tick in range(60):
        world.s = tick / 2
        await a.step()
        await b.step()
        assert b.fleet.traffic.elsewhere("plain").in_flight == 1


async def test_an_idle_process_reads_and_does_not_write(
    engine: Engine, world: World, a: Process, b: Process
) -> None:
    a.fails()
    a.fleet.traffic.began("plain", 10, a.now())
    a.fleet.traffic.ended("plain", 0, a.now())
    await shared(a, b)
    with statements(engine) as seen:
        for tick in range(1, 60):
            world.s = tick / 2
            await a.step()
            await b.step()
    assert set(seen) - {"BEGIN"} == {"SELECT"}
    assert seen.count("SELECT") == 59 * 2 * 2


async def test_writes_do_not_grow_with_calls(engine: Engine, world: World, a: Process) -> None:
    await a.step()
    with statements(engine) as seen:
        for tick in range(1, 9):
            world.s = tick / 2
            for _ in range(50):
                a.fleet.traffic.began("plain", 1, a.now())
                a.fleet.traffic.ended("plain", 0, a.now())
            await a.step()
    assert seen.count("INSERT") == 2, "one at once, one after two seconds, and the third is not due yet"
    (row,) = reported(engine)
    assert row.attempts == 250
    world.s = 4.5
    await a.step()
    assert [row.attempts for row in reported(engine)] == [400]


# The store


async def test_without_the_store_each_is_on_its_own(url: str, engine: Engine, a: Process, b: Process) -> None:
    a.fails()
    await shared(a, b)
    with capture_logs() as logs:
        with outage(url, engine):
            b.fleet.health.rest("keyed#1", FailureKind.AUTH, b.now(), 99)
            for _ in range(3):
                await b.step()
            assert b.until() == 10.0
            assert b.until("keyed#1") == 99.0
        while "keyed#1" not in rows_when_back(engine):
            await b.step()
        await b.step()
    await a.step()
    assert a.until("keyed#1") == 99.0
    said = [(entry["log_level"], entry["event"]) for entry in logs]
    assert said == [
        ("warning", "the store can't be used: breakers are not shared meanwhile"),
        ("info", "breakers are shared again"),
    ]


def rows_when_back(engine: Engine) -> dict[str, tuple[int | None, str]]:
    engine.dispose()  # connections that were cut
    return rows(engine)


async def test_old_rows_go_and_those_in_use_stay(engine: Engine, world: World, a: Process) -> None:
    report = TargetRow("plain", "dead", NOW - DAY_US - 1, 1, 1, 1, 1, 0, "", 0, 0, 0)
    old = [
        BreakerRow("long-over", NOW - DAY_US - 1, "", NOW - 2 * DAY_US, "x"),
        BreakerRow("long-open", NOW + 1, "", NOW - 2 * DAY_US, "x"),
        BreakerRow("new", NOW - DAY_US - 1, "", NOW, "x"),
        BreakerRow("closed", NOW, "", NOW - 2 * DAY_US, "x"),
    ]
    fleet_rows.write(engine, [BreakerDraft(row) for row in old], [report])
    with engine.begin() as connection:
        connection.execute(update(breakers).where(breakers.c.key == "closed").values(until_us=None))
    a.fleet.traffic.began("plain", 0, a.now())
    await a.step()
    assert set(rows(engine)) == {"long-open", "new"}
    assert [row.writer for row in reported(engine)] == ["a"]
