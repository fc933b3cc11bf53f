"""`llm-proxy posture` over what a real proxy recorded, on each store: counted, rebuilt, measured."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import text
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.either_store import store as store
from tests.proxy import ProxyProcess, ask, config, headers, target, until

pytest_plugins = ["tests.postgres"]

ADMIN, DANA, SPENDS = (
    "admin-token-0123456789abcdef",
    "dana-token-0123456789abcdef",
    "spend-token-0123456789abcdef",
)
SCRIPT = """
models:
  slow: {turns: [{text: one two three four five six seven eight, delta_s: 0.5}]}
default:
  turns:
    - when: {turn: 0}
      tool_calls: [{name: crm_read, arguments: {id: "7"}}, {name: note, arguments: {to: x}}]
    - {text: Done.}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "house", "version": 1, "owner": "ann@example.com"},
    "on_deny": "replace",
    "tools": {
        "crm_read": {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}},
        "note": {"effect": "write", "tier": "autonomous"},
        "wire": {"effect": "irreversible", "tier": "human-approval"},
    },
}


@dataclass
class House:
    proxy: ProxyProcess
    file: Path

    async def posture(self, *args: str) -> tuple[int, dict[str, Any]]:
        """The exit status, and the answers by id."""
        command = ["posture", "--json", *args, "--config", str(self.file)]
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env={"LLM_PROXY_TOKEN": ADMIN})
        assert result.stderr == "", result.stderr
        return result.exit_code, {each["id"]: each for each in json.loads(result.stdout)["answers"]}

    async def work(self, run: str) -> None:
        """Two calls: the model wants two tools, gets their results, and is done."""
        named = headers(x_run_id=run)
        async with aiohttp.ClientSession() as http:
            async with http.post(self.proxy.url, json=ask("do it"), headers=named) as reply:
                message = (await reply.json())["choices"][0]["message"]
            ids = [call["id"] for call in message["tool_calls"]]
            told = [{"role": "tool", "tool_call_id": id_, "content": "found"} for id_ in ids]
            body = ask("do it")
            body["messages"] += [message, *told]
            async with http.post(self.proxy.url, json=body, headers=named) as reply:
                assert reply.status == 200, await reply.text()
            effect = {"kind": "note", "tool_call_id": ids[1]}
            url = f"{self.proxy.base_url}/runs/{run}/effects"
            async with http.post(url, json=effect, headers=headers()) as reply:
                assert reply.status == 201, await reply.text()
        await self.proxy.settled()


async def test_posture_over_what_was_recorded(store: str, tmp_path: Path) -> None:
    async with running(parse_script(SCRIPT)) as upstream:
        models = {name: {"targets": [target(name, upstream.base_url, name)]} for name in ("m", "slow")}
        people = [
            {"id": "dana@example.com", "roles": ["investigator"], "token": DANA},
            {"id": "sam@example.com", "roles": ["spend-reader"], "token": SPENDS},
        ]
        told = config(upstream.base_url, models=models, operators=people, store=store)
        told["prices"]["slow"] = told["prices"]["m"]
        told["server"]["admin_token"] = ADMIN
        async with ProxyProcess(tmp_path, told, policy=POLICY) as proxy:
            file = tmp_path / "proxy.yaml"
            told = json.loads(file.read_text())
            told["server"]["port"] = proxy.port
            (tmp_path / "cli.yaml").write_text(json.dumps(told))
            house = House(proxy, tmp_path / "cli.yaml")
            await _empty(house)
            await house.work("first")
            await _counted(house)
            await _measured(house)
            await _at_the_door(house)
        await _tampered(house)


async def _empty(house: House) -> None:
    status, found = await house.posture()
    assert status == 1
    assert {id_ for id_, answer in found.items() if answer["verdict"] == "n/a"} >= {
        "logging",
        "reconstruction",
    }
    assert "without an owner: bot" in found["identity"]["missing"]
    assert "keys stand in the config in plain text: agents.bot.keys[0]" in found["identity"]["missing"]
    assert found["authority"]["missing"][0].startswith("not measured")
    assert "may use every model: bot" in found["permissions"]["missing"]
    assert found["approvals"]["missing"] == ["approval 'default' is not defined: what it would ask is denied"]


async def _counted(house: House) -> None:
    _, found = await house.posture()
    logging = found["logging"]
    assert (logging["verdict"], logging["missing"]) == ("yes", [])
    assert logging["evidence"][0] == "2 tool calls proposed in the last 30 days, 2 released"
    assert "side effects: reported for 1 of 1 (100%) calls that change things" in logging["evidence"]
    assert "outputs: 2 of 2 (100%) answered calls with the digest of the result" in logging["evidence"]
    rebuilt = found["reconstruction"]
    assert rebuilt["verdict"] == "yes"
    assert rebuilt["evidence"][0] == "tried with run first of agent bot: 2 calls"
    assert rebuilt["evidence"][1].startswith("2 requests and 2 replies rebuilt")


async def _measured(house: House) -> None:
    _, found = await house.posture("--live", "--agent", "bot", "--model", "slow")
    authority = found["authority"]
    (said,) = (*authority["evidence"], *authority["missing"])
    assert said.endswith("(measured now)")
    seconds = float(said.split()[0])
    assert authority["verdict"] == ("yes" if seconds <= 2 else "no"), "however slow this machine is"
    assert seconds < 15
    await house.work("behind")  # the agent was thawed

    async def noted() -> bool:
        _, again = await house.posture()
        return "the freeze at " in str(again["authority"])

    await until(noted, "the freeze is found in the records")
    with house.proxy.engine.connect() as connection:
        kinds = [kind for (kind,) in connection.execute(text("SELECT kind FROM records"))]
    assert (kinds.count("agent.frozen"), kinds.count("agent.thawed"), kinds.count("key.revoked")) == (1, 1, 1)


async def _at_the_door(house: House) -> None:
    async with aiohttp.ClientSession() as http:
        for token, expected in ((DANA, 200), (ADMIN, 200), (SPENDS, 403), ("nobody-0123456789abcdef", 401)):
            url = f"{house.proxy.origin}/admin/posture?days=7"
            async with http.get(url, headers={"authorization": f"Bearer {token}"}) as reply:
                assert reply.status == expected
                if expected == 200:
                    body = await reply.json()
                    assert (body["ready"], body["days"], len(body["answers"])) == (False, 7, 16)


async def _tampered(house: House) -> None:
    """With the proxy gone: a changed row is named, and so is content that is missing."""
    with house.proxy.engine.begin() as connection:
        changed = "UPDATE records SET at_us = at_us + 1 WHERE run_id = 'first' AND kind = 'call.closed'"
        connection.execute(text(changed))
        connection.execute(text("DELETE FROM blobs WHERE size = (SELECT max(size) FROM blobs)"))
    status, found = await house.posture("--run", "first")
    assert status == 1
    (said,) = found["reconstruction"]["missing"]
    assert "(call.closed) is not what was hashed" in said
    assert "is no longer kept" in said
