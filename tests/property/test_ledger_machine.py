"""The SQL ledger does what the one in memory does, in whatever order things come, and both keep the law."""

from __future__ import annotations

from collections import Counter as Tally

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from sqlalchemy import StaticPool, create_engine

from budgets import (
    METADATA,
    ZERO,
    Amount,
    Bound,
    Counter,
    Expire,
    Expired,
    Held,
    Hold,
    Late,
    Limit,
    LimitBook,
    MemoryStore,
    Op,
    Refused,
    Renew,
    Result,
    Scope,
    Settle,
    Settled,
    SqlStore,
    Subject,
    Take,
    Taken,
    Unit,
    window_named,
)

MINUTE = 60_000_000
LEASE = 30_000_000
FIGURES = st.integers(0, 6)
AMOUNTS = st.builds(Amount, micro_usd=FIGURES, tokens=FIGURES, requests=st.integers(0, 2))
TAKEN = st.builds(Amount, tool_calls=st.integers(0, 2), writes=st.integers(0, 2))
SUBJECTS = st.builds(Subject, agent=st.sampled_from("ab"), run=st.sampled_from([None, "r", "s"]))
MAXIMA = st.fixed_dictionaries(
    {unit: st.integers(0, 25) for unit in (Unit.USD, Unit.TOKENS, Unit.TOOL_CALLS)}
)
SCOPES = {"each": (Scope(agent="*"), "minute"), "run": (Scope(), "run"), "all": (Scope(), "lifetime")}


class LedgerMachine(RuleBasedStateMachine):
    """Two ledgers fed alike, and a plain account of what each counter must say."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.engine = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        METADATA.create_all(self.engine)
        self.sql, self.memory = SqlStore(self.engine), MemoryStore()
        self.now = 1_800_000_000_000_000
        self.serial = 0
        self.held: dict[str, Hold] = {}
        self.ended: Tally[str] = Tally()
        self.used: dict[str, Amount] = {}
        self.overrun: dict[str, Amount] = {}
        self.highest: dict[str, dict[Unit, int]] = {}
        self.book = self.limits(
            {name: {Unit.USD: 20, Unit.TOKENS: 20, Unit.TOOL_CALLS: 3} for name in SCOPES}
        )

    def limits(self, maxima: dict[str, dict[Unit, int]]) -> LimitBook:
        for name, most in maxima.items():
            known = self.highest.setdefault(name, dict.fromkeys(most, 0))
            self.highest[name] = {unit: max(known[unit], most[unit]) for unit in most}
        return LimitBook(
            [Limit(name, scope, window_named(span), maxima[name]) for name, (scope, span) in SCOPES.items()]
        )

    def do(self, *ops: Op) -> list[Result]:
        results = self.sql.apply(ops, self.now)
        assert results == self.memory.apply(ops, self.now)
        for op, result in zip(ops, results, strict=True):
            self.account(op, result)
        return results

    def account(self, op: Op, result: Result) -> None:
        match op, result:
            case Hold(), Held():
                self.held[op.id] = op
            case Settle(), Settled():
                hold = self.held[op.id]
                self.end(op.id, op.used)
                over = op.used.max(hold.amount) - hold.amount
                for bound in hold.bounds:
                    self.overrun[bound.key] = self.overrun.get(bound.key, ZERO) + over
            case Take(), Taken():
                self.charge(op.bounds, op.amount)
            case Expire(), Expired():
                for expired in result.holds:
                    assert expired.charged == self.held[expired.id].floor
                    self.end(expired.id, expired.charged)
            case Settle(), Late():
                assert op.id not in self.held
            case _:
                assert not isinstance(result, Refused) or isinstance(op, Hold | Take)

    def end(self, id_: str, charged: Amount) -> None:
        self.ended[id_] += 1
        self.charge(self.held.pop(id_).bounds, charged)

    def charge(self, bounds: tuple[Bound, ...], amount: Amount) -> None:
        for bound in bounds:
            self.used[bound.key] = self.used.get(bound.key, ZERO) + amount

    def a_hold(self, subject: Subject, amount: Amount, whole_floor: bool) -> Hold:
        self.serial += 1
        bounds = self.book.bounds(subject, self.now)
        floor = amount if whole_floor else Amount(requests=amount.requests)
        return Hold(f"h{self.serial}", bounds, amount, floor, self.now + LEASE)

    @rule(target=ids, subject=SUBJECTS, amount=AMOUNTS, whole_floor=st.booleans())
    def hold(self, subject: Subject, amount: Amount, whole_floor: bool) -> str:
        op = self.a_hold(subject, amount, whole_floor)
        self.do(op)
        return op.id

    @rule(id_=ids, used=AMOUNTS)
    def settle(self, id_: str, used: Amount) -> None:
        self.do(Settle(id_, used))

    @rule(subject=SUBJECTS, amounts=st.lists(AMOUNTS, min_size=1, max_size=4), used=AMOUNTS, taken=TAKEN)
    def many_at_once(self, subject: Subject, amounts: list[Amount], used: Amount, taken: Amount) -> None:
        holds = [self.a_hold(subject, amount, whole_floor=False) for amount in amounts]
        first = holds[0]
        self.do(*holds, Take("c", first.bounds, taken), Settle(first.id, used), Expire(self.now))

    @rule(subject=SUBJECTS, amount=TAKEN)
    def take(self, subject: Subject, amount: Amount) -> None:
        self.do(Take("c", self.book.bounds(subject, self.now), amount))

    @rule(kept=st.lists(ids, max_size=3))
    def renew(self, kept: list[str]) -> None:
        self.do(Renew(tuple(kept), self.now + LEASE))

    @rule(passed=st.sampled_from([0, LEASE // 2, LEASE, MINUTE, 1500 * MINUTE]))
    def time_passes(self, passed: int) -> None:
        self.now += passed
        self.do(Expire(self.now))

    @rule(maxima=st.fixed_dictionaries(dict.fromkeys(SCOPES, MAXIMA)))
    def limits_change(self, maxima: dict[str, dict[Unit, int]]) -> None:
        self.book = self.limits(maxima)

    @invariant()
    def counters_say_what_happened(self) -> None:
        expected: dict[str, Counter] = {key: Counter(used=amount) for key, amount in self.used.items()}
        for hold in self.held.values():
            for bound in hold.bounds:
                was = expected.get(bound.key, Counter())
                expected[bound.key] = Counter(was.used, was.held + hold.amount)
        assert self.sql.peek(expected) == self.memory.peek(expected) == expected

    @invariant()
    def nothing_passes_a_maximum_but_an_overrun(self) -> None:
        keys = self.used.keys() | {bound.key for hold in self.held.values() for bound in hold.bounds}
        for key, counter in self.memory.peek(keys).items():
            over = self.overrun.get(key, ZERO)
            for unit, most in self.highest[key.split("|")[0]].items():
                assert (counter.used + counter.held - over).get(unit) <= most

    @invariant()
    def a_hold_ends_once(self) -> None:
        assert all(times == 1 for times in self.ended.values())

    def teardown(self) -> None:
        self.engine.dispose()


TestLedgerMachine = LedgerMachine.TestCase
