from __future__ import annotations

import pytest

from budgets import AT_ONCE, Limit, LimitBook, OnExceed, Scope, Subject, Unit, window_named
from budgets.amounts import LARGEST
from budgets.scopes import LONGEST_KEY

NOW = 1_800_000_000_000_000  # 2027-01-15T08:00:00Z
DAY_US = 86_400_000_000


def limit(id_: str, scope: Scope | None = None, window: str = "lifetime") -> Limit:
    return Limit(id_, scope or Scope(), window_named(window), {Unit.REQUESTS: 1})


def keys(scope: Scope, subject: Subject, window: str = "lifetime") -> list[str]:
    return [bound.key for bound in LimitBook([limit("l", scope, window)]).bounds(subject, NOW)]


def test_a_scope_of_nothing_counts_everyone_together() -> None:
    assert keys(Scope(), Subject("a")) == keys(Scope(), Subject("b", team="t", user="u")) == ["l|lifetime"]


def test_a_star_or_a_glob_counts_each_apart_and_a_name_counts_as_the_star_would() -> None:
    assert keys(Scope(agent="*"), Subject("a")) == ["l|agent=a|lifetime"]
    assert keys(Scope(agent="*"), Subject("b")) == ["l|agent=b|lifetime"]
    assert keys(Scope(agent="a"), Subject("a")) == ["l|agent=a|lifetime"]
    assert keys(Scope(agent="ci-*"), Subject("ci-1")) == ["l|agent=ci-1|lifetime"]
    assert keys(Scope(agent="ci-*"), Subject("triage")) == []
    assert keys(Scope(model="m[1]"), Subject("a", model="m[1]")) == ["l|model=m[1]|lifetime"]


def test_a_limit_binds_only_a_subject_that_has_what_it_counts() -> None:
    bare = Subject("a")
    for scope in (Scope(team="*"), Scope(user="*"), Scope(key="*"), Scope(model="*"), Scope(tag="*")):
        assert keys(scope, bare) == []
    assert keys(Scope(), bare, "run") == []
    full = Subject("a", team="t", user="u", key="k", model="m", user_verified=True, tags=("x",))
    scope = Scope(team="t", user="u", key="k", model="m", tag="x")
    assert keys(scope, full) == ["l|team=t|user=u|key=k|model=m|tag=x|lifetime"]


def test_each_matching_tag_binds_once() -> None:
    subject = Subject("a", tags=("blue", "red", "blue", "green"))
    assert keys(Scope(tag="*"), subject) == [f"l|tag={tag}|lifetime" for tag in ("blue", "red", "green")]
    assert keys(Scope(tag="r*"), subject) == ["l|tag=red|lifetime"]


def test_a_user_whom_nobody_verified_is_counted_per_agent() -> None:
    assert keys(Scope(user="*"), Subject("a", user="u")) == ["l|agent=a|user=u|lifetime"]
    assert keys(Scope(user="*"), Subject("a", user="u", user_verified=True)) == ["l|user=u|lifetime"]


def test_a_run_is_always_its_agents_own() -> None:
    assert keys(Scope(), Subject("a", run="r"), "run") == ["l|agent=a|run:r"]
    assert keys(Scope(), Subject("b", run="r"), "run") == ["l|agent=b|run:r"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Subject("a", user="u|model=m"), Subject("a", user="u", model="m")),
        (Subject("a", user="%7C"), Subject("a", user="|")),
        (Subject("a", user="u\x00"), Subject("a", user="u%00")),
        (Subject("a", user="\ud800"), Subject("a", user="\udfff")),
    ],
)
def test_no_text_of_a_caller_reads_as_another_counter(one: Subject, other: Subject) -> None:
    limits = [limit("l", Scope(user="*")), limit("m", Scope(user="*", model="*"))]
    mine, others = (
        {bound.key for bound in LimitBook(limits).bounds(subject, NOW)} for subject in (one, other)
    )
    assert mine
    assert not mine & others
    for key in mine | others:
        assert key.isprintable()
        key.encode()


def test_a_long_key_is_cut_and_stays_unique() -> None:
    long = [keys(Scope(user="*"), Subject("a", user="é" * 5_000 + end))[0] for end in "ab"]
    assert long[0] != long[1]
    assert [len(key) for key in long] == [LONGEST_KEY] * 2


def test_bounds_come_in_the_order_of_the_limits_and_follow_the_clock() -> None:
    book = LimitBook([limit("d", Scope(agent="*"), "day"), limit("m", window="month"), limit("e")])
    before = book.bounds(Subject("a"), NOW)
    assert [bound.key for bound in before] == ["d|agent=a|day:2027-01-15", "m|month:2027-01", "e|lifetime"]
    assert book.bounds(Subject("a"), NOW + 1) == before
    after = book.bounds(Subject("a"), NOW + DAY_US)
    assert [bound.key for bound in after] == ["d|agent=a|day:2027-01-16", "m|month:2027-01", "e|lifetime"]
    assert book.bounds(Subject("a"), NOW) == before, "a clock that steps back finds its span again"
    assert before[0].resets_us == NOW - NOW % DAY_US + DAY_US
    assert before[2].resets_us is None


def test_the_key_depends_on_id_scope_and_span_alone() -> None:
    window = window_named("day")
    other = Limit("l", Scope(), window, {Unit.TOKENS: 9}, OnExceed.WARN, warn_at=0.5)
    first = LimitBook([Limit("l", Scope(), window, {Unit.REQUESTS: 1})]).bounds(Subject("a"), NOW)
    assert LimitBook([other]).bounds(Subject("a"), NOW)[0].key == first[0].key


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"id": ""}, "needs an id"),
        ({"maximum": {}}, "limits nothing"),
        ({"maximum": {Unit.TOKENS: -1}}, "'l': tokens must be from 0"),
        ({"maximum": {Unit.USD: LARGEST + 1}}, "'l': usd must be from 0"),
        ({"warn_at": 0.0}, "warn_at"),
        ({"warn_at": 1.5}, "warn_at"),
    ],
)
def test_what_makes_no_limit_is_an_error_that_names_it(parts: dict[str, object], why: str) -> None:
    whole = {"id": "l", "scope": Scope(), "window": window_named("day"), "maximum": {Unit.REQUESTS: 1}}
    with pytest.raises(ValueError, match=why):
        Limit(**(whole | parts))  # pyright: ignore[reportArgumentType]


def test_two_limits_can_not_share_an_id_but_over_two_windows() -> None:
    with pytest.raises(ValueError, match="two limits have the id 'l'"):
        LimitBook([limit("l"), limit("l", Scope(agent="*"))])
    both = LimitBook([limit("l", window="day"), limit("l", window=AT_ONCE)]).bounds(Subject("a"), NOW)
    assert [bound.key for bound in both] == ["l|day:2027-01-15", "l|at once"]
