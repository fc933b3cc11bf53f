"""Working on a policy over what a real proxy recorded, by the command line and by /admin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import URL
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.policy.cases import run_cases
from llm_proxy.policy.load import load_policy
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import ChatAgent, MessagesAgent, ResponsesAgent, each_speaking
from tests.proxy import ProxyProcess, config

pytest_plugins = ["tests.postgres"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENS = {"investigator": "investigator-token-0123456", "spend-reader": "spend-reader-token-0123456"}
SCRIPT = """
default:
  turns:
    - when: {last_user_contains: <tour>, turn: 0}
      tool_calls: [{name: kb_search, arguments: {id: "1"}}, {name: wire, arguments: {id: "SECRET"}}]
    - when: {last_user_contains: <tour>, turn: 1}
      tool_calls:
        - {name: crm_read, arguments: {id: "7"}}
        - {name: mail_draft, arguments: {id: ann@example.com}}
    - when: {last_user_contains: <tour>, turn: 2}
      tool_calls:
        - {name: mail_send, arguments: {id: eve@example.net}}
        - {name: refund, arguments: {id: "7"}}
        - {name: crm_read, arguments: {id: "7", more: SECRET}}
        - {name: kb_search, arguments: {id: "2"}}
    - when: {last_user_contains: <custom>, turn: 0}
      tool_calls: [{name: scratch, input: "two plus two"}, {name: shell_run, input: "SECRET"}]
    - {text: All done.}
"""
ARGS = {"type": "object", "additionalProperties": False, "properties": {"id": {"type": "string"}}}
POLICY: dict[str, Any] = {
    "policy": {"id": "work", "version": 3, "owner": "sec@example.com"},
    "on_deny": "replace",
    "tools": {
        "crm_read": {
            "effect": "read",
            "tier": "autonomous",
            "result": {"sensitivity": "confidential", "trust": "internal"},
            "args": ARGS,
        },
        "kb_search": {"effect": "read", "tier": "autonomous", "result": {"sensitivity": "public"}},
        "mail_draft": {"effect": "write", "tier": "autonomous", "identity_args": ["id"]},
        "mail_send": {
            "effect": "irreversible",
            "sink": "external",
            "clearance": "internal",
            "tier": "autonomous",
        },
        "refund": {"effect": "write", "tier": "human-approval"},
        "wire": {"effect": "irreversible", "tier": "prohibited"},
        "scratch": {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}},
        "shell_run": {"effect": "irreversible", "tier": "prohibited"},
    },
    "rules": [
        {
            "id": "exfil",
            "then": "deny",
            "when": 'tool.sink == "external" && run.sensitivity > tool.clearance',
        },
        {
            "id": "unproven",
            "then": "deny",
            "when": 'run.untrusted && tool.effect == "write" && !call.identity_from_user',
        },
        {"id": "never", "then": "deny", "when": "run.depth > 20"},
    ],
    "sequence": [{"id": "read-then-mail", "after": {"tool": "crm_*"}, "forbid": {"tool": "mail_send"}}],
    "caps": {"day": {"calls": 1000}},
    "tests": [
        {"name": "wire", "call": {"tool": "wire"}, "expect": {"decision": "deny", "rule": "prohibited"}},
    ],
}
TOUR = [
    ("kb_search", "allow", "tier:autonomous"),
    ("wire", "deny", "prohibited"),
    ("crm_read", "allow", "tier:autonomous"),
    ("mail_draft", "allow", "tier:autonomous"),
    ("mail_send", "deny", "exfil"),
    ("refund", "deny", "unproven"),
    ("crm_read", "deny", "schema"),
    ("kb_search", "allow", "tier:autonomous"),
]


@dataclass
class House:
    proxy: ProxyProcess
    folder: Path
    calls: list[str] = field(default_factory=list[str])
    """Every call whose reply proposed tools, in order."""

    async def cli(self, *args: str) -> tuple[int, str, str]:
        environ = {"NO_COLOR": "1", "COLUMNS": "200", "LLM_PROXY_CONFIG": ""}
        command = ["policy", *args, "--config", str(self.folder / "proxy.yaml")]
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    async def json(self, *args: str, status: int = 0) -> Any:
        got, out, err = await self.cli(*args, "--json")
        assert (got, err) == (status, ""), (out, err)
        return json.loads(out)

    async def admin(
        self, method: str, path: str, role: str = "investigator", body: bytes | None = None
    ) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {TOKENS[role]}"}
        async with (
            aiohttp.ClientSession() as http,
            http.request(
                method, f"{self.proxy.origin}/admin/policy{path}", headers=headers, data=body
            ) as reply,
        ):
            return reply.status, await reply.json()

    def file(self, name: str, **changes: Any) -> str:
        path = self.folder / name
        path.write_text(json.dumps(POLICY | changes))
        return str(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("work")
    with ExitStack() as stack:
        more: dict[str, Any] = {}
        if request.param == "postgresql":
            from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

            server: URL = request.getfixturevalue("postgres_server")
            database = stack.enter_context(fresh_database(server))
            more["store"] = database.render_as_string(hide_password=False)
        async with running(parse_script(SCRIPT)) as upstream:
            dialects = ("openai_chat", "anthropic_messages", "openai_responses")
            models = each_speaking(upstream.origin, dialects)
            price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": 8000}
            settings = config(
                upstream.base_url,
                models=models,
                prices={"m": price},
                operators=[{"id": f"{r}@example.com", "roles": [r], "token": t} for r, t in TOKENS.items()],
                **more,
            )
            async with ProxyProcess(folder, settings, policy=POLICY) as proxy:
                house = House(proxy, folder)
                await _tours(house)
                yield house


async def _tours(house: House) -> None:
    """Two runs at once of one dialect each, and one with freeform tools."""
    async with (
        ChatAgent(house.proxy, "openai_chat", run="chat", think=False) as chat,
        MessagesAgent(house.proxy, "anthropic_messages", run="messages", think=False) as messages,
        ResponsesAgent(house.proxy, "openai_responses", run="responses", think=False) as responses,
    ):
        for turn in range(3):
            for agent, stream in ((chat, False), (messages, True)):
                if turn:
                    await agent.answer(stream=stream)
                else:
                    await agent.say("Write to ann@example.com <tour>", stream=stream)
                house.calls.append(agent.tape.call_id)
        responses.custom = True
        await responses.say("compute <custom>", stream=False)
        house.calls.append(responses.tape.call_id)


async def test_each_verdict_is_explained_as_it_was(house: House) -> None:
    for call_id in house.calls:
        shown = await house.json("explain", call_id)
        assert (shown["same_policy"], shown["reproduced"]) == (True, True), shown
        assert shown["call_id"] == call_id
    for run in (0, 1):
        got: list[tuple[str, str, str]] = []
        for call_id in house.calls[run:6:2]:
            [verdict] = (await house.json("explain", call_id))["verdicts"]
            got += [(call["tool"], call["decision"], call["rule"]) for call in verdict["calls"]]
        assert got == TOUR


async def test_an_explanation_shows_what_the_verdict_rested_on(house: House) -> None:
    [verdict] = (await house.json("explain", house.calls[4]))["verdicts"]
    run = verdict["run"]
    assert (run["label"], run["untrusted"], run["snapshot"]) == ("confidential", True, True)
    assert [(done["tool"], done["decision"], done["completed"]) for done in run["history"]] == [
        ("kb_search", "allow", True),
        ("wire", "deny", False),
        ("crm_read", "allow", True),
        ("mail_draft", "allow", True),
    ]
    send, refund, *_ = verdict["calls"]
    assert send["hits"] == send["again_hits"] == ["read-then-mail"]
    assert not send["released"]
    assert {rule["rule"]: rule["text"] for rule in send["rules"]}["exfil"] == POLICY["rules"][0]["when"]
    assert "tier:human-approval" in refund["hits"]
    one = await house.json("explain", house.calls[4], "--tool-call", refund["tool_call_id"])
    assert [call["tool"] for call in one["verdicts"][0]["calls"]] == ["refund"]
    status, out, _ = await house.cli("explain", house.calls[4])
    assert status == 0
    for said in (
        "deny by exfil (also read-then-mail)",
        "stripped from the reply",
        "confidential and untrusted",
    ):
        assert said in out
    assert (await house.cli("explain", "nothing"))[0] == 1
    assert "no tool call" in (await house.cli("explain", house.calls[4], "--tool-call", "x"))[2]


async def test_another_policy_is_explained_as_another(house: House) -> None:
    path = house.file("loose.yaml", rules=[], sequence=[])
    status, out, err = await house.cli("explain", house.calls[4], "--policy", path)
    assert (status, "NOT REPRODUCED" in err, "It was judged by policy" in out) == (1, True, True)
    shown = await house.json("explain", house.calls[4], "--policy", path, status=1)
    assert not shown["same_policy"]
    assert [call["again"] for call in shown["verdicts"][0]["calls"]] == ["allow", "ask", "deny", "allow"]


async def test_the_same_file_changes_nothing(house: House) -> None:
    found = await house.json("simulate", str(house.folder / "policy.yaml"))
    assert (found["judged"], found["runs"], found["changed"], found["rule_changed"]) == (18, 3, 0, 0)
    assert found["never_hit"] == ["never"]
    same = house.file("same.yaml", policy={"id": "other", "version": 1})
    found = await house.json("simulate", same)
    assert (found["changed"], found["rule_changed"], found["complete"]) == (0, 0, True)
    assert (await house.cli("diff", same, str(house.folder / "policy.yaml")))[0] == 0


async def test_tighter_and_looser_files(house: House) -> None:
    tools = {**POLICY["tools"], "kb_search": {"effect": "read", "tier": "human-approval"}}
    tighter = house.file("tighter.yaml", tools=tools, caps={"day": {"calls": 6}})
    found = await house.json("simulate", tighter, "--run", "chat")
    assert [(one["tool"], one["was"], one["now"], one["now_rule"]) for one in found["changes"]] == [
        ("kb_search", "allow", "ask", "tier:human-approval"),
        ("kb_search", "allow", "deny", "cap:day.calls"),
    ]
    looser = house.file("looser.yaml", rules=POLICY["rules"][1:], sequence=[])
    found = await house.json("diff", str(house.folder / "policy.yaml"), looser, status=1)
    assert [(one["run_id"], one["tool"], one["was_rule"], one["now"]) for one in found["changes"]] == [
        ("chat", "mail_send", "exfil", "allow"),
        ("messages", "mail_send", "exfil", "allow"),
    ]
    status, out, _ = await house.cli("simulate", looser, "--limit", "1")
    assert (status, "1 change more" in out, "2 calls would change." in out) == (0, True, True)
    assert (await house.json("simulate", looser, "--since", "2030-01-01"))["judged"] == 0
    assert (await house.json("simulate", looser, "--agent", "nobody"))["runs"] == 0
    assert (await house.cli("simulate", looser, "--since", "soon"))[0] == 2
    broken = house.folder / "broken.yaml"
    broken.write_text("policy: {id: x}\n")
    status, out, err = await house.cli("simulate", str(broken))
    assert (status, out, f"{broken}:1:" in err) == (2, "", True)


async def test_a_policy_is_learned(house: House) -> None:
    path = house.folder / "learned.yaml"
    path.unlink(missing_ok=True)
    status, out, err = await house.cli("learn", "--out", str(path))
    assert (status, out, "8 tools in 18 tool calls" in err) == (0, "", True)
    text = path.read_text()
    assert "SECRET" not in text
    assert "ann@" not in text
    policy = load_policy(path)
    assert run_cases(policy).passed
    assert policy.tools["kb_search"].spec.args is not None
    assert (await house.cli("test", str(path)))[0] == 0
    found = await house.json("simulate", str(path))
    assert {one["now"] for one in found["moved"]} == {"ask"}
    assert [one["rule"] for one in found["rules"]] == ["tier:human-approval"]
    status, _, err = await house.cli("learn", "--out", str(path))
    assert (status, "nothing is overwritten" in err) == (2, True)
    status, out, _ = await house.cli("learn", "--runs", "responses")
    assert (status, "crm_read" in out, "scratch" in out) == (0, False, True)
    assert (await house.cli("learn", "--runs", "nothing"))[0] == 1


async def test_rules_and_what_they_did(house: House) -> None:
    shown = await house.json("show", "--since", "1h")
    assert (shown["id"], shown["tools"], shown["judged"], shown["never_hit"]) == ("work", 8, 18, ["never"])
    rules = {rule["rule"]: rule for rule in shown["rules"]}
    assert (rules["exfil"]["denied"], rules["exfil"]["own"]) == (2, True)
    assert (rules["read-then-mail"]["also"], rules["tier:autonomous"]["allowed"]) == (2, 9)
    assert sum(span["hits"] for span in rules["exfil"]["over_time"]) == 2
    status, out, _ = await house.cli("show")
    assert (status, "Never hit: never." in out) == (0, True)


async def test_the_registry(house: House) -> None:
    listed = await house.json("tools")
    assert [tool["tool"] for tool in listed] == list(POLICY["tools"])
    told = {tool["tool"]: tool for tool in listed}
    assert (told["crm_read"]["schema"], told["kb_search"]["schema"]) == (True, False)
    sink = told["mail_send"]
    assert (sink["effect"], sink["sink"], sink["clearance"]) == ("irreversible", "external", "internal")
    assert await house.json("tools", "--limit", "2") == listed[:2]
    status, out, _ = await house.cli("tools")
    assert (status, "human-approval" in out, "shell_run" in out) == (0, True, True)
    assert await house.admin("GET", "/tools", "spend-reader") == (200, listed)
    assert await house.admin("GET", "/tools?limit=2") == (200, listed[:2])


async def test_the_tests_of_a_file(house: House) -> None:
    status, out, err = await house.cli("test")
    assert status == 1
    assert "1 test of 1 passed" in out
    assert [line.split(":")[1] for line in err.splitlines()] == ["1"] * 4
    assert "rule 'never' is hit by no test" in err
    told = await house.json("test", status=1)
    assert [rule["rule"] for rule in told["never_hit"]] == ["exfil", "unproven", "never", "read-then-mail"]


async def test_the_admin_twins(house: House) -> None:
    status, shown = await house.admin("GET", "?since=1h", "spend-reader")
    assert (status, shown["mode"], shown["problem"], shown["loaded_us"] > 0) == (200, "enforce", "", True)
    assert shown["rules"] == (await house.json("show", "--since", "1h"))["rules"]
    at = f"/explain/{house.calls[0]}"
    assert (await house.admin("GET", at, "spend-reader"))[0] == 403
    assert (await house.admin("GET", at)) == (200, await house.json("explain", house.calls[0]))
    looser = house.file("looser.yaml", rules=POLICY["rules"][1:], sequence=[])
    body = json.dumps(POLICY | {"rules": POLICY["rules"][1:], "sequence": []}).encode()
    assert (await house.admin("POST", "/simulate", "spend-reader", body))[0] == 403
    status, found = await house.admin("POST", "/simulate", body=body)
    assert (status, found) == (200, await house.json("simulate", looser))
    assert [one["tool"] for one in found["changes"]] == ["mail_send"] * 2
    for sent, code in ((b"", 400), (b"policy: 1", 400), (b"#" * 300_000, 413), (b"\xff", 400)):
        assert (await house.admin("POST", "/simulate", body=sent))[0] == code
    assert (await house.admin("GET", "?since=never"))[0] == 400
    assert (await house.admin("GET", "/explain/nothing"))[0] == 404
