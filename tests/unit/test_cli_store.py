"""Reading commands: they create nothing, say in one line what is wrong, and print JSON alone."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_proxy.cli.main import app

pytest_plugins = ["tests.postgres"]

ENVIRON = {"NO_COLOR": "1", "COLUMNS": "100", "LLM_PROXY_CONFIG": "", "LLM_PROXY_TOKEN": ""}
LISTINGS = ("runs list", "calls list", "refusals")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "proxy.yaml"
    path.write_text(
        f"store: sqlite:///{tmp_path}/s.db\n"
        "models: {m: {targets: [{id: t, provider: openai, base_url: 'http://127.0.0.1:9/v1', api_key: k}]}}\n"
        "agents: {triage-bot: {owner: team@example.com, keys: [a-key-of-sixteen-chars], models: [m]}}\n"
    )
    return path


def run(line: str, config: Path, *more: str) -> tuple[int, str, str]:
    """Exit status, stdout, stderr of a command with `--config` as its last argument."""
    result = CliRunner().invoke(app, [*line.split(), *more, "--config", str(config)], env=ENVIRON)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("listing", [*LISTINGS, "runs list --words x"])
def test_without_a_store_listings_are_empty_and_make_none(listing: str, config: Path) -> None:
    status, out, err = run(listing, config, "--json")
    assert (status, json.loads(out), err) == (0, [], "")
    status, out, err = run(listing, config)
    assert (status, out) == (0, "")
    assert len(err.splitlines()) == 1
    assert [path.name for path in config.parent.iterdir()] == ["proxy.yaml"]


def test_without_a_store_agents_and_keys_come_from_the_config(config: Path) -> None:
    status, out, _ = run("agents list", config, "--json")
    (agent,) = json.loads(out)
    assert status == 0
    assert (agent["id"], agent["keys"], agent["calls"], agent["last_seen_at"]) == ("triage-bot", 1, 0, None)
    _, out, _ = run("keys list", config, "--json")
    (key,) = json.loads(out)
    assert (key["source"], key["status"], key["agent_id"]) == ("config", "active", "triage-bot")
    assert "a-key-of-sixteen-chars" not in out
    status, out, _ = run("agents show triage-bot", config)
    assert status == 0
    assert "team@example.com" in out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("runs show nope", "No run 'nope' is recorded"),
        ("calls show nope", "No call 'nope' is recorded"),
        ("agents show triage-bto", "did you mean 'triage-bot'?"),
    ],
)
@pytest.mark.parametrize("made", [False, True])
def test_what_is_not_there_is_exit_1_and_one_line(
    command: str, said: str, config: Path, *, made: bool
) -> None:
    if made:
        assert run("db upgrade", config)[0] == 0
    status, out, err = run(command, config, "--json")
    assert (status, out) == (1, "")
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "command", ["runs list --limit 0", "runs list --limit x", "runs", "calls show", "nope"]
)
def test_wrong_usage_is_exit_2(command: str, config: Path) -> None:
    assert run(command, config)[0] == 2


def test_a_missing_or_broken_config_is_exit_2_with_file_and_line(tmp_path: Path) -> None:
    status, out, err = run("runs list", tmp_path / "gone.yaml")
    assert (status, out) == (2, "")
    assert "gone.yaml:1:1: does not exist" in err
    broken = tmp_path / "proxy.yaml"
    broken.write_text("modls: {}\n")
    status, _, err = run("agents list", broken)
    assert status == 2
    assert f"{broken}:1:1: modls" in err


def test_the_config_may_stand_before_the_command_and_in_the_environment(config: Path) -> None:
    before = CliRunner().invoke(app, ["--config", str(config), "agents", "list", "--json"], env=ENVIRON)
    assert json.loads(before.stdout)[0]["id"] == "triage-bot"
    environ = ENVIRON | {"LLM_PROXY_CONFIG": str(config)}
    named = CliRunner().invoke(app, ["agents", "list", "--json"], env=environ)
    assert named.stdout == before.stdout
    nearest = ["--config", "gone.yaml", "agents", "list", "--json", "--config", str(config)]
    assert CliRunner().invoke(app, nearest, env=ENVIRON).stdout == before.stdout


def test_a_file_that_is_no_database_is_said_in_one_line(config: Path) -> None:
    (config.parent / "s.db").write_text("not a database, " * 100)
    for command in ("runs list", "db status", "db upgrade"):
        status, out, err = run(command, config)
        assert (status, out) == (2, ""), command
        assert err.strip().endswith("file is not a database")
        assert len(err.splitlines()) == 1


def test_a_store_of_another_version_is_not_read_as_ours(config: Path) -> None:
    run("db upgrade", config)
    with sqlite3.connect(config.parent / "s.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    status, _, err = run("runs list", config)
    assert status == 2
    assert "revision 9999" in err
    status, out, _ = run("db status", config, "--json")
    assert (status, json.loads(out)["current"]) == (1, False)
    status, _, err = run("db upgrade", config)
    assert status == 2
    assert "run the version that made it" in err


def test_db_status_before_and_after_upgrade(config: Path) -> None:
    status, out, _ = run("db status", config, "--json")
    assert (status, json.loads(out)["revision"]) == (1, None)
    assert not (config.parent / "s.db").exists()
    status, out, _ = run("db upgrade", config, "--json")
    made = json.loads(out)
    assert (status, made["current"], made["revision"]) == (0, True, made["newest"])
    status, out, _ = run("db status", config)
    assert status == 0
    assert "up to date" in out


def test_reading_changes_no_byte_of_a_store_that_is_locked_for_writing(config: Path) -> None:
    run("db upgrade", config)
    store = config.parent / "s.db"
    connection = sqlite3.connect(store, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    before = store.read_bytes()
    for listing in LISTINGS:
        assert run(listing, config, "--json")[0] == 0
    connection.execute("ROLLBACK")
    connection.close()
    assert store.read_bytes() == before


def test_a_postgresql_that_is_away_is_one_line_without_its_password(config: Path) -> None:
    text = config.read_text().replace(
        f"sqlite:///{config.parent}/s.db", "postgresql://u:hidden-pw@127.0.0.1:9/db?password=hidden-pw"
    )
    config.write_text(text)
    for command in ("runs list", "db status", "db upgrade"):
        status, out, err = run(command, config)
        assert (status, out, len(err.splitlines())) == (2, "", 1), err
        assert "postgresql://127.0.0.1/db can't be" in err
        assert "hidden-pw" not in err


def test_listings_read_postgresql_too(config: Path, postgres_url: str) -> None:
    config.write_text(config.read_text().replace(f"sqlite:///{config.parent}/s.db", postgres_url))
    status, out, _ = run("runs list", config, "--json")
    assert (status, json.loads(out)) == (0, [])
    assert run("db status", config)[0] == 1
    assert run("db upgrade", config)[0] == 0
    assert run("db status", config)[0] == 0
    for listing in LISTINGS:
        status, out, _ = run(listing, config, "--json")
        assert (status, json.loads(out)) == (0, [])
