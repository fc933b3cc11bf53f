"""`llm-proxy prices` as it's typed: a line for each target, every rate of one model, unknown names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.records.engine import open_engine
from llm_proxy.records.tables import token_errors

ENVIRON = {"NO_COLOR": "1", "COLUMNS": "200", "LLM_PROXY_CONFIG": "", "LLM_PROXY_TOKEN": ""}


def target(id_: str, model: str, provider: str = "openai") -> dict[str, Any]:
    return {"id": id_, "provider": provider, "model": model, "api_key": "k"}


CONFIG: dict[str, Any] = {
    "models": {
        "mini": {"targets": [target("first", "gpt-5.4"), target("second", "own")]},
        "odd": {"targets": [target("third", "nobody-prices-it")]},
        "claude-*": {"targets": [target("fourth", "*", "anthropic")]},
    },
    "prices": {
        "own": {
            "input_cost_per_token": 1e-6,
            "output_cost_per_token": 2.5e-6,
            "output_cost_per_token_above_64k_tokens_flex": 3e-6,
            "input_cost_per_image": 0.02,
        }
    },
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "proxy.yaml"
    path.write_text(json.dumps(CONFIG | {"store": f"sqlite:///{tmp_path}/s.db"}))
    return path


def run(line: str, config: Path) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    result = CliRunner().invoke(app, [*line.split(), "--config", str(config)], env=ENVIRON)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_line_for_each_target(config: Path) -> None:
    status, out, err = run("prices", config)
    assert (status, err) == (0, "")
    rows = {row[1]: row for row in words(out)}
    assert rows["first"][:7] == ["mini", "first", "openai/gpt-5.4", "2.50", "15.00", "0.25", "2.50"]
    assert rows["second"][3:5] == ["1.00", "2.50"]
    assert rows["third"][3:] == ["no", "price"]
    assert "over 272,000" in out
    lines = json.loads(run("prices --json --limit 2", config)[1])
    assert [line["target"] for line in lines] == ["first", "second"]
    assert lines[0]["tiers"] == ["batches", "flex", "priority"]
    assert (lines[1]["above"], lines[1]["version"].split(":")[0]) == ([], "config")
    assert [path.name for path in config.parent.iterdir()] == ["proxy.yaml"], "no store is made"


def test_every_rate_of_a_model_of_the_config_at_each_target(config: Path) -> None:
    status, out, _ = run("prices mini", config)
    assert status == 0
    rows = words(out)
    assert ["standard", "over", "272,000", "5.00", "22.50", "0.50"] in rows
    assert ["flex", "any", "1.25", "7.50", "0.13"] in rows
    assert ["flex", "over", "64,000", "1.00", "3.00", "1.00"] in rows
    assert "openai/gpt-5.4 at target first, litellm-" in out
    assert "openai/own at target second, config:" in out
    assert "0.02 USD for an image" in out
    assert "prompts of up to 1,050,000 tokens; replies of up to 128,000 tokens." in out
    (_, own) = json.loads(run("prices mini --json", config)[1])
    (standard, flex, long) = own["rates"]
    assert (standard["tier"], standard["above"]) == ("standard", 0)
    assert standard["usd_per_million"]["cache_creation_input_token_cost_above_1hr"] == 1.0
    assert (flex["tier"], long["above"], long["usd_per_million"]["output_cost_per_token"]) == (
        "flex",
        64_000,
        3.0,
    )
    assert own["usd_per_piece"] == {"image": 0.02}


@pytest.mark.parametrize(
    ("model", "heading"),
    [
        ("gpt-4o-mini", "openai/gpt-4o-mini, litellm-"),
        ("anthropic/claude-haiku-4-5", "anthropic/claude-haiku-4-5, litellm-"),
        ("gemini/gemini-2.5-pro", "gemini/gemini-2.5-pro, litellm-"),
        ("claude-opus-4-8", "anthropic/claude-opus-4-8 at target fourth, litellm-"),
        ("odd", "openai/nobody-prices-it at target third: no price is known"),
        ("sora-2", "openai/sora-2, litellm-"),
    ],
)
def test_names_of_the_table_and_of_globs(config: Path, model: str, heading: str) -> None:
    status, out, _ = run(f"prices {model}", config)
    assert (status, out.startswith(heading)) == (0, True), out


def test_a_kind_is_shown_only_where_it_has_a_rate_of_its_own(config: Path) -> None:
    names = ("gpt-4o-mini", "anthropic/claude-haiku-4-5", "gemini/gemini-2.5-flash")
    headings = {model: run(f"prices {model}", config)[1].splitlines()[1] for model in names}
    assert "written" not in headings["gpt-4o-mini"]
    assert "1 h" in headings["anthropic/claude-haiku-4-5"]
    assert "audio in" in headings["gemini/gemini-2.5-flash"]


def test_an_unknown_name_is_answered_with_near_ones(config: Path) -> None:
    status, out, err = run("prices gpt-4o-minni", config)
    assert (status, out) == (1, "")
    assert "Nothing is known by the name 'gpt-4o-minni'. Near names: gpt-4o-mini," in err
    assert "such as gpt-4o-mini" in run("prices ~~~~", config)[2]


def test_how_far_counts_were_off_stands_beside(config: Path) -> None:
    assert run("db upgrade", config)[0] == 0
    engine = open_engine(f"sqlite:///{config.parent}/s.db")
    row = {"key": "openai/gpt-5.4", "samples": 40, "mean_ppm": 1_012_000, "worst_ppm": 1_150_000}
    with engine.begin() as connection:
        connection.execute(insert(token_errors), [row | {"changed_us": 1}])
    engine.dispose()
    assert "1.012, at worst 1.150 (40 answers)" in run("prices", config)[1]
    told = json.loads(run("prices mini --json", config)[1])[0]["token_error"]
    assert told == {"samples": 40, "mean": 1.012, "worst": 1.15}
