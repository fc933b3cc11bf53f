"""`llm-proxy runs` on a real proxy and on its store: how runs stand, and how one is ended, proxy or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.records.tables import records
from tests.e2e.runs_house import ADMIN, House, runs_house


@dataclass
class Cli:
    house: House
    config: Path

    async def __call__(self, *args: str, token: str = ADMIN) -> tuple[int, str, str]:
        environ = {"NO_COLOR": "1", "COLUMNS": "200", "LLM_PROXY_CONFIG": "", "LLM_PROXY_TOKEN": token}
        command = [*args, "--config", str(self.config)]
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
        return result.exit_code, result.stdout, result.stderr

    async def json(self, *args: str) -> Any:
        status, out, err = await self(*args, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    """A proxy with run `r`, which used 1 of 4 requests, and run `kid` below it."""
    async with runs_house(tmp_path) as house:
        file = tmp_path / "proxy.yaml"
        told = json.loads(file.read_text())
        told["server"]["port"] = house.proxy.port
        (tmp_path / "cli.yaml").write_text(json.dumps(told))
        trigger = {"kind": "ticket", "id": "4711"}
        envelope = {"usd": 0.5, "requests": 4, "tools": ["crm_*"], "expires_s": 900}
        await house.opened(run_id="r", purpose="answer 4711", envelope=envelope, trigger=trigger)
        await house.opened(run_id="kid", parent="r", purpose="look it up")
        await house.call("kid")
        await house.proxy.settled()
        yield Cli(house, tmp_path / "cli.yaml")


async def test_how_runs_stand_is_listed_and_shown(cli: Cli) -> None:
    status, out, _ = await cli("runs", "list")
    assert status == 0
    [line] = [line for line in out.splitlines() if line.startswith("r ")]
    assert "open" in line
    assert "answer 4711" in line
    lines = {line["run_id"]: line for line in await cli.json("runs", "list")}
    assert lines["kid"]["parent_agent_id"] == "bot"
    assert lines["r"]["left"]["requests"] == 3
    assert lines["r"]["trigger"] == {"kind": "ticket", "id": "4711", "url": ""}
    status, out, _ = await cli("runs", "show", "r")
    for said in (
        "purpose    answer 4711",
        "trigger    ticket 4711",
        "envelope   0.5 usd, 4 requests, tools crm_*, for 900 s",
        "status     open",
        "3 of 4 requests  envelope",
        "$0.499968 of $0.50 usd  envelope",
        "40 of 40 tool_calls  per-run",
    ):
        assert said in out
    shown = await cli.json("runs", "show", "kid")
    assert [use["run_id"] for use in shown["limits"] if use["unit"] == "requests"] == ["kid", "r", "r"]
    _, out, _ = await cli("runs", "show", "kid")
    assert "3 of 4 requests  envelope of run r" in out


async def test_a_run_is_ended_through_the_proxy(cli: Cli) -> None:
    status, out, err = await cli("runs", "end", "r", "--why", "enough of it")
    assert (status, err) == (0, "")
    assert out.startswith("Run r of agent bot is ended since 20")
    refused = await cli.house.call("kid")
    assert (refused.status, "enough of it" in refused.said) == (403, True)
    _, out, _ = await cli("runs", "show", "r")
    assert "status     ended  enough of it  at 20" in out
    lines = {line["run_id"]: line for line in await cli.json("runs", "list")}
    assert (lines["kid"]["status"], lines["kid"]["why"]) == ("ended", "enough of it (with run r)")
    for args, code, said in (
        (("runs", "end", "nope", "--why", "w"), 1, "No run 'nope'"),
        (("runs", "end", "r", "--why", " "), 2, "why: say it"),
    ):
        status, _, err = await cli(*args)
        assert (status, said in err) == (code, True), err
    status, _, err = await cli("runs", "end", "r", "--why", "w", token="a-guess")
    assert status == 2
    assert "not known here" in err


async def test_a_run_is_ended_in_the_store_where_no_proxy_runs(cli: Cli) -> None:
    await cli.house.proxy.terminate()
    ended = await cli.json("runs", "end", "r", "--why", "no more")
    assert (ended["status"], ended["why"]) == ("ended", "no more")
    with cli.house.proxy.engine.connect() as connection:
        query = select(records.c.run_id, records.c.body).where(records.c.kind == "run.ended")
        told = {run: json.loads(bytes(body)) for run, body in connection.execute(query)}
    assert told["r"] == {"why": "no more", "by": "admin_token", "via": "cli-offline"}
    assert told["kid"]["below"] == "r"
    again = await cli.json("runs", "end", "r", "--why", "other")
    assert again["why"] == "no more"
    await cli.house.proxy.start()
    assert (await cli.house.call("kid")).status == 403
