"""Budgets and webhooks that can't do what was probably meant, and downgrades that lead nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llm_proxy.config import ConfigErrors, load_config
from llm_proxy.config.choices import Event

T = "provider: openai, base_url: 'http://u/v1'"
MODELS = "policy: proxy.yaml\nunpriced: free\nmodels:\n" + "".join(
    f"  {name}: {{targets: [{{id: {name}, {T}}}]}}\n" for name in ("big", "small", "odd")
)
AGENTS = (
    "agents:\n  a: {models: [big], team: x}\n  b: {models: [small, odd], team: y}\n"
    "webhooks: [{id: w, url: 'https://h', secret: long-enough-a-secret}]\n"
)
HEAD = MODELS + AGENTS
RATES = {"big": 1e-5, "small": 1e-6}


@dataclass(frozen=True)
class Listed:
    """A row of the price table."""

    window: int | None = None
    listed: Mapping[str, float] = field(default_factory=dict[str, float])


def price_of(_: str, model: str) -> Listed | None:
    rate = RATES.get(model)
    if rate is None:
        return None
    return Listed(
        None, {"input_cost_per_token": rate, "output_cost_per_token": rate, "max_output_tokens": 1000}
    )


def warned(folder: Path, budget: str, head: str = HEAD) -> list[tuple[str, str]]:
    path = folder / "proxy.yaml"
    path.write_text(f"{head}budgets: [{budget}]\n", "utf-8")
    return [(issue.key, issue.message) for issue in load_config(path, {}, price_of).warnings]


@pytest.mark.parametrize(
    ("budget", "key", "says"),
    [
        (
            "{id: b, model: bigg, window: day, requests: 1}",
            "model",
            "no model here is named 'bigg': did you mean",
        ),
        ("{id: b, agent: a, team: y, window: day, requests: 1}", "", "no agent meets its agent and its team"),
        ("{id: b, agent: a, model: small, window: day, requests: 1}", "", "meets its agent and its model"),
        ("{id: b, concurrency: 5, warn_at: 0.5}", "warn_at", "calls at once are never used up"),
        ("{id: b, model: big, window: day, usd: 0.009}", "usd", "'big' replies with up to 1,000 tokens"),
        ("{id: b, model: big, window: day, tokens: 999}", "tokens", "is kept to what is left"),
        (
            "{id: b, model: big, window: day, output_tokens: 9, on_exceed: {downgrade: small}}",
            "output_tokens",
            "goes to the other model",
        ),
        (
            "{id: b, model: small, window: day, usd: 1, on_exceed: {downgrade: big}}",
            "on_exceed.downgrade",
            "'big' is dearer than 'small', which it stands in for",
        ),
        (
            "{id: b, model: big, window: day, usd: 1, on_exceed: {downgrade: odd}}",
            "on_exceed.downgrade",
            "no price is known for all targets of 'odd'",
        ),
    ],
)
def test_one_warning_at_its_place(tmp_path: Path, budget: str, key: str, says: str) -> None:
    ((told, message),) = warned(tmp_path, budget)
    assert told == f"budgets[0].{key}".rstrip(".")
    assert says in message


@pytest.mark.parametrize(
    "budget",
    [
        "{id: b, agent: '*', team: x, model: 'b*', window: day, requests: 1}",
        "{id: b, window: day, usd: 0.001}",  # a call for small fits
        "{id: b, model: big, window: day, usd: 0}",
        "{id: b, model: big, window: day, usd: 0.001, on_exceed: warn}",
        "{id: b, window: day, usd: 1, on_exceed: {downgrade: small}}",
        "{id: b, concurrency: 5, window: day, usd: 1, warn_at: 0.5}",
        "{id: b, user: nobody, key: none, tag: x, window: 30d, requests: 1}",
    ],
)
def test_what_is_fine_is_not_warned_about(tmp_path: Path, budget: str) -> None:
    assert warned(tmp_path, budget) == []


def test_a_limit_that_stops_nobody_and_tells_nobody_is_warned_about(tmp_path: Path) -> None:
    budget = "{id: b, window: day, requests: 1, on_exceed: warn}"
    assert warned(tmp_path, budget) == []
    agents = AGENTS.split("webhooks")[0]
    ((key, message),) = warned(tmp_path, budget, MODELS + agents)
    assert (key, "stops nobody and tells nobody" in message) == ("budgets[0].on_exceed", True)
    other = "webhooks: [{id: w, url: 'https://h', secret: long-enough-a-secret, events: [key.issued]}]\n"
    assert [key for key, _ in warned(tmp_path, budget, MODELS + agents + other)] == ["budgets[0].on_exceed"]


@pytest.mark.parametrize(
    ("webhook", "keys"),
    [
        ("url: 'http://hooks.example.com/x', secret: long-enough-a-secret", ["webhooks[0].url"]),
        ("url: 'http://127.0.0.1:9/x', secret: long-enough-a-secret", []),
        ("url: 'http://localhost/x', secret: long-enough-a-secret", []),
        ("url: 'https://hooks.example.com/x', secret: short", ["webhooks[0].secret"]),
    ],
)
def test_webhooks_that_others_can_read_or_forge_are_warned_about(
    tmp_path: Path, webhook: str, keys: list[str]
) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(f"{MODELS}webhooks: [{{id: w, {webhook}}}]\n", "utf-8")
    assert [issue.key for issue in load_config(path, {}).warnings] == keys


def refused(folder: Path, budgets: str) -> list[tuple[str, str]]:
    path = folder / "proxy.yaml"
    path.write_text(f"{HEAD}budgets:\n{budgets}", "utf-8")
    with pytest.raises(ConfigErrors) as error:
        load_config(path, {})
    return [(issue.key, issue.message) for issue in error.value.issues]


def step(id_: str, model: str | None, to: str) -> str:
    of = f"model: {model}, " if model else ""
    return f"- {{id: {id_}, {of}window: day, usd: 1, on_exceed: {{downgrade: {to}}}}}\n"


def test_a_budget_is_not_named_as_envelopes_are(tmp_path: Path) -> None:
    """Its counter could be that of a run's envelope."""
    ((key, message),) = refused(tmp_path, "- {id: 'envelope:r', agent: a, window: run, requests: 1}\n")
    assert key == "budgets[0].id"
    assert "must not begin with 'envelope:'" in message


def test_models_by_name_that_lead_back_to_the_start_are_refused_once(tmp_path: Path) -> None:
    circle = step("one", "big", "small") + step("two", "'s*'", "odd") + step("three", "odd", "big")
    ((key, message),) = refused(tmp_path, circle + step("four", "big", "small"))
    assert key == "budgets[0].on_exceed.downgrade"
    assert "leads back to where it began (big → s* → odd → big)" in message


def test_limits_for_any_model_make_no_circle(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    fine = step("one", None, "small") + step("two", "'*'", "odd") + step("three", "big", "small")
    path.write_text(f"{HEAD}budgets:\n{fine}", "utf-8")
    assert len(load_config(path, {}).budgets) == 3


def test_two_webhooks_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    hook = "{id: w, url: 'https://h', secret: long-enough-a-secret}"
    path.write_text(f"webhooks: [{hook}, {hook}]\n", "utf-8")
    with pytest.raises(ConfigErrors, match="'w' is taken by webhooks"):
        load_config(path, {})


def test_every_event_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    events = ", ".join(Event)
    path.write_text(f"webhooks: [{{id: w, url: 'https://h', secret: s, events: [{events}]}}]\n", "utf-8")
    assert load_config(path, {}).webhooks[0].events == tuple(Event)
