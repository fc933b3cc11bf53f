"""What we rely on in cel_expr_python, pinned: a new version that differs must fail here first."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cel_expr_python import cel

from llm_proxy.policy.conditions import ConditionError, Conditions

T = cel.Type
ENV = cel.NewEnv(
    variables={
        "args": T.Map(T.STRING, T.DYN),
        "tool.sink": T.STRING,
        "tool.rank": T.INT,
        "items": T.List(T.STRING),
        "now": T.TIMESTAMP,
    }
)


def run(text: str, args: dict[str, object] | None = None) -> tuple[object, object]:
    facts = {
        "args": args or {},
        "tool.sink": "external",
        "tool.rank": 2,
        "items": ["a"],
        "now": datetime(2024, 1, 1, tzinfo=UTC),
    }
    value = ENV.compile(text).eval(activation=ENV.Activation(facts))
    return value.type(), value.value()


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("args.x == 1", {}),
        ("args.x > 'a'", {"x": 1}),
        ("args.x + 1 > 0", {"x": 2**63 - 1}),
        ("args.x[5] == 1", {"x": [1]}),
        ("has(args.x.y)", {"x": 1}),
        ("args.x == 1", {"x": 2**64}),
        ("args.x == 1", {"x": object()}),
    ],
)
def test_runtime_errors_are_values(text: str, args: dict[str, object]) -> None:
    kind, answer = run(text, args)
    assert kind == T.ERROR
    assert answer


@pytest.mark.parametrize(
    ("text", "args", "answer"),
    [
        ("tool.sink == 'external' && tool.rank > 1", {}, True),
        ("args.none == 1 || true", {}, True),
        ("false && args.none == 1", {}, False),
        ("has(args.x)", {}, False),
        ("has(args.x) && args.x == 1", {}, False),
        ("args.x == 1.0", {"x": 1}, True),
        ("args.x == null", {"x": None}, True),
        ("args.x == 'a'", {"x": 1}, False),
        ("'a' in items", {}, True),
        ("'confidential' > 'public'", {}, False),
        ("now > timestamp('2023-12-31T00:00:00Z')", {}, True),
        ("args.x.exists(i, i > 2)", {"x": [1, 2, 3]}, True),
        ("args.x.matches('^(a+)+$')", {"x": "a" * 5000 + "b"}, False),
    ],
)
def test_answers(text: str, args: dict[str, object], answer: bool) -> None:
    assert run(text, args) == (T.BOOL, answer)


def test_strings_end_at_nul() -> None:
    """Why the argument parser refuses U+0000: only a part of the string would be judged."""
    assert run("args.x == 'safe'", {"x": "safe\0 not"}) == (T.BOOL, True)


def test_lone_surrogates_raise() -> None:
    with pytest.raises(RuntimeError):
        run("args.x == 'a'", {"x": "\ud800"})


def test_a_missing_variable_is_an_error_value() -> None:
    value = ENV.compile("tool.sink == 'x'").eval(activation=ENV.Activation({}))
    assert value.type() == T.ERROR


@pytest.mark.parametrize("size", [300, 1000])
def test_running_out_of_iterations_raises(size: int) -> None:
    with pytest.raises(RuntimeError, match="budget"):
        run("args.x.all(i, args.x.all(j, i + j >= 0))", {"x": list(range(size))})


def test_unknown_names_and_types_fail_to_compile_with_a_place() -> None:
    with pytest.raises(RuntimeError, match=r"<input>:1:5: undeclared reference to 'tool\.snk'"):
        ENV.compile("tool.snk == 'x'")
    with pytest.raises(RuntimeError, match=r"<input>:2:5: found no matching overload"):
        ENV.compile("true &&\n  1 == 'x'")
    with pytest.raises(RuntimeError, match="undeclared reference to 'tool'"):
        ENV.compile("tool['sink'] == 'x'")


@pytest.mark.parametrize("text", ["(" * 100 + "true" + ")" * 100, "1" + "+1" * 2000 + " > 0"])
def test_deep_expressions_are_refused_not_fatal(text: str) -> None:
    with pytest.raises(RuntimeError, match="recursion"):
        ENV.compile(text)


CONDITIONS = Conditions(["public", "secret"])


@pytest.mark.parametrize(
    "text",
    [
        "args.l.map(x, args.l.map(y, y)).size() > 0",
        "args.l.filter(x, args.l.filter(y, y == x).size() > 0).size() > 0",
        "args.l.exists(x, args.l.map(y, y).size() > 0)",
        "args.l.map(x, x > 1, args.l.map(y, y)).size() > 0",
        "{'a': [1].map(x, [1].map(y, y))}.size() > 0",
        "true ? [[1].map(x, [2].filter(y, y > x))].size() > 0 : false",
    ],
)
def test_nested_list_building_is_refused(text: str) -> None:
    with pytest.raises(ConditionError, match="inside another macro"):
        CONDITIONS.compile(text)


@pytest.mark.parametrize(
    "text",
    [
        "args.l.filter(x, x > 1).map(y, y).size() > 0",
        "args.l.map(x, x).exists(y, y > 1)",
        "args.l.exists(x, x == 1) && args.l.map(x, x).size() > 0",
        "args.l.all(x, agent.scopes.repos.exists(s, s == x))",
        "run.sensitivity > label.public",
    ],
)
def test_chained_macros_are_accepted(text: str) -> None:
    CONDITIONS.compile(text)
