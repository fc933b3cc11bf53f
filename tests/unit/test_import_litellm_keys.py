"""LiteLLM's virtual keys become agents and budgets, and never allow more than they did."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from pathlib import Path

import pytest

from llm_proxy.config import Config
from llm_proxy.importing.source import leaves
from llm_proxy.importing.translate import Translation
from llm_proxy.yamlpos import DocumentErrors, dotted
from tests.unit.litellm_import import CONFIGS, imported, loaded, row, verdict

CONFIG = """\
model_list:
- model_name: gpt-4o
  litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY}
  model_info: {access_groups: [everyday]}
- model_name: mini
  litellm_params: {model: openai/gpt-4o-mini, api_key: os.environ/OPENAI_API_KEY}
  model_info: {access_groups: [everyday]}
- model_name: "claude/*"
  litellm_params: {model: "anthropic/*"}
"""
TOKEN = "ab" * 32


def one(**key: object) -> Translation:
    """An import with one key, called bot."""
    return imported(CONFIG, json.dumps({"keys": [{"token": TOKEN, "key_alias": "bot", **key}]}))


def test_the_keys_of_the_team(tmp_path: Path) -> None:
    text = (CONFIGS / "keys.json").read_text()
    found = imported(CONFIG, text)
    config = loaded(found, tmp_path)
    (name,) = config.agents
    agent = config.agents[name]
    assert (name, agent.owner, agent.team, agent.models) == (
        "triage-bot",
        "ops@example.com",
        "support",
        ("gpt-4o",),
    )
    assert [key.sha256 for key in agent.keys] == [
        "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"
    ]
    assert [(b.agent, b.window, b.usd, b.requests) for b in config.budgets] == [
        ("triage-bot", "month", 20, None),
        ("triage-bot", "minute", None, 60),
    ]
    of_keys = [row for row in found.rows if row.file == "keys.json"]
    assert [row.field for row in of_keys] == [dotted(path) for path, _ in leaves(json.loads(text))]
    assert [row.field for row in found.rows if row.field == "--keys"] == []


def test_a_key_that_calls_the_proxy_there_calls_it_here(tmp_path: Path) -> None:
    token = hashlib.sha256(b"sk-of-an-agent-0123456789").hexdigest()
    config = loaded(imported(CONFIG, json.dumps([{"token": token}])), tmp_path)
    assert config.agents["key-1"].keys[0].matches("sk-of-an-agent-0123456789")


@pytest.mark.parametrize(
    ("money", "duration", "window", "usd", "said"),
    [
        (5, "1m", "minute", "5", "exact"),
        (5, "1h", "hour", "5", "exact"),
        (5, "24h", "day", "5", "exact"),
        (5, "daily", "day", "5", "exact"),
        (5, "1d", "day", "5", "exact"),
        (5, "7d", "week", "5", "exact"),
        (5, "30d", "month", "5", "exact"),
        (5, "1mo", "month", "5", "exact"),
        (5, None, "lifetime", "5", "exact"),
        (0, None, "lifetime", "0", "exact"),
        (5, "30s", "minute", "5", "approximate"),
        (5, "12h", "day", "5", "approximate"),
        (5, "10d", "month", "5", "approximate"),
        (90, "90d", "month", "30", "approximate"),
        (10, "12mo", "month", "0.833333", "approximate"),
    ],
)
def test_budgets(
    money: float, duration: str | None, window: str, usd: str, said: str, tmp_path: Path
) -> None:
    found = one(max_budget=money, budget_duration=duration, spend=0)
    (budget,) = loaded(found, tmp_path).budgets
    assert (budget.window, budget.usd) == (window, Decimal(usd))
    assert verdict(found, "keys[0].max_budget") == (said, "budgets.bot-budget.usd")


@pytest.mark.parametrize(("money", "duration"), [(-1, "30d"), (5, "soon"), (5, "0d"), ("5", "30d")])
def test_budgets_that_mean_nothing(money: object, duration: str, tmp_path: Path) -> None:
    found = one(max_budget=money, budget_duration=duration)
    assert loaded(found, tmp_path).budgets == ()
    assert verdict(found, "keys[0].max_budget")[0] == "unsupported"


def test_what_was_spent_of_a_budget_without_an_end_is_taken_off(tmp_path: Path) -> None:
    found = one(max_budget=100, spend=40.25)
    (budget,) = loaded(found, tmp_path).budgets
    assert (budget.window, budget.usd) == ("lifetime", Decimal("59.75"))
    assert verdict(found, "keys[0].spend") == ("exact", "budgets.bot-budget.usd")
    assert verdict(one(max_budget=100, budget_duration="1d", spend=40), "keys[0].spend")[0] == "unsupported"


def test_a_key_takes_what_it_lacks_from_its_budget(tmp_path: Path) -> None:
    found = one(
        max_budget=None, litellm_budget_table={"max_budget": 7, "budget_duration": "1d", "rpm_limit": 3}
    )
    budgets = loaded(found, tmp_path).budgets
    assert [(b.id, b.window, b.usd, b.requests) for b in budgets] == [
        ("bot-budget", "day", 7, None),
        ("bot-minute", "minute", None, 3),
    ]


def test_several_budgets_of_one_key(tmp_path: Path) -> None:
    windows = [{"budget_duration": "1h", "max_budget": 1}, {"budget_duration": "1d", "max_budget": 5}]
    budgets = loaded(one(budget_limits=windows), tmp_path).budgets
    assert [(b.id, b.window, b.usd) for b in budgets] == [
        ("bot-budget", "hour", 1),
        ("bot-budget-2", "day", 5),
    ]


def _agent(found: Translation, folder: Path) -> tuple[int, tuple[str, ...]]:
    """How many keys it has, and its models."""
    config: Config = loaded(found, folder)
    agent = config.agents["bot"]
    return len(agent.keys), agent.models


@pytest.mark.parametrize(
    ("models", "ours", "said"),
    [
        ([], ("*",), "exact"),
        (["all-proxy-models"], ("*",), "exact"),
        (["no-default-models"], (), "exact"),
        (["all-team-models"], (), "unsupported"),
        (["gpt-4o", "claude/*"], ("gpt-4o", "claude/*"), "exact"),
        (["everyday"], ("gpt-4o", "mini"), "approximate"),
    ],
)
def test_models_of_a_key(models: list[str], ours: tuple[str, ...], said: str, tmp_path: Path) -> None:
    found = one(models=models)
    assert _agent(found, tmp_path) == (1, ours)
    assert verdict(found, "keys[0].models[0]" if models else "keys[0].models")[0] == said


def test_a_model_that_only_a_key_names_is_written_for_its_wildcard(tmp_path: Path) -> None:
    config = loaded(one(models=["claude/claude-of-tomorrow"]), tmp_path)
    assert config.models["claude/claude-of-tomorrow"].targets[0].model == "claude-of-tomorrow"


def test_a_key_that_expires_is_not_made_one_that_does_not(tmp_path: Path) -> None:
    found = one(expires="2099-01-01T00:00:00Z", models=["gpt-4o"])
    assert _agent(found, tmp_path) == (0, ("gpt-4o",))
    assert verdict(found, "keys[0].token")[0] == "unsupported"
    assert "keys issue" in row(found, "keys[0].expires").note


def test_a_blocked_key_stays_blocked(tmp_path: Path) -> None:
    assert _agent(one(blocked=True, models=["gpt-4o"]), tmp_path) == (0, ())
    assert _agent(one(blocked=False, models=["gpt-4o"]), tmp_path) == (1, ("gpt-4o",))


def test_names_are_valid_and_stand_once(tmp_path: Path) -> None:
    aliases = ["Bot of Ops!", "Bot of Ops?", None, "", "x" * 200, "x" * 200]
    keys = [{"token": f"{n:064x}", "key_alias": alias} for n, alias in enumerate(aliases)]
    config = loaded(imported(CONFIG, json.dumps(keys)), tmp_path)
    assert list(config.agents) == [
        "Bot-of-Ops-",
        "Bot-of-Ops--2",
        "key-3",
        "key-4",
        "x" * 128,
        "x" * 126 + "-2",
    ]


def test_a_token_that_stands_twice_belongs_to_the_first(tmp_path: Path) -> None:
    found = imported(CONFIG, json.dumps([{"token": TOKEN}, {"token": TOKEN.upper()}, {"token": "sk-plain"}]))
    config = loaded(found, tmp_path)
    assert [len(agent.keys) for agent in config.agents.values()] == [1, 0, 0]
    assert "sk-plain" not in found.text + repr(found.rows)


def test_the_answers_of_key_info(tmp_path: Path) -> None:
    plain = json.dumps({"key": "sk-of-an-agent-0123456789", "info": {"key_alias": "bot", "models": []}})
    config = loaded(imported(CONFIG, plain), tmp_path)
    assert config.agents["bot"].keys[0].matches("sk-of-an-agent-0123456789")
    hashed = json.dumps({"key": TOKEN, "info": {"key_alias": "bot"}})
    assert loaded(imported(CONFIG, hashed), tmp_path).agents["bot"].keys[0].sha256 == TOKEN
    several = json.dumps({"key": ["sk-1"], "info": [{"key_alias": "bot"}]})
    assert loaded(imported(CONFIG, several), tmp_path).agents["bot"].keys == ()


def test_further_pages_are_told_of() -> None:
    text = json.dumps({"keys": [], "total_pages": 3, "current_page": 1})
    assert verdict(imported(CONFIG, text), "total_pages")[0] == "unsupported"
    assert verdict(imported(CONFIG, text.replace("3", "1")), "total_pages")[0] == "exact"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"keys": [\n', "keys.json:2:1: is not valid JSON: Expecting value"),
        ('{"models": []}', "keys.json:1:1: holds no keys"),
        ('{"keys": ["ab12"]}', "keys.json:1:1: keys: has keys without what belongs to them"),
        ("[" * 100_000, "keys.json:1:1: is nested too deep"),
    ],
)
def test_what_holds_no_keys_is_refused(text: str, said: str) -> None:
    with pytest.raises(DocumentErrors) as refused:
        imported(CONFIG, text)
    assert str(refused.value).startswith(said)
    assert "return_full_object=true" in str(refused.value)
