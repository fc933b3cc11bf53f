"""Many calls at once over one fleet: whatever comes to them, in whatever order, the plans keep their word."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from routing.failures import FailureKind
from routing.fleet import Demand
from routing.plan import Failed
from routing.traffic import Elsewhere
from tests.property.routing_account import Account, K, keys
from tests.property.routing_tables import BREAKER_KEYS, IDS, LIMITS, NAMES, tables

T = TypeVar("T")
COMMON = [K.SERVER_ERROR, K.RATE_LIMITED, K.CONFLICT, K.AUTH, K.CONTEXT_LENGTH, K.CONTENT_FILTER]
WHICH = st.integers(0, 1_000)
SOME = st.integers(0, 5)
FAILED = st.builds(
    Failed,
    kind=st.sampled_from([*COMMON, *COMMON, *COMMON, *FailureKind]),
    retry_after_s=st.sampled_from([None, None, None, None, 0.0, 0.5, 3.0, 30.0, 1e9]),
    released=st.sampled_from([False, False, False, False, True]),
    goes_on=st.booleans(),
    retry_same=st.sampled_from([True, True, True, False]),
    tokens=st.none() | st.integers(0, 2_000),
)


class RoutingMachine(RuleBasedStateMachine):
    @initialize(data=st.data(), threshold=st.sampled_from([10, 3, 1]), seed=st.integers(0, 2**32))
    def begin(self, data: st.DataObject, threshold: int, seed: int) -> None:
        self.account = Account(data.draw(tables(threshold)), threshold, seed)

    # Rules

    @rule(
        models=st.lists(st.sampled_from(NAMES), min_size=1, max_size=4),
        demand=st.builds(
            Demand,
            run=st.sampled_from(["", "r", "s"]),
            tokens=st.sampled_from([0, 50, 500, 5_000]),
            stream=st.booleans(),
            prefer=st.sampled_from(["", *IDS]),
        ),
        deadline_s=st.sampled_from([None, None, None, 4.0, 40.0]),
        max_attempts=st.sampled_from([24, 24, 6, 3, 1]),
    )
    def calls_come(
        self, models: list[str], demand: Demand, deadline_s: float | None, max_attempts: int
    ) -> None:
        for model in models:
            self.account.calls.append(self.account.a_call(model, demand, deadline_s, max_attempts))
            self.account.goes_on(self.account.calls[-1])

    @precondition(lambda self: self.account.calls)
    @rule(which=WHICH)
    def one_goes_on(self, which: int) -> None:
        call = pick(self.account.calls, which)
        if call.waiting:
            self.account.delay_is_over(call)
        elif not call.underway:
            self.account.goes_on(call)

    @precondition(lambda self: self.account.sending())
    @rule(
        which=WHICH,
        takes_s=st.sampled_from([0.0, 0.1, 2.0, 10.0]),
        answers=st.booleans(),
        tokens=st.none() | st.integers(0, 2_000),
    )
    def one_is_heard(self, which: int, takes_s: float, answers: bool, tokens: int | None) -> None:
        call, step = pick(self.account.sending(), which)
        self.account.now += takes_s
        call.plan.heard(step, self.account.now)
        if answers:
            self.account.answers(call, step, tokens)

    @precondition(lambda self: self.account.busy())
    @rule(which=WHICH, failed=FAILED, takes_s=st.sampled_from([0.0, 0.1, 2.0, 20.0]), goes_on=st.booleans())
    def one_fails(self, which: int, failed: Failed, takes_s: float, goes_on: bool) -> None:
        call = pick(self.account.busy(), which)
        step = pick(call.underway, which)
        self.account.now += takes_s
        self.account.fails(call, step, Failed(K.CLIENT_GONE) if step in call.waiting else failed)
        if goes_on and not call.underway:
            self.account.goes_on(call)

    @precondition(lambda self: self.account.calls)
    @rule(
        which=WHICH,
        failed=st.lists(FAILED, min_size=1, max_size=2),
        times=st.sampled_from([10, 5, 2]),
        takes_s=st.sampled_from([6.0, 0.1]),
    )
    def one_fails_again_and_again(self, which: int, failed: list[Failed], times: int, takes_s: float) -> None:
        call = pick(self.account.calls, which)
        for n in range(times):
            if not call.underway:
                self.account.goes_on(call)
            if call.waiting:
                self.account.delay_is_over(call)
            if call.underway:
                self.account.now += takes_s
                self.account.fails(call, call.underway[0], failed[n % len(failed)])

    @precondition(lambda self: self.account.sending())
    @rule(which=WHICH)
    def one_is_hedged(self, which: int) -> None:
        call, _ = pick(self.account.sending(), which)
        self.account.hedges(call)

    @rule(seconds=st.sampled_from([0.3, 2.0, 5.0, 17.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.account.now += seconds

    @rule(key=st.sampled_from(BREAKER_KEYS), seconds=st.sampled_from([10.0, 1.0, -1.0, None]))
    def another_process_opens_or_closes(self, key: str, seconds: float | None) -> None:
        self.account.told_by_another_process(key, seconds)

    @precondition(lambda self: self.account.sending())
    @rule(which=WHICH, seconds=st.sampled_from([10.0, 1.0, -1.0]), begins=st.booleans())
    def a_breaker_opens_during_a_delay(self, which: int, seconds: float, begins: bool) -> None:
        call, step = pick(self.account.sending(), which)
        self.account.fails(call, step, Failed(K.CONFLICT, retry_after_s=2))
        if not call.underway:
            self.account.goes_on(call)
        if call.waiting:
            key = pick(sorted(keys(call.waiting[0])), which)
            self.account.told_by_another_process(key, seconds)
            if begins:
                self.account.delay_is_over(call)

    @rule(told=st.dictionaries(st.sampled_from(IDS), st.builds(Elsewhere, SOME, SOME, SOME)))
    def another_process_tells_of_its_traffic(self, told: dict[str, Elsewhere]) -> None:
        self.account.elsewhere = told
        self.account.fleet.traffic.tell(told)

    # What must hold

    @invariant()
    def breakers_are_as_they_should_be(self) -> None:
        for key, breaker in self.account.breakers.items():
            assert self.account.fleet.health.open_until(key) == breaker.until, key

    @invariant()
    def what_is_in_flight_is_counted(self) -> None:
        for id_ in IDS:
            assert self.account.fleet.traffic.load(id_).in_flight == self.account.in_flight[id_]

    @invariant()
    def no_target_has_more_calls_at_once_than_it_takes(self) -> None:
        for id_, limits in LIMITS.items():
            assert limits.concurrency is None or self.account.in_flight[id_] <= limits.concurrency

    def teardown(self) -> None:
        """Every plan ends, and leaves nothing behind."""
        account: Account | None = getattr(self, "account", None)
        if account is None:  # ended before it began
            return
        for call in account.calls:
            for _ in range(100):
                while call.underway:
                    account.fails(call, call.underway[0], Failed(K.SERVER_ERROR))
                if call.ended or call.answered:
                    break
                account.goes_on(call)
            assert call.ended or call.answered
        for key, breaker in account.breakers.items():
            assert breaker.probe is None
            assert account.fleet.health.available(key, max(account.now, breaker.until or 0))
            load = account.fleet.traffic.loads().get(key)
            assert load is None or load.in_flight == 0


def pick(among: list[T], which: int) -> T:
    return among[which % len(among)]


TestRoutingMachine = RoutingMachine.TestCase
TestRoutingMachine.settings = settings(stateful_step_count=80)
