"""`llm-proxy import litellm` on a command line: what goes where, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.config import load_config
from tests.unit.litellm_import import CONFIGS

TEAM = str(CONFIGS / "team.yaml")
KEYS = str(CONFIGS / "keys.json")
ENVIRON = {
    "AZURE_API_KEY": "azure-key",
    "ANTHROPIC_API_KEY": "anthropic-key",
    "LITELLM_MASTER_KEY": "a-master-key-of-the-tests",
    "LLM_PROXY_IMPORTED_KEY_1": "sk-the-literal-one",
    "AGENT_KEY": "lp-a-key-of-the-tests-0001",
}


def run(*args: str) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    result = CliRunner().invoke(app, ["import", "litellm", *args], env={"NO_COLOR": "1"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_config_goes_to_stdout_and_the_report_to_stderr(tmp_path: Path) -> None:
    status, out, err = run(TEAM)
    assert status == 0
    path = tmp_path / "proxy.yaml"
    path.write_text(out)
    assert list(load_config(path, ENVIRON).models) == ["gpt-4o", "claude-sonnet"]
    lines = err.splitlines()
    assert f"{TEAM}:3: exact       model_list[0].model_name -> models.gpt-4o" in lines
    assert lines[-1] == "15 exact, 9 approximate, 4 unsupported."
    assert "sk-live-7f3a9b" not in out + err


def test_out_writes_a_file_and_overwrites_none(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    status, out, err = run(TEAM, "--keys", KEYS, "--out", str(path))
    assert (status, out) == (0, "")
    assert err.splitlines()[-1] == f"Wrote {path}. Next: llm-proxy check --config {path}"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(load_config(path, ENVIRON).agents) == ["triage-bot"]

    path.write_text("mine")
    status, out, err = run(TEAM, "--out", str(path))
    assert (status, out) == (2, "")
    assert err == f"{path}: exists already, and nothing is overwritten: name another file, or move it\n"
    assert path.read_text() == "mine"


def test_json_is_one_object_alone(tmp_path: Path) -> None:
    path = tmp_path / "proxy.yaml"
    status, out, err = run(TEAM, "--json", "--out", str(path))
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert set(answer) == {"config", "report", "counts"}
    assert answer["config"] == path.read_text()
    assert answer["counts"] == {"exact": 15, "approximate": 9, "unsupported": 4}
    assert answer["report"][5] == {
        "file": TEAM,
        "line": 9,
        "field": "model_list[0].litellm_params.rpm",
        "verdict": "approximate",
        "became": "models.gpt-4o.targets[0].rpm",
        "note": "here no more is sent; there it is a share of the traffic, or a hint",
    }


def test_the_guide_shows_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "migrating-from-litellm.md").read_text()
    monkeypatch.chdir(tmp_path)
    for source, name in ((TEAM, "config.yaml"), (KEYS, "keys.json")):
        text = Path(source).read_text()
        Path(name).write_text(text)
        assert text in guide
    status, out, err = run("config.yaml", "--keys", "keys.json")
    assert status == 0
    assert out in guide
    assert err in guide


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "config.yaml:1:1: can't be read: No such file or directory"),
        ("a: [\n", "config.yaml:2:1: is not valid YAML"),
        ("model_list: []\nmodel_list: []\n", "config.yaml:2:1: model_list: is written twice"),
        ("hello: world\n", "config.yaml:1:1: is no config of LiteLLM's proxy"),
    ],
)
def test_a_config_that_can_not_be_used(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text)
    status, out, err = run(str(path), "--out", str(tmp_path / "proxy.yaml"))
    assert (status, out) == (2, "")
    assert err.startswith(f"{tmp_path}/{said}")
    assert not (tmp_path / "proxy.yaml").exists()


def test_keys_that_can_not_be_used(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert run(TEAM, "--keys", str(path)) == (
        2,
        "",
        f"{path}:1:1: can't be read: No such file or directory\n",
    )
    path.write_bytes(b"\xff")
    assert run(TEAM, "--keys", str(path)) == (2, "", f"{path}:1:1: is not UTF-8: save it as UTF-8\n")
    path.write_text("no")
    status, out, err = run(TEAM, "--keys", str(path))
    assert (status, out) == (2, "")
    assert err.startswith(f"{path}:1:1: is not valid JSON")


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    status, _, err = run(TEAM, "--out", str(tmp_path / "no" / "proxy.yaml"))
    assert (status, err) == (2, f"{tmp_path}/no/proxy.yaml: can't be written: No such file or directory\n")
