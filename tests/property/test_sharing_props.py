"""Processes that share breakers: whatever happens in whichever order, they come to agree."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from llm_proxy.records import fleet_rows
from llm_proxy.records.engine import open_engine
from llm_proxy.records.fleet_rows import BreakerRow
from llm_proxy.records.tables import METADATA, breakers
from llm_proxy.sharing.breakers import OVER_US, Effect, SharedBreakers, effect
from llm_proxy.sharing.moment import Moment
from routing.failures import FailureKind
from routing.health import Breaker, BreakerSettings, Change, Health
from tests.stores import NOW

KEY = "t"
OPENED, CLOSED = Change(KEY, 10.0, FailureKind.CUT), Change(KEY, None)


def row(until_us: int | None) -> BreakerRow:
    return BreakerRow(KEY, until_us, "", NOW, "x")


@pytest.mark.parametrize("untold", [None, OPENED, CLOSED])
@pytest.mark.parametrize("until_us", [None, NOW + 1])
def test_a_version_applies_once(until_us: int | None, untold: Change | None) -> None:
    assert effect(row(until_us), (NOW, "x"), untold, NOW) is Effect.NOTHING


@pytest.mark.parametrize("known", [None, (NOW - 1, "x"), (NOW, "y")])
@pytest.mark.parametrize(
    ("until_us", "untold", "expected"),
    [
        (NOW + 1, None, Effect.OPENS),
        (NOW + 1, OPENED, Effect.OPENS),
        (NOW + 1, CLOSED, Effect.OPENS),
        (NOW - OVER_US + 1, None, Effect.OPENS),
        (NOW - OVER_US, None, Effect.NOTHING),
        (None, None, Effect.CLOSES),
        (None, CLOSED, Effect.CLOSES),
        (None, OPENED, Effect.NOTHING),
    ],
)
def test_what_a_new_version_does(
    known: tuple[int, str] | None, until_us: int | None, untold: Change | None, expected: Effect
) -> None:
    assert effect(row(until_us), known, untold, NOW) is expected


@dataclass(slots=True)
class Process:
    name: str
    ahead: float
    health: Health = field(default_factory=Health)
    shared: SharedBreakers = field(init=False)

    def __post_init__(self) -> None:
        self.shared = SharedBreakers(self.health, frozenset({KEY}), self.name)

    def hear(self, engine: Engine, s: float) -> None:
        rows, _ = fleet_rows.read(engine, self.name, 0)
        self.shared.hear(rows, self.moment(s))

    def tell(self, engine: Engine, s: float) -> None:
        drafts = self.shared.drafts(self.moment(s))
        self.shared.wrote(drafts, fleet_rows.write(engine, drafts, []))

    def moment(self, s: float) -> Moment:
        return Moment(NOW + round(s * 1e6), s + self.ahead)

    def state(self, s: float) -> tuple[Breaker, float | None]:
        """The breaker, and until when it is open: a deadline that is over may differ."""
        state, until = self.health.state(KEY, s + self.ahead), self.health.open_until(KEY)
        return state, round(until - self.ahead, 3) if until and state is Breaker.OPEN else None


@dataclass(frozen=True, slots=True)
class Opens:
    who: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class Probes:
    who: int


@dataclass(frozen=True, slots=True)
class Hears:
    who: int


@dataclass(frozen=True, slots=True)
class Tells:
    who: int


Step = Opens | Probes | Hears | Tells
WHO = st.integers(0, 2)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.25, 1.0, 2.0]),  # all together less than `OVER_US`
        st.one_of(
            st.builds(Opens, WHO, st.sampled_from([0.5, 5.0, 20.0])),
            st.builds(Probes, WHO),
            st.builds(Hears, WHO),
            st.builds(Tells, WHO),
        ),
    ),
    max_size=25,
)


@contextmanager
def empty(engine: Engine) -> Generator[Engine]:
    with engine.begin() as connection:
        connection.execute(breakers.delete())
    yield engine


@pytest.fixture(scope="module")
def engine() -> Generator[Engine]:
    with TemporaryDirectory() as folder:
        opened = open_engine(f"sqlite:///{Path(folder) / 'store.db'}")
        METADATA.create_all(opened)
        yield opened
        opened.dispose()


def perform(step: Step, process: Process, engine: Engine, s: float) -> None:
    own = s + process.ahead
    match step:
        case Opens(_, wait_s):
            process.health.rest(KEY, FailureKind.OVERLOADED, own, None, BreakerSettings(cool_down_s=wait_s))
        case Probes():
            if process.health.claim(KEY, own):
                process.health.succeeded(KEY, own)
        case Hears():
            process.hear(engine, s)
        case Tells():
            # What was heard and what is told belong to one step of the task.
            process.hear(engine, s)
            process.tell(engine, s)


@given(STEPS)
def test_they_come_to_agree_and_no_deadline_is_cut_short(
    engine: Engine, steps: list[tuple[float, Step]]
) -> None:
    processes = [Process("a", 0.0), Process("b", 500.0), Process("c", 31.0)]
    s, longest = 0.0, 0.0
    with empty(engine):
        for pause, step in steps:
            s += pause
            perform(step, processes[step.who], engine, s)
            if isinstance(step, Opens):
                longest = max(longest, s + step.wait_s)
        for process in (*processes, *processes):
            s += 0.001
            process.hear(engine, s)
            process.tell(engine, s)
        states = [process.state(s) for process in processes]
        assert states[0] == states[1] == states[2]
        if longest > s:
            assert states[0] == (Breaker.OPEN, round(longest, 3))
        else:
            assert states[0][0] is not Breaker.OPEN


@given(STEPS)
def test_only_a_good_probe_closes(engine: Engine, steps: list[tuple[float, Step]]) -> None:
    processes = [Process("a", 0.0), Process("b", 500.0), Process("c", 31.0)]
    s, opened = 0.0, False
    with empty(engine):
        for pause, step in steps:
            s += pause
            if not isinstance(step, Probes):
                perform(step, processes[step.who], engine, s)
            opened = opened or isinstance(step, Opens)
        for process in (*processes, *processes):
            process.hear(engine, s)
            process.tell(engine, s)
        assert {process.state(s)[0] is not Breaker.CLOSED for process in processes} == {opened}
