"""`llm-proxy init` and `check`: the starter checks out, nothing is overwritten, complaints are readable."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from llm_proxy.cli.check import approver_groups, check
from llm_proxy.cli.init import init
from llm_proxy.config import load_config
from llm_proxy.config.starter import StarterExists, write_starter
from llm_proxy.policy.cases import run_cases
from llm_proxy.policy.load import load_policy

KEY = "lp-a-key-of-the-tests-0001"
ENVIRON = {"OPENAI_API_KEY": "sk-upstream", "LLM_PROXY_CONFIG": "", "NO_COLOR": "1", "COLUMNS": "80"}

app = typer.Typer()
app.command()(init)
app.command()(check)


def run(*args: str, **environ: str) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    result = CliRunner().invoke(app, list(args), env=ENVIRON | environ)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_init_then_check_is_clean_with_only_the_upstream_key_set(tmp_path: Path) -> None:
    status, out, err = run("init", str(tmp_path / "new" / "dir"))
    assert (status, err) == (0, "")
    config = tmp_path / "new" / "dir" / "proxy.yaml"
    assert f"llm-proxy serve --config {config}" in out

    status, out, err = run("check", "--config", str(config))
    assert (status, err) == (0, "")
    for said in (
        "gpt-4o-mini",
        "triage-bot",
        "triage-daily, per-run, company-month",
        "starter version 1, enforce",
    ):
        assert said in out
    assert f"{config} is valid, with no warnings." in out


def test_the_starter_policys_own_tests_pass_and_hit_every_rule(tmp_path: Path) -> None:
    _, policy = write_starter(tmp_path, KEY)
    report = run_cases(load_policy(policy))
    assert report.passed, report


def test_the_key_that_init_prints_opens_the_starter_and_stands_in_no_file(tmp_path: Path) -> None:
    _, out, _ = run("init", str(tmp_path))
    key = re.findall(r"TRIAGE_BOT_KEY=(\S+)", out)[0]
    assert len(key) > 40
    config = load_config(tmp_path / "proxy.yaml", ENVIRON)
    assert config.agents["triage-bot"].keys[0].matches(key)
    assert not any(key in path.read_text("utf-8") for path in tmp_path.iterdir())
    _, again, _ = run("init", str(tmp_path / "other"))
    assert key not in again


@pytest.mark.parametrize("existing", [["proxy.yaml"], ["policy.yaml"], ["proxy.yaml", "policy.yaml"]])
def test_init_overwrites_nothing_and_says_what_exists(tmp_path: Path, existing: list[str]) -> None:
    for name in existing:
        (tmp_path / name).write_text("mine", "utf-8")
    status, out, err = run("init", str(tmp_path))
    assert (status, out) == (2, "")
    assert [line.split(":")[0] for line in err.splitlines()] == [str(tmp_path / name) for name in existing]
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == dict.fromkeys(
        existing, "mine"
    )


def test_init_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    status, _, err = run("init", str(tmp_path / "file"))
    assert status == 2
    assert f"{tmp_path / 'file'}: can't be written" in err


def test_a_broken_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "proxy.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(StarterExists):
        write_starter(tmp_path, KEY)
    assert not (tmp_path / "elsewhere.yaml").exists()


def test_without_the_upstream_key_check_says_so(tmp_path: Path) -> None:
    write_starter(tmp_path, KEY)
    status, out, err = run("check", "--config", str(tmp_path / "proxy.yaml"), OPENAI_API_KEY="")
    assert (status, out) == (2, "")
    assert "models.gpt-4o-mini.targets[0].api_key: needs the environment variable OPENAI_API_KEY" in err
    assert "1 error: nothing was started or changed." in err


def test_check_finds_the_config_of_the_environment_and_of_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run("check")
    assert status == 2
    assert "proxy.yaml:1:1: does not exist (no --config was given): run `llm-proxy init`" in err
    run("init")
    assert run("check")[0] == 0
    assert run("check", LLM_PROXY_CONFIG="gone.yaml")[0] == 2


def test_errors_are_one_line_each_however_narrow_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text("budgets: [{id: b, window: [bold], usd: 1}]\nmodls: {}\npolicy: gone\n", "utf-8")
    status, _, err = run("check", "--config", str(path), COLUMNS="20")
    assert status == 2
    lines = err.splitlines()
    assert [line.partition(str(path))[2].split(": ")[:2] for line in lines[:3]] == [
        [":1:19", "budgets[0].window"],
        [":2:1", "modls"],
        [":3:1", "policy"],
    ]
    assert lines[3] == "3 errors: nothing was started or changed."


def test_check_reports_the_policys_errors_in_the_same_form(tmp_path: Path) -> None:
    config, policy = write_starter(tmp_path, KEY)
    text = policy.read_text("utf-8")
    policy.write_text(text.replace("run.sensitivity >", "run.sensitivty >"), "utf-8")
    status, _, err = run("check", "--config", str(config))
    assert status == 2
    line = next(n for n, row in enumerate(text.splitlines(), 1) if "when:" in row)
    assert re.search(rf"^error: {re.escape(str(policy))}:{line}:\d+: rules\[0\]\.when: ", err, re.MULTILINE)


def test_check_reads_the_scripts_too(tmp_path: Path) -> None:
    path, script = tmp_path / "proxy.yaml", tmp_path / "demo.yaml"
    path.write_text("models: {m: {targets: [{id: t, provider: scripted, script: demo.yaml}]}}\n", "utf-8")
    script.write_text("modles: {}\n", "utf-8")
    status, _, err = run("check", "--config", str(path))
    assert status == 2
    assert f"error: {script}:1:1: modles: " in err


def test_check_as_json_is_that_json_alone(tmp_path: Path) -> None:
    config, policy = write_starter(tmp_path, KEY)
    status, out, err = run("check", "--json", "--config", str(config))
    assert (status, err) == (0, "")
    assert json.loads(out) == {"ok": True, "errors": [], "warnings": []}

    policy.unlink()
    status, out, err = run("check", "--json", "--config", str(config))
    assert (status, err) == (2, "")
    report = json.loads(out)
    assert report["ok"] is False
    (error,) = report["errors"]
    assert error["file"] == str(config)
    assert error["key"] == "policy"
    assert error["line"] == len(config.read_text("utf-8").splitlines())


def test_warnings_do_not_fail_a_check(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(
        "models: {home-made: {targets: [{id: t, provider: openai, base_url: 'http://127.0.0.1:1/v1'}]}}\n"
        "agents: {a: {models: [home-made, nothing]}}\n"
        "budgets: [{id: b, window: day, usd: 1}]\n",
        "utf-8",
    )
    status, out, err = run("check", "--config", str(path))
    assert status == 0
    assert "with 3 warnings" in out
    assert "no policy: tool calls are recorded" in err
    assert "'nothing' matches no model" in err
    assert "no price is known for 'home-made': calls under the usd limit 'b' are refused" in err


def test_the_groups_that_can_approve_have_an_approver(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(
        "operators:\n"
        "- {id: a, groups: [leads, all], roles: [approver]}\n"
        "- {id: b, groups: [readers, all], roles: [investigator]}\n",
        "utf-8",
    )
    assert approver_groups(load_config(path, {})) == {"leads", "all"}


def test_the_starters_hash_is_that_of_the_key(tmp_path: Path) -> None:
    config, _ = write_starter(tmp_path, KEY)
    assert f'"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"' in config.read_text("utf-8")
