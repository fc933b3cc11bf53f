"""Which targets stand behind a model's name."""

from __future__ import annotations

import pytest

from routing.fleet import ANY
from routing.strategies import STRATEGIES, strategy_named
from routing.targets import Route, RouteTable, Target
from routing.traffic import Traffic


def target(id_: str, model: str = "m") -> Target:
    return Target(id_, "openai", model)


def route(name: str, *targets: Target, fallbacks: tuple[str, ...] = ()) -> Route:
    return Route(name, targets or (target(f"t-{name}"),), fallbacks=fallbacks)


def ids(table: RouteTable, model: str) -> list[str]:
    resolved = table.resolve(model)
    assert resolved is not None
    return [t.id for t in resolved.targets()]


def test_an_exact_name_goes_before_any_glob() -> None:
    table = RouteTable([route("*"), route("gpt-*"), route("gpt-4o")])
    assert ids(table, "gpt-4o") == ["t-gpt-4o"]
    assert ids(table, "gpt-5") == ["t-gpt-*"]
    assert ids(table, "llama") == ["t-*"]


def test_the_glob_with_the_most_literal_characters_wins() -> None:
    table = RouteTable([route("c*"), route("claude-*"), route("claude-?-*")])
    assert ids(table, "claude-3-x") == ["t-claude-?-*"]
    assert ids(table, "claude-haiku") == ["t-claude-*"]


@pytest.mark.parametrize("name", ["org/model[1]", "what?", "a.b+c", "модель"])
def test_a_name_may_hold_any_character(name: str) -> None:
    table = RouteTable([route(name)])
    assert table.resolve(name) is not None
    assert table.resolve(name.replace("[1]", "1").replace("?", "x").replace(".", "_").upper() + "!") is None


def test_brackets_in_a_glob_are_literal() -> None:
    table = RouteTable([route("m[12]-*")])
    assert table.resolve("m[12]-x") is not None
    assert table.resolve("m1-x") is None


def test_nobody_has_the_name() -> None:
    assert RouteTable([route("gpt-4o")]).resolve("gpt-4") is None


def test_a_star_target_passes_the_asked_name_on() -> None:
    table = RouteTable([route("claude-*", target("any", "*"))])
    resolved = table.resolve("claude-haiku")
    assert resolved is not None
    assert [t.model for t in resolved.targets()] == ["claude-haiku"]


def test_a_fallbacks_star_target_gets_the_fallbacks_name() -> None:
    table = RouteTable([route("a", fallbacks=("claude-haiku",)), route("claude-*", target("any", "*"))])
    resolved = table.resolve("a")
    assert resolved is not None
    assert [t.model for t in resolved.targets()] == ["m", "claude-haiku"]


def test_the_asked_models_own_fallbacks_go_first() -> None:
    table = RouteTable(
        [route("a", fallbacks=("b", "c")), route("b", fallbacks=("d",)), route("c"), route("d")]
    )
    assert ids(table, "a") == ["t-a", "t-b", "t-c", "t-d"]


def test_a_cycle_of_fallbacks_ends() -> None:
    table = RouteTable([route("a", fallbacks=("b",)), route("b", fallbacks=("a", "b"))])
    assert ids(table, "a") == ["t-a", "t-b"]
    assert ids(table, "b") == ["t-b", "t-a"]


def test_the_same_deployment_stands_in_a_chain_once() -> None:
    shared = target("shared")
    table = RouteTable([route("a", target("own"), shared, fallbacks=("b",)), route("b", shared)])
    assert ids(table, "a") == ["own", "shared"]


def test_the_same_key_with_another_model_is_another_try() -> None:
    table = RouteTable([route("a", target("x", "big"), fallbacks=("b",)), route("b", target("x", "small"))])
    assert ids(table, "a") == ["x", "x"]


@pytest.mark.parametrize(
    ("routes", "says"),
    [
        ([route("a"), route("a")], "two routes"),
        ([Route("a", ())], "no targets"),
        ([route("a", target("x"), target("x"))], "the id 'x'"),
        ([route("a", fallbacks=("nowhere",))], "'nowhere'"),
        ([Route("a", (target("x"),), retries=-1)], "retries"),
    ],
)
def test_what_could_never_be_routed_is_refused(routes: list[Route], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RouteTable(routes)


def test_every_strategy_orders_all_targets() -> None:
    targets = [target(f"t{i}") for i in range(5)]
    for name in STRATEGIES:
        ordered = strategy_named(name).order(targets, Traffic(), ANY, 0.0, lambda: 0.5)
        assert sorted(t.id for t in ordered) == [t.id for t in targets]


def test_ordered_keeps_the_order() -> None:
    targets = [target("b"), target("a")]
    assert list(strategy_named("ordered").order(targets, Traffic(), ANY, 0.0, lambda: 0.5)) == targets


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'fastest' is not known.*ordered"):
        strategy_named("fastest")
