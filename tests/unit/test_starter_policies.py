"""The starter policies load without a warning, pass their own tests, and are explained rule by rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from llm_proxy.cli.check import approver_groups, examine
from llm_proxy.cli.init import init
from llm_proxy.config.starter import STARTERS, write_starter
from llm_proxy.policy.cases import run_cases
from llm_proxy.policy.load import load_policy

KEY = "lp-a-key-of-the-tests-0001"
ENVIRON = {"OPENAI_API_KEY": "sk-upstream", "NO_COLOR": "1", "COLUMNS": "80"}
DOCS = Path(__file__).parents[2] / "docs" / "policies"

app = typer.Typer()
app.command()(init)


@pytest.mark.parametrize("name", STARTERS)
def test_it_checks_out_and_its_tests_hit_every_rule(name: str, tmp_path: Path) -> None:
    starter = STARTERS[name]
    tokens = [f"{KEY}-{n}" for n in range(len(starter.approvers))]
    config, _ = write_starter(tmp_path, KEY, starter, tokens)
    report = examine(config, ENVIRON)
    serious = [warning for warning in report.warnings if "in this release" not in warning.message]
    assert (report.errors, serious) == ((), [])
    assert report.policy is not None
    assert report.config is not None
    cases = run_cases(report.policy)
    assert cases.passed, [result for result in cases.results if not result.passed]
    assert len(report.policy.tools) in range(8, 16)
    assert all(tool.schema is not None for tool in report.policy.tools.values())
    assert all(rule.why and rule.tell_model for rule in report.policy.file.rules)
    groups = {who for a in report.policy.file.approvals.values() for who in a.approvers}
    assert {group.removeprefix("group:") for group in groups} == approver_groups(report.config)


@pytest.mark.parametrize("name", STARTERS)
def test_enough_people_may_approve(name: str, tmp_path: Path) -> None:
    policy = load_policy(
        write_starter(tmp_path, KEY, STARTERS[name], [KEY] * len(STARTERS[name].approvers))[1]
    )
    assert max(a.quorum for a in policy.file.approvals.values()) <= len(STARTERS[name].approvers)


@pytest.mark.parametrize("name", STARTERS)
def test_its_page_names_every_rule(name: str, tmp_path: Path) -> None:
    page = (DOCS / f"{name}.md").read_text()
    tokens = [KEY] * len(STARTERS[name].approvers)
    file = load_policy(write_starter(tmp_path, KEY, STARTERS[name], tokens)[1]).file
    ids = [rule.id for rule in (*file.rules, *file.sequence, *file.redact, *file.caps.sums)]
    assert [id_ for id_ in ids if f"`{id_}`" not in page] == []


def test_init_writes_it_with_fresh_keys_that_stand_in_no_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path), "--policy", "finance"], env=ENVIRON)
    assert result.exit_code == 0, result.stderr
    secrets = re.findall(r"(?:KEY|TOKEN)=(lp-\S+)", result.stdout)
    assert len(set(secrets)) == 3
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert not any(secret in written for secret in secrets)
    config = examine(tmp_path / "proxy.yaml", ENVIRON).config
    assert config is not None
    assert config.agents["payables-bot"].keys[0].matches(secrets[0])
    tokens = [operator.token for operator in config.operators]
    assert all(token and token.matches(secret) for token, secret in zip(tokens, secrets[1:], strict=True))
    assert [operator.groups for operator in config.operators] == [("finance",), ("finance",)]


def test_init_knows_the_names(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "x"), "--policy", "finanse"], env=ENVIRON)
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "did you mean 'finance'?" in result.stderr
