"""Spend, budgets and reconcile on a real proxy: the command line and /admin say the same, and it adds up."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers

ADMIN = "an-admin-token-0123456789"
SPEND_READER = "spend-reader-token-012345"
APPROVER = "an-approver-token-0123456"
SCRIPT = """
default:
  turns:
    - when: {turn: 0}
      usage: {input: 100, output: 11}
      tool_calls:
        - {name: search, arguments: {q: a}, id: call_1}
        - {name: pay, arguments: {id: b}, id: call_2}
    - {text: Done., usage: {input: 100, output: 11}}
"""
COST = 100 + 2 * 11
"""Micro-dollars of one call."""
SETTINGS: dict[str, Any] = {
    "server": {"admin_token": ADMIN, "drain_s": 1},
    "operators": [
        {"id": "fin@example.com", "roles": ["spend-reader"], "token": SPEND_READER},
        {"id": "app@example.com", "roles": ["approver"], "token": APPROVER},
    ],
    "agents": {
        "bot": {"team": "crew", "keys": [KEY], "models": ["*"]},
        "other": {"team": "ops", "keys": [OTHER_KEY], "models": ["*"]},
    },
    "budgets": [
        {"id": "everyone", "window": "lifetime", "usd": 100, "requests": 1_000},
        {"id": "each", "agent": "*", "window": "day", "usd": 1, "tokens": 10_000},
        {"id": "user", "user": "*", "window": "month", "requests": 4, "on_exceed": "warn"},
        {"id": "tag", "tag": "env=*", "window": "7d", "tokens": 1_000},
        {"id": "run", "agent": "*", "window": "run", "requests": 3, "tool_calls": 9},
        {"id": "now", "agent": "bot", "concurrency": 4},
    ],
}


class Desk:
    """The command line and /admin of one proxy."""

    def __init__(self, proxy: ProxyProcess, http: aiohttp.ClientSession, folder: Path) -> None:
        self.proxy = proxy
        self._http = http
        self._config = folder / "proxy.yaml"

    async def call(self, key: str, **named: str) -> int:
        async with self._http.post(self.proxy.url, json=ask(), headers=headers(key, **named)) as reply:
            await reply.read()
            return reply.status

    async def cli(self, *words: str) -> tuple[int, str, str]:
        command = [*words, "--config", str(self._config)]
        environ = {"NO_COLOR": "1", "COLUMNS": "200"}
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    async def told(self, *words: str) -> Any:
        status, out, err = await self.cli(*words, "--json")
        assert (status, err) == (0, ""), (words, err)
        return json.loads(out)

    async def admin(self, path: str, token: str = SPEND_READER) -> tuple[int, str]:
        sent = {"authorization": f"Bearer {token}"}
        async with self._http.get(f"{self.proxy.origin}/admin{path}", headers=sent) as reply:
            return reply.status, await reply.text()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Six calls of two agents, and one that its run's budget refused."""
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(upstream.base_url, **SETTINGS)
        async with ProxyProcess(tmp_path, settings) as proxy, aiohttp.ClientSession() as http:
            desk = Desk(proxy, http, tmp_path)
            for number in range(4):
                status = await desk.call(KEY, x_run_id="r1", x_user_id="ada", x_tags="env=prod,nightly")
                assert status == (200 if number < 3 else 429)
            for number in range(3):
                assert await desk.call(OTHER_KEY, x_run_id=f"o{number}", x_tags="=cmd()") == 200
            await proxy.settled()
            yield desk


def _rows(told: dict[str, Any], *by: str) -> dict[tuple[str, ...], dict[str, Any]]:
    return {tuple(row[group] for group in by): row for row in told["rows"]}


async def test_spend_is_what_the_ledger_counted_by_every_group(desk: Desk) -> None:
    ledger = desk.proxy.used("everyone", "micro_usd")
    assert ledger == 6 * COST
    for by in (
        "agent",
        "team",
        "user",
        "run",
        "model",
        "target",
        "provider",
        "tag",
        "tag:env",
        "day",
        "week",
        "tool",
    ):
        told = await desk.told("spend", "--by", by)
        assert told["total"]["cost_micro_usd"] == ledger, by
        assert sum(row["cost_micro_usd"] for row in told["rows"]) == ledger
        assert told["total"]["requests"] == 7
        status, twin = await desk.admin(f"/spend?by={by}")
        assert (status, json.loads(twin)) == (200, told)
    rows = _rows(await desk.told("spend", "--by", "agent,user"), "agent", "user")
    bot = rows["bot", "ada"]
    assert (bot["requests"], bot["refused"], bot["input_tokens"], bot["output_tokens"]) == (4, 1, 300, 33)
    assert (bot["tokens"], bot["cost_usd"]) == (333, 3 * COST / 1e6)
    assert rows["other", ""]["requests"] == 3
    tools = _rows(await desk.told("spend", "--by", "tool"), "tool")
    assert {tool: row["tool_calls"] for (tool,), row in tools.items()} == {"search": 6, "pay": 6, "": 0}
    assert tools["search",]["cost_micro_usd"] == tools["pay",]["cost_micro_usd"] == 3 * COST
    assert (tools["",]["cost_micro_usd"], tools["",]["refused"]) == (0, 1)


async def test_filters_limits_and_comparisons(desk: Desk) -> None:
    told = await desk.told("spend", "--agent", "bot", "--tag", "nightly")
    assert (told["total"]["requests"], len(told["rows"])) == (4, 1)
    told = await desk.told("spend", "--by", "run", "--limit", "1")
    assert (len(told["rows"]), told["left_out"], told["total"]["cost_micro_usd"]) == (1, 3, 6 * COST)
    told = await desk.told("spend", "--since", "1h", "--compare")
    (first, *_) = told["rows"]
    assert (first["cost_before_micro_usd"], first["change_micro_usd"], first["change_percent"]) == (
        0,
        3 * COST,
        None,
    )
    told = await desk.told("spend", "--until", "2020-01-01")
    assert (told["rows"], told["total"]["requests"], told["until_at"]) == ([], 0, "2020-01-01T00:00:00.000Z")
    for words in (
        ["--by", "agnet"],
        ["--since", "soon"],
        ["--compare"],
        ["--format", "focus", "--by", "day"],
    ):
        status, out, err = await desk.cli("spend", *words)
        assert (status, out) == (2, ""), words
        assert err
    for path in ("/spend?by=agnet", "/spend?since=soon", "/spend?limit=0", "/spend?format=focus&run=r"):
        status, answer = await desk.admin(path)
        assert status == 400, path
        assert json.loads(answer)["error"]["code"] == "invalid_request"


async def test_tables_and_csv_and_focus(desk: Desk) -> None:
    status, out, _ = await desk.cli("spend", "--by", "agent,team")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["agent", "team", "requests", "refused"]
    assert lines[-1].split()[0] == "total"
    assert lines[-1].split()[-1] == f"${6 * COST / 1e6:.6f}".rstrip("0")
    _, out, _ = await desk.cli("spend", "--by", "tag,agent", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["tag"] for row in rows} == {"env=prod,nightly", "'=cmd()"}
    assert sum(int(row["requests"]) for row in rows) == 7
    assert rows[0]["cost_usd"] == "0.000366"
    assert (await desk.admin("/spend?by=tag,agent&format=csv"))[1] == out
    _, out, _ = await desk.cli("spend", "--format", "focus")
    charges = list(csv.DictReader(io.StringIO(out)))
    assert sum(round(float(charge["BilledCost"]) * 1e6) for charge in charges) == 6 * COST
    assert {charge["ResourceId"] for charge in charges} == {"bot", "other"}
    status, twin = await desk.admin("/spend?format=focus")
    assert (status, twin) == (200, out)


async def test_budgets_show_who_is_near_the_end(desk: Desk) -> None:
    told = await desk.told("budgets")
    lines = {(line["budget"], line["agent"], line["user"], line["tag"], line["unit"]): line for line in told}
    assert [line["percent"] for line in told] == sorted((line["percent"] for line in told), reverse=True)
    everyone = lines["everyone", "", "", "", "usd"]
    assert (everyone["used"], everyone["maximum"], everyone["resets_us"]) == (6 * COST / 1e6, 100, None)
    each = lines["each", "bot", "", "", "tokens"]
    assert (each["used"], each["held"], each["left"], each["percent"]) == (333, 0, 10_000 - 333, 3.3)
    assert each["resets_at"].endswith("T00:00:00.000Z")
    assert lines["each", "other", "", "", "tokens"]["used"] == 333
    user = lines["user", "bot", "ada", "", "requests"]
    assert (user["used"], user["percent"], user["on_exceed"]) == (3, 75.0, "warn")
    tag = lines["tag", "", "", "env=prod", "tokens"]
    assert (tag["window"], tag["used"]) == ("7d", 333)
    assert lines["now", "bot", "", "", "concurrency"]["used"] == 0
    assert not any(line["run"] for line in told)
    over = await desk.told("budgets", "--run", "r1")
    runs = {line["unit"]: line for line in over if line["budget"] == "run"}
    assert (runs["requests"]["used"], runs["requests"]["left"], runs["requests"]["run"]) == (3, 0, "r1")
    assert runs["tool_calls"]["used"] == 6
    other = await desk.told("budgets", "--agent", "other")
    assert {line["agent"] for line in other} == {"", "other"}
    assert {line["budget"] for line in other} == {"everyone", "each", "tag"}
    assert [line["budget"] for line in await desk.told("budgets", "--user", "ada")] == ["user"]
    assert json.loads((await desk.admin("/budgets"))[1]) == told
    status, out, err = await desk.cli("budgets", "--limit", "2")
    assert (status, len(out.splitlines())) == (0, 3)
    assert "Over a run each, with --run RUN: run." in err


async def test_books_in_balance_and_not(desk: Desk) -> None:
    status, out, err = await desk.cli("reconcile")
    assert (status, err) == (0, "")
    assert out.startswith("In balance: 7 calls on 1 day, 666 tokens, $0.000732, ")
    told = await desk.told("reconcile")
    assert (told["balanced"], told["calls"], told["cost_micro_usd"], told["drifts"]) == (
        True,
        7,
        6 * COST,
        [],
    )
    assert json.loads((await desk.admin("/reconcile"))[1]) == told
    with desk.proxy.engine.connect().execution_options(writes=True) as connection, connection.begin():
        connection.execute(text("UPDATE state_spend SET micro_usd = micro_usd + 1 WHERE agent_id = 'other'"))
    status, out, err = await desk.cli("reconcile")
    assert status == 1
    assert "agent other" in out
    assert err.startswith("Not in balance: ")
    status, out, _ = await desk.cli("reconcile", "--json", "--since", "1d")
    found = json.loads(out)
    assert (status, found["balanced"], found["counters"]) == (1, False, None)
    assert {drift["what"] for drift in found["drifts"]} == {"micro_usd"}


async def test_only_those_who_read_spend_see_it(desk: Desk) -> None:
    for path in ("/spend", "/spend?format=focus", "/budgets", "/reconcile"):
        for token, status in ((ADMIN, 200), (SPEND_READER, 200), (APPROVER, 403), (KEY, 403), ("none", 401)):
            assert (await desk.admin(path, token))[0] == status, (path, token)


async def test_a_store_that_is_not_there_yet_has_spent_nothing(tmp_path: Path) -> None:
    settings = config("http://127.0.0.1:9/v1", store=f"sqlite:///{tmp_path / 'none.db'}", **SETTINGS)
    (tmp_path / "proxy.yaml").write_text(json.dumps(settings))

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*words, "--config", str(tmp_path / "proxy.yaml")])
        return result.exit_code, result.stdout

    assert json.loads(run("spend", "--json")[1])["total"]["cost_micro_usd"] == 0
    assert json.loads(run("spend", "--json", "--since", "1d", "--compare")[1])["rows"] == []
    assert run("spend", "--format", "focus")[1].startswith("BilledCost,")
    budgets = json.loads(run("budgets", "--json")[1])
    assert {line["budget"] for line in budgets} == {"everyone", "each", "user", "tag", "now"}
    assert {line["used"] for line in budgets} == {0}
    assert run("reconcile")[0] == 0
    assert not (tmp_path / "none.db").exists()
