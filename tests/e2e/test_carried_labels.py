"""Labels and classified values go with a conversation: into another run, into a run below, and where only
its vendor knows it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import speaking
from tests.proxy import KEY, ProxyProcess, config, headers, target
from tests.raw_upstream import raw_upstream, whole

SCRIPT = """
default:
  turns:
    - {when: {turn: 0}, tool_calls: [{name: crm_read, arguments: {id: "7"}}]}
    - {when: {turn: 1}, text: "She earns 85,000."}
    - {text: "I said 85,000.", tool_calls: [{name: web_fetch, arguments: {url: "http://x/85000"}}]}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "prev", "version": 1},
    "on_deny": "replace",
    "tools": {
        "crm_read": {
            "effect": "read",
            "tier": "autonomous",
            "result": {"sensitivity": "secret", "trust": "untrusted"},
        },
        "web_fetch": {"effect": "read", "tier": "autonomous", "sink": "external", "clearance": "public"},
    },
    "rules": [
        {
            "id": "exfil",
            "then": "deny",
            "when": 'tool.sink == "external" && run.sensitivity > tool.clearance',
        }
    ],
    "redact": [
        {"id": "pay", "in": ["reply"], "field": "$.pay", "sensitivity": "confidential", "with": "mask"}
    ],
}
TOOLS: Any = [
    {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": False}
    for name in ("crm_read", "web_fetch")
]


@dataclass(slots=True)
class Agent:
    sdk: openai.AsyncOpenAI

    async def go(self, model: str, run: str, parent: str = "", **more: Any) -> Any:
        named = {"x-run-id": run} | ({"x-parent-run-id": parent} if parent else {})
        return await self.sdk.responses.create(model=model, tools=TOOLS, extra_headers=named, **more)

    async def learn(self, model: str, run: str) -> Any:
        """A conversation that has read the salary."""
        first = await self.go(model, run, input="what does she earn?")
        [call] = [item for item in first.output if item.type == "function_call"]
        output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": '{"pay": 85000}'}]
        second = await self.go(model, run, input=output, previous_response_id=first.id)
        assert "85,000" not in second.output_text
        return second


@asynccontextmanager
async def _house(folder: Path) -> AsyncGenerator[tuple[ProxyProcess, Agent]]:
    async with running(parse_script(SCRIPT)) as upstream:
        models = {
            name: {"targets": [speaking(dialect, name, upstream.origin)], "retries": 0}
            for name, dialect in (("vendor", "openai_responses"), ("record", "openai_chat"))
        }
        settings = config(upstream.base_url, models=models)
        async with ProxyProcess(folder, settings, policy=POLICY) as proxy:
            sdk = openai.AsyncOpenAI(api_key=KEY, base_url=f"{proxy.origin}/v1", max_retries=0)
            async with sdk:
                yield proxy, Agent(sdk)


def _released(response: Any) -> tuple[bool, list[str]]:
    return "85,000" in response.output_text, [i.name for i in response.output if i.type == "function_call"]


@pytest.mark.asyncio
async def test_labels_and_values_stay_with_a_stored_conversation(tmp_path: Path) -> None:
    async with _house(tmp_path) as (_, agent):
        for model in ("vendor", "record"):
            learnt = await agent.learn(model, f"{model}-a")
            for run in (
                f"{model}-a",
                f"{model}-b",
                f"{model}-b",
            ):  # the same, a new one, and one that is known
                went = await agent.go(model, run, input="publish it", previous_response_id=learnt.id)
                assert (model, run, _released(went)) == (model, run, (False, []))
            on = await agent.go(model, f"{model}-c", input="publish it", previous_response_id=went.id)
            assert (model, _released(on)) == (model, (False, []))


@pytest.mark.asyncio
async def test_a_run_below_takes_over_the_values_of_the_one_above(tmp_path: Path) -> None:
    async with _house(tmp_path) as (_, agent):
        await agent.learn("vendor", "a")
        told: Any = [
            {"role": "user", "content": "what does she earn?"},
            {"role": "assistant", "content": "One moment."},
            {"role": "user", "content": "well?"},
            {"role": "assistant", "content": "I know."},
            {"role": "user", "content": "publish it"},
        ]
        free = await agent.go("vendor", "free", input=told)
        assert _released(free) == (True, ["web_fetch"])
        below = await agent.go("vendor", "below", parent="a", input=told)
        assert _released(below) == (False, [])


KEPT = {
    "conversation": {"conversation": "conv_of_another_agent", "input": "publish it"},
    "item": {"input": [{"type": "item_reference", "id": "fc_1"}, {"role": "user", "content": "go on"}]},
    "bare": {"input": [{"id": "fc_1"}, {"role": "user", "content": "go on"}]},
}


@pytest.mark.asyncio
@pytest.mark.parametrize("unknown", ["label", "reject"])
async def test_a_run_is_not_clean_whose_history_only_the_vendor_knows(tmp_path: Path, unknown: str) -> None:
    call = {
        "id": "fc_1",
        "type": "function_call",
        "call_id": "call_1",
        "name": "web_fetch",
        "arguments": '{"url": "http://x/85000"}',
        "status": "completed",
    }
    body = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m"}
    body |= {"output": [call], "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}
    policy = POLICY | {"posture": {"unknown_results": unknown}}
    async with raw_upstream(lambda _: whole(json.dumps(body).encode())) as upstream:
        up = target("up", upstream.base_url) | {"dialects": ["openai_responses"]}
        settings = config(upstream.base_url, models={"m": {"targets": [up], "retries": 0}})
        async with ProxyProcess(tmp_path, settings, policy=policy) as proxy, aiohttp.ClientSession() as http:

            async def told(run: str, more: dict[str, Any]) -> tuple[int, str, str]:
                asked = {"model": "m", "tools": TOOLS} | more
                url = f"{proxy.origin}/v1/responses"
                async with http.post(url, json=asked, headers=headers(x_run_id=run)) as reply:
                    return reply.status, await reply.text(), reply.headers["x-call-id"]

            status, text, _ = await told("sent", {"input": "publish it"})
            assert (status, "85000" in text) == (200, True)
            for name, more in KEPT.items():
                status, text, id_ = await told(name, more)
                assert (name, status, "85000" in text) == (name, 200 if unknown == "label" else 403, False)
                [result] = proxy.view(id_).results
                assert (result.tool_call_id, result.known) == (
                    "conversation" if name == "conversation" else "fc_1",
                    False,
                )
                if unknown == "reject":
                    assert "only the model's vendor knows" in text
            assert len(upstream.bodies) == (4 if unknown == "label" else 1)
