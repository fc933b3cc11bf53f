"""`llm-proxy routes` on a real store: each target's line, and where a call would go and why."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.records import fleet_rows
from llm_proxy.records.engine import open_engine
from llm_proxy.records.fleet_rows import BreakerDraft, BreakerRow, TargetRow
from llm_proxy.records.ids import now_us

pytest_plugins = ["tests.postgres"]

ENVIRON = {"NO_COLOR": "1", "COLUMNS": "200", "LLM_PROXY_CONFIG": "", "LLM_PROXY_TOKEN": ""}
HOUR_US = 3_600_000_000


def target(id_: str, **more: Any) -> dict[str, Any]:
    return {"id": id_, "provider": "openai", "model": "x", "base_url": "http://127.0.0.1:9/v1"} | more


CONFIG: dict[str, Any] = {
    "models": {
        "m": {
            "targets": [
                target("first", rpm=60, tpm=90_000, concurrency=8),
                target("second", api_keys=["sk-one", "sk-two"]),
            ],
            "fallbacks": ["spare"],
        },
        "spare": {"targets": [target("third")]},
        "team-*": {"targets": [target("fourth", model="*")]},
    },
    "agents": {"bot": {"keys": ["a-key-of-sixteen-chars"], "models": ["*"]}},
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


def cells(out: str) -> list[list[str]]:
    """A table's rows, its heading first, as words that two blanks part."""
    return [re.split(r" {2,}", line) for line in out.splitlines()]


def fill(config: Path, url: str | None = None) -> None:
    """`first` is busy, `second` lost an API key, `third` is open for an hour."""
    assert run("db upgrade", config)[0] == 0
    now = now_us()
    engine = open_engine(url or f"sqlite:///{config.parent}/s.db")
    opened = [("second#1", "auth"), ("third", "rate_limited")]
    drafts = [
        BreakerDraft(BreakerRow(key, now + HOUR_US, kind, now, "w1"))
        for key, kind in (*opened, ("nobody's", "cut"))
    ]
    row = TargetRow("first", "w1", now + 2_000_000, 3, 12, 4_000, 200, 5, "overloaded", now, 410_000, 0)
    fleet_rows.write(engine, drafts, [row])
    engine.dispose()


def test_without_a_store_targets_stand_there_without_traffic_and_none_is_made(config: Path) -> None:
    status, out, err = run("routes", config)
    assert (status, err) == (0, "")
    assert [line[:3] for line in cells(out)] == [
        ["model", "target", "provider"],
        ["m", "first", "openai"],
        ["m", "second", "openai"],
        ["spare", "third", "openai"],
        ["team-*", "fourth", "openai"],
    ]
    told = json.loads(run("routes --json", config)[1])
    assert {line["state"] for line in told} == {"closed"}
    assert told[0] == {
        "target": "first",
        "model": "m",
        "provider": "openai",
        "sent_model": "x",
        "state": "closed",
        "open_until_us": None,
        "open_until_at": None,
        "open_for_s": None,
        "after": "",
        "api_keys": [],
        "requests": 0,
        "rpm": 60,
        "tokens": 0,
        "tpm": 90_000,
        "in_flight": 0,
        "concurrency": 8,
        "whole_s": None,
        "streamed_s": None,
        "attempts": 0,
        "failures": 0,
        "last_failure": "",
        "last_failure_us": None,
        "last_failure_at": None,
    }
    assert run("routes explain m", config)[0] == 0
    assert [path.name for path in config.parent.iterdir()] == ["proxy.yaml"]


def test_what_the_processes_told_is_shown(config: Path) -> None:
    fill(config)
    _, out, _ = run("routes", config)
    first = next(line for line in out.splitlines() if " first " in line)
    for part in (
        "closed",
        "12 of 60",
        "4,000 of 90,000",
        "3 of 8",
        "0.41 s",
        "5 of 200 (2%), overloaded ",
    ):
        assert part in first
    assert first.endswith(" s ago")
    assert "open for 60 min after rate_limited" in next(
        line for line in out.splitlines() if " third " in line
    )
    assert "key 1 open for 60 min after auth" in out
    assert "nobody's" not in out
    by_id = {line["target"]: line for line in json.loads(run("routes --json", config)[1])}
    assert [key["state"] for key in by_id["second"]["api_keys"]] == ["open", "closed"]
    assert by_id["second"]["state"] == "closed"
    assert (by_id["third"]["state"], by_id["third"]["after"]) == ("open", "rate_limited")
    assert by_id["third"]["open_until_at"].endswith("Z")
    assert 3_590 < by_id["third"]["open_for_s"] <= 3_600


def test_listings_are_narrowed_by_number_and_model(config: Path) -> None:
    def ids(line: str) -> list[str]:
        return [found["target"] for found in json.loads(run(f"{line} --json", config)[1])]

    assert ids("routes --limit 2") == ["first", "second"]
    assert ids("routes --model m") == ["first", "second", "third"]
    assert ids("routes --model team-blue") == ["fourth"]
    assert run("routes --model nope", config)[0] == 1


def test_explain_says_what_would_be_asked_and_why(config: Path) -> None:
    fill(config)
    status, out, err = run("routes explain m", config)
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == "A call for m: strategy ordered, runs stay with their target."
    assert cells(out)[2:] == [
        ["1", "first", "m", "openai", "first in the list"],
        ["2", "second", "m", "openai", "second in the list; 1 of 2 API keys rest"],
        ["", "third", "spare", "openai", "passed over: open for 60 min after rate_limited"],
    ]


def test_a_model_that_nobody_answers_now_says_when(config: Path) -> None:
    fill(config)
    status, out, _ = run("routes explain spare", config)
    assert status == 0
    assert out.splitlines()[-1] == "No target may be asked now; the first may be asked in 60 min."
    shown = json.loads(run("routes explain spare --json", config)[1])
    assert 3_590 < shown["wait_s"] <= 3_600
    assert [(t["turn"], t["standing"]) for t in shown["targets"]] == [(None, "passed_over")]


def test_the_demand_is_what_was_asked(config: Path) -> None:
    line = "routes explain team-blue --run r --agent bot --tokens 1200 --stream"
    status, out, _ = run(line, config)
    assert status == 0
    assert out.startswith(
        "A call for team-blue of run r, agent bot, with a prompt of 1,200 tokens, streamed: strategy ordered"
    )
    shown = json.loads(run(f"{line} --json", config)[1])
    assert shown["route"] == "team-*"
    assert shown["targets"][0]["sent_model"] == "team-blue"
    assert (shown["agent_id"], shown["run_id"], shown["tokens"], shown["stream"]) == ("bot", "r", 1200, True)
    assert (shown["counted"], shown["wait_s"]) == (False, 0)


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("routes explain spair", 1, "No model 'spair' is configured: did you mean 'spare'?"),
        ("routes explain zzz", 1, "No model 'zzz' is configured: known are m, spare, team-*"),
        ("routes explain m --run r", 2, "Run 'r' is not recorded: name the agent"),
        ("routes explain m --tokens -1", 2, "--tokens"),
        ("routes explain", 2, "MODEL"),
    ],
)
def test_what_is_asked_wrongly(line: str, status: int, said: str, config: Path) -> None:
    answer = run(line, config)
    assert answer[:2] == (status, "")
    assert said in answer[2]


def test_a_run_that_was_never_recorded_is_not_found(config: Path) -> None:
    fill(config)
    status, _, err = run("routes explain m --run r", config)
    assert status == 1
    assert "No run 'r' is recorded" in err


def test_the_config_may_stand_before_the_command_and_between(config: Path) -> None:
    for words in (
        ["--config", str(config), "routes", "--json"],
        ["--config", str(config), "routes", "explain", "m", "--json"],
        ["routes", "--config", str(config), "explain", "m", "--json"],
    ):
        result = CliRunner().invoke(app, words, env=ENVIRON)
        assert result.exit_code == 0, words
        assert '"first"' in result.stdout


def test_postgresql_tells_the_same(config: Path, postgres_url: str) -> None:
    config.write_text(json.dumps(CONFIG | {"store": postgres_url}))
    fill(config, postgres_url)
    by_id = {line["target"]: line for line in json.loads(run("routes --json", config)[1])}
    assert [(id_, line["state"], line["requests"]) for id_, line in by_id.items()] == [
        ("first", "closed", 12),
        ("second", "closed", 0),
        ("third", "open", 0),
        ("fourth", "closed", 0),
    ]
    assert "open for 60 min after rate_limited" in run("routes explain m", config)[1]
