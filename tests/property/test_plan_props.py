"""Whatever fails and whenever: a plan ends, in bounds, and never touches an open target."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from routing.bounds import Backoff, Bounds
from routing.failures import MEANING, FailureKind
from routing.fleet import Fleet
from routing.health import DEFAULT_BREAKER, Breaker, BreakerSettings, Health
from routing.plan import Exhausted, Failed, Plan, Stop, Succeeded
from routing.targets import Route, RouteTable, Target, Timeouts

NAMES = ("m0", "m1", "m2", "m3")
SLACK = 1e-6


@st.composite
def tables(draw: st.DrawFn, breaker: BreakerSettings = DEFAULT_BREAKER) -> RouteTable:
    """A few routes over few targets, so that fallbacks make cycles and targets are shared."""

    def route(name: str) -> Route:
        ids = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True))
        fallbacks = draw(st.lists(st.sampled_from(NAMES), max_size=3))
        return Route(
            name,
            tuple(Target(i, "openai", draw(st.sampled_from(["x", "y", "*"]))) for i in ids),
            fallbacks=tuple(fallbacks),
            retries=draw(st.integers(0, 4)),
            timeouts=Timeouts(total_s=draw(st.floats(0.5, 60))),
            breaker=breaker,
        )

    return RouteTable([route(name) for name in NAMES])


@dataclass(frozen=True)
class Fate:
    """What one try comes to, and how long it takes. No kind: it succeeds."""

    kind: FailureKind | None
    retry_after_s: float | None
    released: bool
    takes_s: float


fates = st.builds(
    Fate,
    kind=st.sampled_from([*FailureKind, *FailureKind, None]),
    retry_after_s=st.none() | st.floats(0, 30),
    released=st.sampled_from([False, False, False, True]),
    takes_s=st.floats(0, 3),
)


@settings(max_examples=300, deadline=None)
@given(
    data=st.data(),
    calls=st.lists(st.tuples(st.sampled_from(NAMES), st.lists(fates, max_size=30)), min_size=1, max_size=5),
    max_attempts=st.integers(1, 12),
    seed=st.integers(0, 2**32),
    threshold=st.integers(1, 4),
)
def test_no_schedule_of_failures_breaks_a_plan(
    data: st.DataObject,
    calls: list[tuple[str, list[Fate]]],
    max_attempts: int,
    seed: int,
    threshold: int,
) -> None:
    table = data.draw(tables(BreakerSettings(threshold=threshold, cool_down_s=5)))
    fleet = Fleet()
    bounds = Bounds(max_attempts=max_attempts, backoff=Backoff(base_s=0.2, max_s=4))
    random = Random(seed)
    now = 1000.0
    for name, schedule in calls:
        now = one_call(table, name, schedule, fleet, bounds, random, now)


def one_call(
    table: RouteTable,
    name: str,
    schedule: list[Fate],
    fleet: Fleet,
    bounds: Bounds,
    random: Random,
    now: float,
) -> float:
    resolved = table.resolve(name)
    assert resolved is not None
    deadline = now + resolved.route.timeouts.total_s
    plan = Plan(resolved.chain, fleet, now=now, random=random.random, bounds=bounds)
    tries: list[tuple[str, str]] = []
    may_go_on = True
    for fate in [*schedule, *[Fate(FailureKind.SERVER_ERROR, None, released=False, takes_s=0.0)] * 200]:
        before = {key: fleet.health.open_until(key) for key in "abcdef"}
        step = plan.next(now)
        if isinstance(step, Exhausted):
            assert len(step.failures) == len(tries)
            assert step.stop is not Stop.OPEN or not tries
            assert plan.next(now) == step
            return now
        assert may_go_on, "it went on after a released event or a final failure"
        starts = now + step.delay_s
        until = before[step.target.key]
        assert until is None or until <= starts + SLACK, "it used an open target"
        assert starts < deadline, "it would start after the deadline"
        assert step.timeouts.total_s <= deadline - starts + SLACK
        tries.append((step.target.key, step.target.model))
        assert step.attempt == len(tries) <= bounds.max_attempts
        assert tries.count(tries[-1]) <= 1 + step.leg.route.retries
        now = starts + fate.takes_s
        if fate.kind is None:
            plan.report(step, Succeeded(), now)
            return now
        plan.report(step, Failed(fate.kind, fate.retry_after_s, fate.released), now)
        may_go_on = not fate.released and MEANING[fate.kind].fall_back
    raise AssertionError("the plan did not end")


@settings(max_examples=200, deadline=None)
@given(
    events=st.lists(
        st.tuples(
            st.sampled_from([*FailureKind, None]),
            st.none() | st.floats(0, 100),
            st.floats(0, 20),
        ),
        max_size=40,
    )
)
def test_an_open_deadline_only_moves_later_until_it_has_passed(
    events: list[tuple[FailureKind | None, float | None, float]],
) -> None:
    health = Health(BreakerSettings(threshold=2, cool_down_s=10))
    now = 0.0
    for kind, retry_after_s, elapsed in events:
        now += elapsed
        was, until = health.state("t", now), health.open_until("t")
        if kind is None:
            health.succeeded("t", now)
        else:
            health.failed("t", kind, now, retry_after_s)
        if was is Breaker.OPEN:
            after = health.open_until("t")
            assert until is not None
            assert after is not None
            assert after >= until


@given(tables(), st.sampled_from(NAMES))
def test_a_chain_holds_each_deployment_once(table: RouteTable, name: str) -> None:
    resolved = table.resolve(name)
    assert resolved is not None
    deployments = [(t.key, t.model) for t in resolved.targets()]
    assert len(deployments) == len(set(deployments))
    assert len({leg.model for leg in resolved.chain}) == len(resolved.chain)
