"""What is allowed and probably not meant is warned about, at its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llm_proxy.config import load_config
from llm_proxy.yamlpos import Issue


@dataclass(frozen=True)
class Listed:
    """A row of the price table."""

    window: int | None
    listed: Mapping[str, float] = field(default_factory=dict[str, float])


T = "provider: openai, base_url: 'http://u/v1'"
QUIET = f"policy: proxy.yaml\nmodels:\n  m: {{targets: [{{id: m, {T}}}]}}\n"


def warned(directory: Path, text: str) -> tuple[Issue, ...]:
    path = directory / "proxy.yaml"
    path.write_text(text, "utf-8")
    return load_config(path, {}).warnings


def test_a_quiet_config_warns_of_nothing(tmp_path: Path) -> None:
    agents = "agents: {a: {models: [m], keys: [long-enough-a-key], team: x}}\n"
    budgets = (
        "budgets:\n- {id: b, agent: a, window: day, usd: 1}\n- {id: c, agent: '*', window: run, usd: 1}\n"
    )
    assert warned(tmp_path, QUIET + agents + budgets + "- {id: d, team: x, window: day, usd: 1}\n") == ()


@pytest.mark.parametrize(
    ("added", "line", "column", "key", "said"),
    [
        ("agents: {a: {models: [m, n]}}", 4, 26, "agents.a.models[1]", "'n' matches no model: known are m"),
        ("agents: {a: {models: ['x*']}}", 4, 23, "agents.a.models[0]", "'x*' matches no model"),
        ("agents: {a: {}}", 4, 10, "agents.a", "may call no model"),
        (
            "agents: {a: {models: [m], keys: [short]}}",
            4,
            34,
            "agents.a.keys[0]",
            "shorter than 16 characters",
        ),
        ("server: {admin_token: short}", 4, 10, "server.admin_token", "shorter than 16 characters"),
        (
            "budgets: [{id: b, agent: a, window: day, usd: 1}]",
            4,
            19,
            "budgets[0].agent",
            "no agent here is named 'a'",
        ),
        (
            "budgets: [{id: b, team: x, window: day, usd: 1}]",
            4,
            19,
            "budgets[0].team",
            "no agent here is of team 'x'",
        ),
        ("prices: {m: {input_cost_per_token: 0.15}}", 4, 14, "prices.m.input_cost_per_token", "per million"),
    ],
)
def test_one_warning_at_its_place(
    tmp_path: Path, added: str, line: int, column: int, key: str, said: str
) -> None:
    (issue,) = warned(tmp_path, QUIET + added + "\n")
    assert (issue.line, issue.column, issue.key) == (line, column, key)
    assert said in issue.message


def test_no_model_and_no_policy_are_warned_about(tmp_path: Path) -> None:
    assert [issue.key for issue in warned(tmp_path, "")] == ["models", "policy"]


def test_a_name_is_compared_literally_before_any_glob(tmp_path: Path) -> None:
    text = f"""\
policy: proxy.yaml
models:
  "odd[1]*": {{targets: [{{id: odd, {T}}}]}}
  "claude-*": {{targets: [{{id: claude, {T}}}], fallbacks: ["odd[1]*", claude-sonnet]}}
agents:
  a: {{models: ["odd[1]*", claude-haiku, "clau*", "*"]}}
"""
    found = [issue.key for issue in warned(tmp_path, text)]
    assert found == []


def test_each_circle_of_fallbacks_is_warned_about_once(tmp_path: Path) -> None:
    text = f"""\
policy: proxy.yaml
models:
  start: {{targets: [{{id: s, {T}}}], fallbacks: [a]}}
  a: {{targets: [{{id: a, {T}}}], fallbacks: [b]}}
  b: {{targets: [{{id: b, {T}}}], fallbacks: [c]}}
  c: {{targets: [{{id: c, {T}}}], fallbacks: [a]}}
  self: {{targets: [{{id: d, {T}}}], fallbacks: [self]}}
"""
    found = [(issue.line, issue.key, issue.message) for issue in warned(tmp_path, text)]
    assert [(line, key) for line, key, _ in found] == [
        (4, "models.a.fallbacks"),
        (7, "models.self.fallbacks"),
    ]
    assert "a → b → c → a" in found[0][2]
    assert "self → self" in found[1][2]


@pytest.mark.parametrize(
    ("added", "keys"),
    [
        ("budgets: [{id: b, window: day, usd: 1}]", ["models.m.targets[0]"]),
        ("budgets: [{id: b, window: day, usd: 1}]\nunpriced: free", []),
        ("budgets: [{id: b, window: day, tokens: 1}]", []),
        ("budgets: [{id: b, window: day, usd: 1}]\nprices: {openai/m: {input_cost_per_token: 1e-6}}", []),
    ],
)
def test_a_model_without_a_price_is_warned_about_under_a_usd_limit(
    tmp_path: Path, added: str, keys: list[str]
) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(f"{QUIET}  n: {{targets: [{{id: n, model: known, {T}}}]}}\n{added}\n", "utf-8")
    asked: list[tuple[str, str]] = []

    def price_of(provider: str, model: str) -> Listed | None:
        asked.append((provider, model))
        return Listed(None) if model == "known" else None

    config = load_config(path, {}, price_of)
    assert [issue.key for issue in config.warnings] == keys
    assert not keys or set(asked) == {("openai", "m"), ("openai", "known")}


@pytest.mark.parametrize("kind", ["fallbacks", "context_fallbacks", "content_fallbacks"])
def test_a_circle_of_any_kind_of_fallbacks_is_warned_about(tmp_path: Path, kind: str) -> None:
    text = f"""\
policy: proxy.yaml
models:
  a: {{targets: [{{id: a, {T}}}], {kind}: [b]}}
  b: {{targets: [{{id: b, {T}}}], {kind}: [a]}}
"""
    found = [(issue.key, issue.message) for issue in warned(tmp_path, text)]
    assert found == [(f"models.a.{kind}", "falls back in a circle (a → b → a): each is tried once")]


def test_fallbacks_of_several_kinds_make_no_circle_together(tmp_path: Path) -> None:
    text = f"""\
policy: proxy.yaml
models:
  a: {{targets: [{{id: a, {T}}}], context_fallbacks: [b]}}
  b: {{targets: [{{id: b, {T}}}], fallbacks: [a]}}
"""
    assert warned(tmp_path, text) == ()


@pytest.mark.parametrize(
    ("strategy", "warns"),
    [("ordered", True), ("weighted", False), ("least-busy", False), ("least-latency", True)],
)
def test_a_weight_that_nothing_weighs_is_warned_about(tmp_path: Path, strategy: str, *, warns: bool) -> None:
    targets = f"[{{id: a, {T}, weight: 3}}, {{id: b, {T}}}]"
    text = f"policy: proxy.yaml\nmodels:\n  m: {{strategy: {strategy}, targets: {targets}}}\n"
    found = [(issue.key, issue.message) for issue in warned(tmp_path, text)]
    said = f"has no effect with strategy `{strategy}`: only weighted and least-busy weigh"
    assert found == ([("models.m.targets[0].weight", said)] if warns else [])


@pytest.mark.parametrize(
    ("targets", "more", "warns"),
    [
        (f"[{{id: a, {T}}}]", "", True),
        (f"[{{id: a, {T}}}, {{id: b, {T}}}]", "", False),
        (f"[{{id: a, {T}}}]", ", fallbacks: [other]", False),
        (f"[{{id: a, {T}}}]", ", context_fallbacks: [other]", True),
    ],
)
def test_hedging_without_a_second_target_is_warned_about(
    tmp_path: Path, targets: str, more: str, *, warns: bool
) -> None:
    other = f"  other: {{targets: [{{id: o, {T}}}]}}\n"
    text = f"policy: proxy.yaml\nmodels:\n  m: {{targets: {targets}, hedge_after: p95{more}}}\n{other}"
    found = [issue.key for issue in warned(tmp_path, text)]
    assert found == (["models.m.hedge_after"] if warns else [])


@pytest.mark.parametrize(
    ("more", "warns"),
    [
        ("hold: expected", False),
        ("hold: expected, fallbacks: [other]", False),
        ("hold: expected, fallbacks: [other], hedge_after: p95", True),
        ("hold: expected, fallbacks: [other], on_cut: continue", True),
        ("hold: expected, on_cut: continue", False),
        ("fallbacks: [other], on_cut: continue", False),
    ],
)
def test_a_small_hold_that_two_targets_forbid_is_warned_about(
    tmp_path: Path, more: str, *, warns: bool
) -> None:
    other = f"  other: {{targets: [{{id: o, {T}}}]}}\n"
    text = f"policy: proxy.yaml\nmodels:\n  m: {{targets: [{{id: a, {T}}}], {more}}}\n{other}"
    found = [issue.key for issue in warned(tmp_path, text)]
    assert found == (["models.m.hold"] if warns else [])


WINDOWS = {"small": 8_192, "same": 8_192, "large": 200_000, "unsaid": None}


def priced(tmp_path: Path, text: str) -> list[tuple[str, str]]:
    path = tmp_path / "proxy.yaml"
    path.write_text(text, "utf-8")

    def price_of(provider: str, model: str) -> Listed | None:
        return Listed(WINDOWS[model]) if model in WINDOWS else None

    return [(issue.key, issue.message) for issue in load_config(path, {}, price_of).warnings]


def test_a_fallback_that_takes_no_longer_prompts_is_warned_about(tmp_path: Path) -> None:
    models = [*WINDOWS, "unknown"]
    text = "policy: proxy.yaml\nmodels:\n" + "".join(
        f"  {name}: {{targets: [{{id: {name}, {T}}}]}}\n" for name in models if name != "small"
    )
    text += f"  small: {{targets: [{{id: small, {T}}}], context_fallbacks: [large, same, unsaid, unknown]}}\n"
    ((key, said),) = priced(tmp_path, text)
    assert key == "models.small.context_fallbacks[1]"
    assert said.startswith("'same' takes no longer prompts (8,192 tokens) than 'small' (8,192): name a model")
    own = "prices: {same: {input_cost_per_token: 1e-6, max_input_tokens: 9000}}\n"
    assert priced(tmp_path, text + own) == []


@pytest.mark.parametrize(
    ("models", "more", "warns"),
    [
        (("x", "y"), "", True),
        (("x", "small"), "", False),
        (("x", "y"), "prices: {y: {input_cost_per_token: 1e-6}}\n", False),
    ],
)
def test_the_lowest_of_unknown_costs_is_warned_about(
    tmp_path: Path, models: tuple[str, ...], more: str, *, warns: bool
) -> None:
    targets = ", ".join(f"{{id: {model}, model: {model}, {T}}}" for model in models)
    text = f"policy: proxy.yaml\nmodels:\n  m: {{strategy: lowest-cost, targets: [{targets}]}}\n{more}"
    said = "has no effect, since no target's price is known: give them prices, or name another one"
    assert priced(tmp_path, text) == ([("models.m.strategy", said)] if warns else [])
