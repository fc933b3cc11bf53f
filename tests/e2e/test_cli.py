"""The command line beside a running proxy: what agents did is read, and keys are issued through /admin."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.records.tables import records
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config, headers, until

ADMIN = "an-admin-token-0123456789"
SCRIPT = """
default:
  turns:
    - when: {turn: 0}
      reasoning: I should look it up.
      text: One moment.
      tool_calls:
        - {name: order_read, arguments: {id: A-1}, id: call_1}
        - {name: refund, arguments: {id: A-1}, id: call_2}
    - {text: It is on its way.}
"""
POLICY = {
    "policy": {"id": "test", "version": 1},
    "on_deny": "replace",
    "tools": {
        "order_read": {"effect": "read", "tier": "autonomous", "args": {"type": "object"}},
        "refund": {"effect": "write", "tier": "prohibited", "args": {"type": "object"}},
    },
}


class Cli:
    """The command line with the proxy's config."""

    def __init__(self, proxy: ProxyProcess, folder: Path) -> None:
        self.proxy = proxy
        self.config = folder / "proxy.yaml"

    async def __call__(self, *args: str, token: str = ADMIN) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        environ = {"LLM_PROXY_TOKEN": token, "COLUMNS": "80", "NO_COLOR": "1"}
        command = [*args, "--config", str(self.config)]
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    async def process(self, *args: str, **environ: str) -> tuple[int, bytes, bytes]:
        """The same in a process of its own, whose output goes into pipes."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llm_proxy", *args, "--config", str(self.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | environ,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, out, err

    async def json(self, *args: str) -> Any:
        status, out, err = await self(*args, "--json")
        assert (status, err) == (0, "")
        return json.loads(out)


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    """A proxy that saw two calls of run `r`: a streamed one with a denied tool call, then a whole one."""
    async with running(parse_script(SCRIPT)) as upstream:
        told = config(upstream.base_url, server={"admin_token": ADMIN, "drain_s": 1})
        told["agents"]["twin"] = {"keys": [OTHER_KEY], "models": ["m"]}
        async with ProxyProcess(tmp_path, told, policy=POLICY) as proxy:
            await _work(proxy)
            cli = Cli(proxy, tmp_path)
            cli.config.write_text(json.dumps(json.loads(cli.config.read_text()) | _at(proxy)))
            yield cli


def _at(proxy: ProxyProcess) -> dict[str, Any]:
    """The `server` section that says where the proxy really is."""
    return {"server": {"admin_token": ADMIN, "drain_s": 1, "port": proxy.port}}


async def _work(proxy: ProxyProcess) -> None:
    async with proxy.sdk(default_headers={"x-run-id": "r"}) as sdk:
        user = {"role": "user", "content": "Where is my order?"}
        tool: Any = {"type": "function", "function": {"name": "order_read", "parameters": {"type": "object"}}}
        stream = await sdk.chat.completions.create(model="m", messages=[user], tools=[tool], stream=True)  # type: ignore[list-item]
        async for _ in stream:
            pass
        echo: Any = {
            "role": "assistant",
            "content": "One moment.",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "order_read", "arguments": "{}"}}
            ],
        }
        result: Any = {"role": "tool", "tool_call_id": "call_1", "content": '{"state": "sent"}'}
        await sdk.chat.completions.create(model="m", messages=[user, echo, result], tools=[tool])  # type: ignore[list-item]


async def test_a_run_is_a_timeline_for_people_and_json_for_programs(cli: Cli) -> None:
    status, out, err = await cli("runs", "show", "r")
    assert (status, err) == (0, "")
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    told = ("Run r", "bot, team crew", "Where is my order?", "I should look it up.", "One moment.")
    verdicts = ("✔ allowed by tier:autonomous", "✖ denied by rule prohibited", "instead: order_read")
    after = ('order_read → {"state": "sent"}', "It is on its way.", "2 calls in")
    places = [out.index(part) for part in (*told, *verdicts, *after)]
    assert places == sorted(places)

    run = await cli.json("runs", "show", "r")
    assert (run["agent_id"], run["call_count"], run["denials"]) == ("bot", 2, 1)
    first, second = run["calls"]
    assert [d["decision"] for d in first["decisions"]] == ["allow", "deny"]
    assert [c["name"] for c in first["received"]["choices"][0]["calls"]] == ["order_read"]
    assert [m["tool"] for m in second["new_messages"]] == ["order_read"]
    shorter = await cli.json("runs", "show", "r", "--limit", "1")
    assert len(shorter["calls"]) == 1
    (listed,) = await cli.json("runs", "list")
    assert (listed["run_id"], listed["calls"]) == ("r", 2)
    assert listed["cost_usd"] == pytest.approx(run["cost_usd"])


async def test_in_a_pipe_there_is_no_colour_and_no_character_that_fails(cli: Cli) -> None:
    status, out, err = await cli.process("runs", "show", "r")
    assert (status, err) == (0, b"")
    assert b"\x1b" not in out
    assert "✔ allowed" in out.decode()
    status, out, err = await cli.process("runs", "show", "r", PYTHONIOENCODING="ascii")
    assert (status, err) == (0, b"")
    assert b"\\u2714 allowed" in out
    status, out, err = await cli.process("runs", "list", "--json", FORCE_COLOR="1")
    assert (status, err) == (0, b"")
    assert [run["run_id"] for run in json.loads(out)] == ["r"]


async def test_a_call_in_full(cli: Cli) -> None:
    newest, oldest = await cli.json("calls", "list")
    call = await cli.json("calls", "show", oldest["id"])
    promised = "id run_id agent_id status model target attempts usage cost_usd request reply decisions"
    assert set(promised.split()) <= set(call)
    assert (call["status"], call["model"], call["target"], call["stream"]) == ("ok", "m", "up", True)
    assert call["request"]["messages"][0]["content"] == "Where is my order?"
    assert call["reply"]["choices"][0]["reasoning"] == [{"kind": "raw", "text": "I should look it up."}]
    assert call["attempts"][0]["status"] == 200
    assert call["usage"]["total_tokens"] == call["usage"]["input_tokens"] + call["usage"]["output_tokens"]
    status, out, _ = await cli("calls", "show", newest["id"])
    assert status == 0
    assert newest["id"] in out
    assert "It is on its way." in out
    assert [c["id"] for c in await cli.json("calls", "list", "--limit", "1")] == [newest["id"]]
    assert await cli.json("calls", "list", "--status", "failed") == []


async def test_two_agents_with_one_run_id_are_told_apart(cli: Cli) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    asked = headers(OTHER_KEY, x_run_id="r")
    async with aiohttp.ClientSession() as http, http.post(cli.proxy.url, data=body, headers=asked) as reply:
        assert reply.status == 200
    status, out, err = await cli("runs", "show", "r")
    assert (status, out) == (2, "")
    assert "each of bot, twin: name the agent" in err
    assert (await cli.json("runs", "show", "r", "--agent", "twin"))["call_count"] == 1
    assert {run["agent_id"] for run in await cli.json("runs", "list")} == {"bot", "twin"}
    assert len(await cli.json("runs", "list", "--agent", "twin")) == 1


async def test_keys_are_issued_and_revoked_through_the_running_proxy(cli: Cli) -> None:
    status, out, err = await cli("keys", "issue", "twin", "--ttl", "1h")
    key = out.strip()
    assert status == 0
    assert "of agent twin is good until" in err
    async with aiohttp.ClientSession() as http:

        async def status_of(shown: str) -> int:
            async with http.get(f"{cli.proxy.base_url}/models", headers=headers(shown)) as reply:
                return reply.status

        assert await status_of(key) == 200
        (issued,) = [k for k in await cli.json("keys", "list", "--agent", "twin") if k["source"] == "issued"]
        status, out, _ = await cli("keys", "revoke", issued["id"])
        assert status == 0
        assert f"Key {issued['id']} of agent twin is revoked" in out

        async def is_refused() -> bool:
            return await status_of(key) == 401

        await until(is_refused, "the revoked key is refused", 5)
    told = select(records.c.body).where(records.c.kind.in_(["key.issued", "key.revoked"]))
    with cli.proxy.engine.connect() as connection:
        events = [json.loads(body) for body in connection.execute(told).scalars()]
    assert [(event["by"], event["via"]) for event in events] == [("admin_token", "admin")] * 2


async def test_the_proxys_refusals_are_one_line_and_the_right_status(cli: Cli) -> None:
    wanted = [
        (("issue", "bto"), ADMIN, 1, "did you mean 'bot'?"),
        (("issue", "bot", "--ttl", "soon"), ADMIN, 2, "ttl: 'soon' is no duration"),
        (("revoke", "key_0"), ADMIN, 1, "No key 'key_0' was issued here"),
        (("issue", "bot"), "wrong", 2, "The token is not known here"),
        (("issue", "bot"), KEY, 2, "An agent's key opens nothing here"),
    ]
    for command, token, status, said in wanted:
        answer = await cli("keys", *command, token=token)
        assert answer[:2] == (status, ""), command
        assert said in answer[2]
        assert len(answer[2].splitlines()) == 1


async def test_who_was_turned_away_is_counted(cli: Cli) -> None:
    async with aiohttp.ClientSession() as http:
        for shown in (None, "no-such-key", "no-such-key"):
            async with http.get(f"{cli.proxy.base_url}/models", headers=headers(shown)) as reply:
                assert reply.status == 401
    rows = await cli.json("refusals")
    counted = {
        reason: sum(r["count"] for r in rows if r["reason"] == reason) for reason in ("missing", "unknown")
    }
    assert counted == {"missing": 1, "unknown": 2}
    (bot, _) = await cli.json("agents", "list")
    assert (bot["id"], bot["calls"], bot["keys"]) == ("bot", 2, 1)
