from __future__ import annotations

import pytest

from budgets import Limit, LimitBook, RunRef, Scope, Subject, Unit, window_named

NOW = 1_800_000_000_000_000
PARENT = RunRef("lead", "p", team="red", user="u")
CHILD = Subject(
    "helper", team="blue", user="v", key="k", model="m", run="c", tags=("x", "y"), ancestors=(PARENT,)
)


def keys(scope: Scope, subject: Subject = CHILD, window: str = "run") -> list[str]:
    book = LimitBook([Limit("l", scope, window_named(window), {Unit.REQUESTS: 1})])
    return [bound.key for bound in book.bounds(subject, NOW)]


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope(), ["l|agent=helper|run:c", "l|agent=lead|run:p"]),
        (Scope(agent="*"), ["l|agent=helper|run:c", "l|agent=lead|run:p"]),
        (Scope(agent="helper"), ["l|agent=helper|run:c"]),
        (Scope(agent="lead"), ["l|agent=lead|run:p"]),
        (Scope(team="red"), ["l|agent=lead|team=red|run:p"]),
        (Scope(team="*"), ["l|agent=helper|team=blue|run:c", "l|agent=lead|team=red|run:p"]),
        (Scope(user="u"), ["l|agent=lead|user=u|run:p"]),
        (Scope(model="m"), ["l|agent=helper|model=m|run:c", "l|agent=lead|model=m|run:p"]),
        (Scope(key="k"), ["l|agent=helper|key=k|run:c", "l|agent=lead|key=k|run:p"]),
        (Scope(tag="x"), ["l|agent=helper|tag=x|run:c", "l|agent=lead|tag=x|run:p"]),
        (Scope(agent="other"), []),
    ],
)
def test_a_limit_over_a_run_binds_each_run_above_as_its_own_agents(scope: Scope, expected: list[str]) -> None:
    assert keys(scope) == expected


def test_limits_over_time_bind_the_calls_own_agent_alone() -> None:
    assert keys(Scope(agent="*"), window="lifetime") == ["l|agent=helper|lifetime"]
    assert keys(Scope(agent="lead"), window="lifetime") == []


def test_a_run_that_comes_twice_is_bound_once_and_in_order() -> None:
    twice = Subject(
        "a", run="r", ancestors=(RunRef("a", "q"), RunRef("a", "r"), RunRef("b", "r"), RunRef("a", "q"))
    )
    assert keys(Scope(), twice) == ["l|agent=a|run:r", "l|agent=a|run:q", "l|agent=b|run:r"]


def test_a_run_above_binds_a_call_that_names_no_run_of_its_own() -> None:
    assert keys(Scope(), Subject("a", ancestors=(PARENT,))) == ["l|agent=lead|run:p"]
