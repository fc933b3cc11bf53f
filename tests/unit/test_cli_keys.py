"""Keys: durations, issuing and revoking where no proxy runs, and what the record says of it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from llm_proxy.cli.change import address
from llm_proxy.cli.main import app
from llm_proxy.config import load_config
from llm_proxy.identity.issuing import LONGEST_TTL_US, parse_ttl
from llm_proxy.identity.keyring import hash_key
from tests.proxy import free_port

pytest_plugins = ["tests.postgres"]

TOKEN = "an-admin-token-0123456789"
CONFIG = """
server: {{port: {port}, admin_token: {token}}}
store: {store}
models: {{m: {{targets: [{{id: t, provider: openai, base_url: "http://127.0.0.1:9/v1", api_key: k}}]}}}}
agents: {{triage-bot: {{keys: [a-key-of-sixteen-chars], models: [m]}}}}
operators: [{{id: dana@example.com, roles: [admin], token: an-operators-token-0123}}]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "proxy.yaml"
    store = f"sqlite:///{tmp_path}/s.db"
    path.write_text(CONFIG.format(port=free_port(), token=TOKEN, store=store))
    return path


@pytest.fixture
def httpd() -> Iterator[int]:
    """The port of a web server that is no proxy."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def run(line: str, config: Path, token: str = TOKEN) -> tuple[int, str, str]:
    environ = {"NO_COLOR": "1", "COLUMNS": "100", "LLM_PROXY_CONFIG": "", "LLM_PROXY_TOKEN": token}
    result = CliRunner().invoke(app, [*line.split(), "--config", str(config)], env=environ)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def events(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Kinds and bodies of the governance records, in order."""
    with sqlite3.connect(folder / "s.db") as connection:
        query = "SELECT kind, body FROM records WHERE kind <> 'writer.started' ORDER BY at_us, seq"
        rows = connection.execute(query).fetchall()
    connection.close()
    return [(kind, json.loads(body)) for kind, body in rows]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604_800), (" 1s ", 1), ("3650d", 315_360_000)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_ttl(text) == seconds * 1_000_000


@given(st.text() | st.from_regex(r"\A[0-9]{1,12}[smhdw]?\Z"))
def test_anything_else_is_no_duration_and_none_is_endless(text: str) -> None:
    us = 0
    with contextlib.suppress(ValueError):
        us = parse_ttl(text)
        assert us > 0
    assert us <= LONGEST_TTL_US


def test_a_key_is_alone_on_stdout_and_only_its_hash_is_kept(config: Path) -> None:
    status, out, err = run("keys issue triage-bot --ttl 1h --run run-7", config)
    key = out.strip()
    assert status == 0
    assert key.startswith("lp-")
    assert len(out.split()) == 1
    assert "of agent triage-bot, for run run-7 only, is good until" in err
    stored = b"".join(path.read_bytes() for path in config.parent.iterdir())
    assert key.encode() not in stored
    assert hash_key(key).encode() in stored
    ((kind, body),) = events(config.parent)
    assert kind == "key.issued"
    assert (body["agent_id"], body["run_id"], body["by"], body["via"]) == (
        "triage-bot",
        "run-7",
        "admin_token",
        "cli-offline",
    )
    assert hash_key(key) not in json.dumps(body)


def test_issued_listed_revoked_and_revoked_once(config: Path) -> None:
    status, out, _ = run("keys issue triage-bot --json", config)
    issued = json.loads(out)
    assert status == 0
    assert issued["id"].startswith("key_")
    assert len(issued["id"]) == 16
    assert issued["expires_us"] is None
    listed = json.loads(run("keys list --json", config)[1])
    assert (listed[0]["id"], listed[0]["status"]) == (issued["id"], "active")
    assert "key" not in listed[0]

    status, out, _ = run(f"keys revoke {issued['id']} --json", config)
    first = json.loads(out)
    assert (status, first["status"]) == (0, "revoked")
    again = json.loads(run(f"keys revoke {issued['id']} --json", config)[1])
    assert again["revoked_us"] == first["revoked_us"]
    assert [kind for kind, _ in events(config.parent)] == ["key.issued", "key.revoked"]
    assert json.loads(run("keys list --agent triage-bot --json", config)[1])[0]["status"] == "revoked"


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("keys issue triage-bto", 1, "did you mean 'triage-bot'?"),
        ("keys issue triage-bot --ttl 1w", 2, "write it as 90s, 15m, 1h or 7d"),
        (f"keys issue triage-bot --run {'x' * 300}", 2, "over 256 characters"),
        ("keys revoke key_000000000000", 1, "No key 'key_000000000000' was issued here"),
        ("keys revoke cfg-{digest}", 2, "stands in proxy.yaml"),
        ("keys issue triage-bot --url http://127.0.0.1:{port}", 2, "No proxy runs at"),
        ("keys issue triage-bot --url nonsense", 2, "is no address of a proxy"),
    ],
)
def test_what_can_not_be_done_is_said_and_recorded_nowhere(
    command: str, status: int, said: str, config: Path
) -> None:
    digest = hash_key("a-key-of-sixteen-chars")[:8]
    result = run(command.format(port=free_port(), digest=digest), config)
    assert result[:2] == (status, "")
    assert said in result[2]
    assert len(result[2].splitlines()) == 1
    if (config.parent / "s.db").exists():
        assert events(config.parent) == []


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "Set $LLM_PROXY_TOKEN"),
        ("wrong", "which $LLM_PROXY_TOKEN is not"),
        ("an-operators-token-0123", "which $LLM_PROXY_TOKEN is not"),
        ("a-key-of-sixteen-chars", "which $LLM_PROXY_TOKEN is not"),
    ],
)
def test_without_a_proxy_only_the_admin_token_acts(token: str, said: str, config: Path) -> None:
    status, out, err = run("keys issue triage-bot", config, token)
    assert (status, out) == (2, "")
    assert said in err
    assert token == "" or token not in err
    assert not (config.parent / "s.db").exists()


def test_a_config_without_an_admin_token_says_so(config: Path) -> None:
    config.write_text(config.read_text().replace(TOKEN, '""'))
    status, _, err = run("keys issue triage-bot", config, "any")
    assert status == 2
    assert "takes server.admin_token, which the config lacks" in err


def test_what_answers_but_is_no_proxy_is_not_taken_for_one(config: Path, httpd: int) -> None:
    status, _, err = run(f"keys issue triage-bot --url http://127.0.0.1:{httpd}", config)
    assert status == 2
    assert "is not llm-proxy" in err


def test_a_locked_store_is_one_line(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_proxy.records.engine.BUSY_MS", 50)
    run("db upgrade", config)
    connection = sqlite3.connect(config.parent / "s.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    status, out, err = run("keys issue triage-bot", config)
    connection.close()
    assert (status, out) == (2, "")
    assert err == f"The store {config.parent}/s.db can't be written: database is locked\n"


def test_on_postgresql_too(config: Path, postgres_url: str) -> None:
    config.write_text(CONFIG.format(port=free_port(), token=TOKEN, store=postgres_url))
    status, out, err = run("keys issue triage-bot --ttl 7d --json", config)
    assert status == 0, err
    issued = json.loads(out)
    assert run(f"keys revoke {issued['id']}", config)[0] == 0
    listed = json.loads(run("keys list --json", config)[1])
    assert (listed[0]["id"], listed[0]["status"]) == (issued["id"], "revoked")


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:4000"), ("::", "http://[::1]:4000"), ("10.0.0.7", "http://10.0.0.7:4000")],
)
def test_the_address_of_a_proxy_that_listens_everywhere(host: str, url: str, config: Path) -> None:
    config.write_text(f"server: {{host: '{host}'}}\n")
    assert address(load_config(config, {})) == url


def test_rotated_with_an_overlap(config: Path) -> None:
    old = json.loads(run("keys issue triage-bot --json", config)[1])
    soon = json.loads(run("keys issue triage-bot --ttl 90s --json", config)[1])
    status, out, err = run("keys rotate triage-bot --overlap 2h --ttl 7d", config)
    assert status == 0
    assert out.startswith("lp-")
    assert len(out.split()) == 1
    digest = hash_key("a-key-of-sixteen-chars")[:8]
    assert "is good until" in err
    assert f"Not changed: cfg-{digest}, in the config." in err
    listed = {key["id"]: key for key in json.loads(run("keys list --json", config)[1])}
    new = next(
        key
        for key in listed.values()
        if key["source"] == "issued" and key["id"] not in (old["id"], soon["id"])
    )
    assert new["expires_us"] - new["created_us"] == 7 * 86_400 * 1_000_000
    assert listed[old["id"]]["expires_us"] - new["created_us"] == 7_200_000_000
    assert listed[soon["id"]]["expires_us"] == soon["expires_us"]
    kind, body = events(config.parent)[-1]
    assert (kind, body["key_id"], body["others_expire_us"]) == (
        "key.changed",
        new["id"],
        listed[old["id"]]["expires_us"],
    )
    assert (body["by"], body["via"]) == ("admin_token", "cli-offline")

    ended = json.loads(run("keys rotate triage-bot --overlap 0s --json", config)[1])
    listed = {key["id"]: key["status"] for key in json.loads(run("keys list --json", config)[1])}
    assert [listed[id_] for id_ in (old["id"], soon["id"], new["id"], ended["id"])] == ["expired"] * 3 + [
        "active"
    ]


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("keys rotate triage-bto", 1, "did you mean 'triage-bot'?"),
        ("keys rotate triage-bot --overlap soon", 2, "overlap: 'soon' is no duration"),
        ("agents freeze triage-bto --reason x", 1, "did you mean 'triage-bot'?"),
        ("agents thaw nobody", 1, "No agent is named 'nobody'"),
        (f"agents freeze triage-bot --reason {'x' * 501}", 2, "over 500 characters"),
    ],
)
def test_what_can_not_be_changed_is_recorded_nowhere(
    command: str, status: int, said: str, config: Path
) -> None:
    result = run(command, config)
    assert result[:2] == (status, "")
    assert said in result[2]
    if (config.parent / "s.db").exists():
        assert events(config.parent) == []


def test_frozen_shown_and_thawed(config: Path) -> None:
    status, out, _ = run("agents freeze triage-bot --reason loops", config)
    assert status == 0
    assert out.startswith("Agent triage-bot is frozen since ")
    assert out.endswith("by admin_token: loops\n")
    again = json.loads(run("agents freeze triage-bot --reason later --json", config)[1])
    assert (again["changed"], again["reason"]) == (False, "loops")
    assert "frozen before" in run("agents freeze triage-bot --reason later", config)[1]
    (line,) = json.loads(run("agents list --json", config)[1])
    assert (line["frozen"], line["frozen_by"], line["frozen_reason"], line["keys"]) == (
        True,
        "admin_token",
        "loops",
        1,
    )
    assert "frozen" in run("agents list", config)[1]
    assert "by admin_token: loops" in run("agents show triage-bot", config)[1]
    assert run("agents thaw triage-bot --reason mended", config)[1] == "Agent triage-bot is thawed.\n"
    assert run("agents thaw triage-bot", config)[1] == "Agent triage-bot was not frozen.\n"
    assert not json.loads(run("agents show triage-bot --json", config)[1])["frozen"]
    assert [(kind, body["reason"], body["by"], body["via"]) for kind, body in events(config.parent)] == [
        ("agent.frozen", "loops", "admin_token", "cli-offline"),
        ("agent.thawed", "mended", "admin_token", "cli-offline"),
    ]
