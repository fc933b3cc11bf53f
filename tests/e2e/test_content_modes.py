"""`records.content`: what is masked, or never stored, stands nowhere in the store."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.records.view import CallView, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import AGENTS, each_speaking
from tests.e2e.test_masked_records import stands
from tests.either_store import store as store
from tests.proxy import ProxyProcess, config

pytest_plugins = ["tests.postgres"]

ADMIN = "admin-token-long-enough-0001"
CARD, IBAN, PHONE = "4111 1111 1111 1111", "DE89370400440532013000", "+49 30 901820"
MAIL, KEY = "ada.lovelace@example.com", "sk-live-Ab3dEf6hIj9kLm2nOp5qRs8t"
VALUES = (CARD, IBAN, PHONE, MAIL, KEY)
SAYS = " and ".join(VALUES)
WORDS = "seventeen violet umbrellas"
RESULT = json.dumps({"mail": MAIL, "note": f"{WORDS} {IBAN}"})
SCRIPT = f"""
default:
  turns:
    - {{when: {{turn: 0}}, text: "You said {SAYS}, {WORDS}.", reasoning: "They gave {MAIL}, {WORDS}.",
       deltas: 30, usage: {{input: 40, output: 10}},
       tool_calls: [{{name: crm_read, arguments: {{id: "{IBAN} {WORDS}"}}}},
       {{name: wipe, arguments: {{id: "{WORDS}"}}}}]}}
    - {{text: "It is {MAIL}, {WORDS}.", usage: {{input: 70, output: 5}}}}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "p", "version": 1},
    "tools": {
        "crm_read": {"effect": "read", "tier": "autonomous", "args": {"type": "object"}},
        "wipe": {"effect": "irreversible", "tier": "prohibited"},
    },
}


async def _cli(folder: Path, *arguments: str) -> Any:
    environ = {"NO_COLOR": "1", "COLUMNS": "250", "LLM_PROXY_CONFIG": "", "LLM_PROXY_TOKEN": ADMIN}
    command = [*arguments, "--config", str(folder / "proxy.yaml")]
    result = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
    assert result.exit_code == 0, (result.stdout, result.stderr)
    return result.stdout


def _kept(mode: str, view: CallView) -> None:
    """What is left of a call of two tool calls."""
    assert view.status is Status.OK
    assert view.usage is not None
    assert [(d.tool, d.decision) for d in view.decisions] == [("crm_read", "allow"), ("wipe", "deny")]
    if mode == "redacted":
        assert (view.kept, view.masked) == (True, True)
        assert view.reply is not None
        assert WORDS in view.reply.choices[0].text
        assert WORDS in view.decisions[0].arguments
        json.loads(view.request or b"")
    else:
        assert (view.kept, view.request, view.sent, view.reply) == (False, None, None, None)
        assert [d.kept for d in view.decisions] == [False, False]


@pytest.mark.parametrize("mode", ["redacted", "digest"])
async def test_what_is_not_to_be_kept_stands_nowhere(store: str, tmp_path: Path, mode: str) -> None:
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            store=store,
            models=each_speaking(upstream.origin),
            server={"drain_s": 1, "admin_token": ADMIN},
            records={"content": mode},
        )
        async with ProxyProcess(tmp_path, settings, policy=POLICY) as proxy:
            for kind in AGENTS:
                for stream in (False, True):
                    run = f"{kind.dialect}-{stream}"
                    async with kind(proxy, kind.dialect, run=run) as agent:
                        heard = await agent.say(f"Use {SAYS}; {WORDS}", stream=stream)
                        assert all(value in heard.text for value in VALUES)
                        _kept(mode, proxy.view(agent.tape.call_id))
                        for answer in agent.answers:
                            answer["output" if kind.dialect == "openai_responses" else "content"] = RESULT
                        heard = await agent.answer(stream=stream)
                        assert MAIL in heard.text
                        second = proxy.view(agent.tape.call_id)
                    assert second.results[0].tool == "crm_read"
                    told = await _cli(tmp_path, "runs", "show", run)
                    assert ("not kept" in told) is (mode == "digest")
                    assert json.loads(await _cli(tmp_path, "runs", "show", run, "--json"))["call_count"] == 2
            await proxy.settled()
            nowhere = VALUES if mode == "redacted" else (*VALUES, WORDS)
            # What an agent never saw is put back as it was: kept for a day, out of what is content.
            assert stands(proxy.engine, *nowhere) <= {"state_unseen"}
            simulated = json.loads(
                await _cli(tmp_path, "policy", "simulate", str(tmp_path / "policy.yaml"), "--json")
            )
            assert simulated["unread"] == (0 if mode == "redacted" else 12)
            assert json.loads(await _cli(tmp_path, "audit", "verify", "--json"))["intact"]
