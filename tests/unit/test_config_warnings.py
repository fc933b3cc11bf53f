"""What is allowed and probably not meant is warned about, at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_proxy.config import load_config
from llm_proxy.yamlpos import Issue

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

    def has_price(provider: str, model: str) -> bool:
        asked.append((provider, model))
        return model == "known"

    config = load_config(path, {}, has_price)
    assert [issue.key for issue in config.warnings] == keys
    assert not keys or asked == [("openai", "m"), ("openai", "known")]
