"""Whatever comes in whatever order, every ledger store agrees with plain books, and keeps the law."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine, StaticPool, create_engine

from budgets import (
    AT_ONCE,
    METADATA,
    Amount,
    Bound,
    Expire,
    Held,
    Hold,
    Limit,
    LimitBook,
    MemoryStore,
    OnExceed,
    Op,
    Refused,
    Renew,
    Result,
    RunRef,
    Scope,
    Settle,
    SqlLedger,
    SqlStore,
    Subject,
    Take,
    TopUp,
    Unit,
    window_named,
)
from budgets.scopes import joined
from budgets.watching import Watch
from tests.ledger_engines import ledger_engine
from tests.property.ledger_books import ROLLING, Books

pytest_plugins = ["tests.postgres"]

SECOND = 1_000_000
LEASE = 30 * SECOND
FIGURES = st.integers(0, 6)
AMOUNTS = st.builds(
    Amount, micro_usd=FIGURES, tokens=FIGURES, requests=st.integers(0, 2), concurrency=st.integers(0, 1)
)
MORE = st.builds(Amount, micro_usd=FIGURES, tokens=FIGURES)
USED = st.builds(Amount, micro_usd=FIGURES, tokens=FIGURES, requests=st.integers(0, 2))
TAKEN = st.builds(Amount, tool_calls=st.integers(0, 2), writes=st.integers(0, 2))
ROOT, MIDDLE = RunRef("a", "root"), RunRef("b", "middle")
SUBJECTS = st.builds(
    Subject,
    agent=st.sampled_from("ab"),
    run=st.sampled_from([None, "r", "root"]),
    ancestors=st.sampled_from([(), (ROOT,), (MIDDLE, ROOT), (ROOT, ROOT)]),
)
ROLLING_ID = "rolling"
WARN_AT = {"each": 0.5, "rolling": 0.8, "run": None, "all": 0.75, "warned": 1.0}
SCOPES = {
    "each": (Scope(agent="*"), "minute"),
    "rolling": (Scope(agent="*"), ROLLING),
    "run": (Scope(), "run"),
    "all": (Scope(), "lifetime"),
    "warned": (Scope(), "hour"),
}
FIRST = {
    name: {Unit.USD: most, Unit.TOKENS: most, Unit.TOOL_CALLS: most // 4}
    for name, most in {"each": 30, ROLLING_ID: 12, "run": 60, "all": 400, "warned": 20}.items()
}
MAXIMA = st.fixed_dictionaries(
    {
        name: st.fixed_dictionaries({unit: st.integers(0, 2 * figure) for unit, figure in most.items()})
        for name, most in FIRST.items()
    }
)
"""So that it's the rolling limit that most often has no room."""
CALLS = tuple[Hold, int]
"""A hold, and when it was bound."""


def book_of(maxima: dict[str, dict[Unit, int]], at_once: int) -> LimitBook:
    """Limits of every kind, with a second one of the id `each` for calls at once."""
    limits = [
        Limit(
            name,
            scope,
            window_named(span),
            maxima[name],
            OnExceed.WARN if name == "warned" else OnExceed.BLOCK,
            warn_at=WARN_AT[name],
        )
        for name, (scope, span) in SCOPES.items()
    ]
    once = Limit("each", Scope(agent="*"), window_named(AT_ONCE), {Unit.CONCURRENCY: at_once}, warn_at=0.8)
    return LimitBook([*limits, once])


class LedgerMachine(RuleBasedStateMachine):
    """Two ledgers fed alike, and the books."""

    calls: Bundle[CALLS] = Bundle("calls")
    engine: Engine | None = None
    """Of tables that exist; None for a SQLite of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.own = self.engine is None
        engine = self.engine or create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        METADATA.drop_all(engine)
        METADATA.create_all(engine)
        self.sql_engine = engine
        self.now = 1_800_000_000_000_000 - 7 * SECOND
        self.serial = 0
        self.books = Books()
        self.bound_us: dict[str, int] = {}
        self.memory = MemoryStore()
        self.limits_change(FIRST, 2)

    @rule(maxima=MAXIMA, at_once=st.integers(1, 4))
    def limits_change(self, maxima: dict[str, dict[Unit, int]], at_once: int) -> None:
        """As a restart does it."""
        self.book = book_of(maxima, at_once)
        self.sql = SqlStore(self.sql_engine, self.book)
        self.memory._watch = Watch(self.book)

    def do(self, *ops: Op) -> list[Result]:
        results = self.sql.apply(ops, self.now)
        assert results == self.memory.apply(ops, self.now)
        for op, result in zip(ops, results, strict=True):
            at_us = self.bound_us[op.id] if isinstance(op, Hold | Take | TopUp) else 0
            self.books.enter(op, result, at_us, self.book, self.now)
        return results

    def bounds(self, subject: Subject, envelope: int | None) -> tuple[Bound, ...]:
        """The limits', and where there is one an envelope of the root, twice over."""
        found = self.book.bounds(subject, self.now)
        runs = [(subject.agent, subject.run), *((above.agent, above.run) for above in subject.ancestors)]
        expected = {f"run|agent={agent}|run:{run}" for agent, run in runs if run is not None}
        assert sorted(expected) == sorted(bound.key for bound in found if bound.limit.id == "run")
        if envelope is None:
            return found
        limit = Limit("envelope:root", Scope(), window_named("run"), {Unit.TOKENS: envelope})
        bound = Bound(limit, joined("envelope:root|agent=a", "run:root"), None)
        return (*found, bound, bound)

    def a_hold(
        self, subject: Subject, amount: Amount, whole_floor: bool, envelope: int | None = None
    ) -> CALLS:
        self.serial += 1
        id_ = f"h{self.serial}"
        self.bound_us[id_] = self.now
        floor = Amount(micro_usd=amount.micro_usd) if whole_floor else Amount(requests=amount.requests)
        op = Hold(id_, self.bounds(subject, envelope), amount, floor, self.now + LEASE)
        return op, self.now

    @rule(
        target=calls,
        subject=SUBJECTS,
        amount=AMOUNTS,
        whole_floor=st.booleans(),
        envelope=st.none() | st.integers(0, 20),
        waits=st.sampled_from([0, 0, 3 * SECOND, 9 * SECOND]),
    )
    def hold(
        self, subject: Subject, amount: Amount, whole_floor: bool, envelope: int | None, waits: int
    ) -> CALLS:
        """Bound, and written only when it has waited for others."""
        call = self.a_hold(subject, amount, whole_floor, envelope)
        if waits:
            meanwhile, _ = self.a_hold(subject, amount, whole_floor)
            self.now += waits
            self.do(Hold(*self._rebound(meanwhile, subject)))
        self.do(call[0])
        return call

    def _rebound(self, op: Hold, subject: Subject) -> tuple[str, tuple[Bound, ...], Amount, Amount, int]:
        self.bound_us[op.id] = self.now
        return op.id, self.book.bounds(subject, self.now), op.amount, op.floor, self.now + LEASE

    @rule(call=calls, used=USED)
    def settle(self, call: CALLS, used: Amount) -> None:
        self.do(Settle(call[0].id, used))

    @rule(call=calls, amount=MORE)
    def top_up(self, call: CALLS, amount: Amount) -> None:
        op, _ = call
        self.do(TopUp(op.id, self._as_limited_now(op.bounds), amount))

    @rule(call=calls, amount=TAKEN)
    def take(self, call: CALLS, amount: Amount) -> None:
        op, at_us = call
        self.bound_us[op.id] = at_us
        self.do(Take(op.id, self._as_limited_now(op.bounds), amount))

    def _as_limited_now(self, bounds: tuple[Bound, ...]) -> tuple[Bound, ...]:
        now = {(limit.id, limit.window.name): limit for limit in self.book.limits}
        return tuple(
            Bound(now.get((b.limit.id, b.limit.window.name), b.limit), b.key, b.resets_us, b.buckets)
            for b in bounds
        )

    @rule(subject=SUBJECTS, amounts=st.lists(AMOUNTS, min_size=1, max_size=4), used=USED, taken=TAKEN)
    def many_at_once(self, subject: Subject, amounts: list[Amount], used: Amount, taken: Amount) -> None:
        holds = [self.a_hold(subject, amount, whole_floor=False)[0] for amount in amounts]
        first = holds[0]
        more = TopUp(first.id, first.bounds, used) if not used.requests else Renew((first.id,), self.now)
        self.do(*holds, Take(first.id, first.bounds, taken), more, Settle(first.id, used), Expire(self.now))

    @rule(
        target=calls,
        figures=st.lists(st.integers(1, 6), min_size=2, max_size=6),
        gap=st.sampled_from([2 * SECOND, 9 * SECOND, 13 * SECOND, 21 * SECOND, 30 * SECOND]),
    )
    def calls_in_a_row(self, figures: list[int], gap: int) -> CALLS:
        """The first of them stays open, and grows when the others are done."""
        subject = Subject("a")
        first = self.a_hold(subject, Amount(tokens=1), whole_floor=False)
        self.do(first[0])
        for figure in figures:
            op, _ = self.a_hold(subject, Amount(tokens=figure), whole_floor=False)
            self.do(op, Settle(op.id, Amount(tokens=figure)))
            self.now += gap
        self.do(TopUp(first[0].id, first[0].bounds, Amount(tokens=figures[0])))
        return first

    @rule(kept=st.lists(calls, max_size=3))
    def renew(self, kept: list[CALLS]) -> None:
        self.do(Renew(tuple(call[0].id for call in kept), self.now + LEASE))

    @rule(
        passed=st.sampled_from(
            [0, SECOND, 2 * SECOND, 13 * SECOND, LEASE, 59 * SECOND, 62 * SECOND, 90_000 * SECOND]
        )
    )
    def time_passes(self, passed: int) -> None:
        self.now += passed
        self.do(Expire(self.now))

    @rule(call=calls, subject=SUBJECTS, amount=AMOUNTS)
    def crash(self, call: CALLS, subject: Subject, amount: Amount) -> None:
        """A batch whose transaction is lost changes nothing, and the ledger that ran it goes on."""
        op, _ = self.a_hold(subject, amount, whole_floor=True)
        ledger: SqlLedger = self.sql._ledger
        with self.sql_engine.connect() as conn:
            ledger.apply(conn, [op, Settle(call[0].id, Amount(tokens=1)), Expire(self.now + LEASE)], self.now)
            conn.rollback()

    @invariant()
    def counters_say_what_happened(self) -> None:
        expected = self.books.counters()
        assert self.sql.peek(expected) == self.memory.peek(expected) == expected

    @invariant()
    def a_hold_ends_once_and_all_that_ended_is_what_was_charged(self) -> None:
        assert all(times == 1 for times in self.books.ended.values())
        entries = self.books.entries.get("all|lifetime", [])
        charged = sum((entry.used for entry in entries), Amount())
        taken = Amount(tool_calls=charged.tool_calls, writes=charged.writes)
        assert charged - taken == self.books.charged

    @invariant()
    def a_level_is_reported_once_per_span(self) -> None:
        assert all(times == 1 for times in self.books.fired.values())

    def teardown(self) -> None:
        if self.own:
            self.sql_engine.dispose()


TestLedgerMachine = LedgerMachine.TestCase


def test_the_machine_on_postgresql(postgres_url: str) -> None:
    engine = ledger_engine(postgres_url)
    machine = type("PostgresMachine", (LedgerMachine,), {"engine": engine})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    engine.dispose()


def test_the_machine_can_admit_and_refuse() -> None:
    """Its own figures leave room for some calls and not for all."""
    machine = LedgerMachine()
    amount = Amount(tokens=6, concurrency=1)
    calls = [machine.a_hold(Subject("a", run="r"), amount, whole_floor=False)[0] for _ in range(4)]
    kinds = [type(result) for result in machine.do(*calls)]
    machine.teardown()
    assert kinds == [Held, Held, Refused, Refused]
