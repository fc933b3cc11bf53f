"""Review of issue 6: a stored conversation that goes on in another run leaves its labels behind."""

from __future__ import annotations

import json
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
    - {when: {turn: 2}, text: "I said 85,000.", tool_calls: [{name: web_fetch, arguments: {url: "http://x/85000"}}]}
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


@pytest.mark.asyncio
@pytest.mark.parametrize("last", ["a", "b"], ids=["the same run", "another run"])
@pytest.mark.parametrize("kept_by", ["openai_responses", "openai_chat"], ids=["vendor", "record"])
async def test_labels_stay_with_a_stored_conversation(tmp_path: Path, last: str, kept_by: str) -> None:
    async with running(parse_script(SCRIPT)) as upstream:
        models = {"m": {"targets": [speaking(kept_by, "m", upstream.origin)], "retries": 0}}
        settings = config(upstream.base_url, models=models)
        async with ProxyProcess(tmp_path, settings, policy=POLICY) as proxy:
            sdk = openai.AsyncOpenAI(api_key=KEY, base_url=f"{proxy.origin}/v1", max_retries=0)

            async def go(run: str, **more: Any) -> Any:
                return await sdk.responses.create(
                    model="m", tools=TOOLS, extra_headers={"x-run-id": run}, **more
                )

            first = await go("a", input="what does she earn?")
            [call] = [item for item in first.output if item.type == "function_call"]
            output: Any = [
                {"type": "function_call_output", "call_id": call.call_id, "output": '{"pay": 85000}'}
            ]
            second = await go("a", input=output, previous_response_id=first.id)
            assert "85,000" not in second.output_text
            third = await go(last, input="publish it", previous_response_id=second.id)
            released = [item.name for item in third.output if item.type == "function_call"]
            assert ("85,000" in third.output_text, released) == (False, [])
            await sdk.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "more",
    [
        {"conversation": "conv_of_another_agent"},
        {"input": [{"type": "item_reference", "id": "fc_of_another"}, {"role": "user", "content": "go on"}]},
    ],
    ids=["conversation", "item_reference"],
)
async def test_a_run_is_not_clean_whose_history_only_the_vendor_knows(
    tmp_path: Path, more: dict[str, Any]
) -> None:
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
    async with raw_upstream(lambda _: whole(json.dumps(body).encode())) as upstream:
        up = target("up", upstream.base_url) | {"dialects": ["openai_responses"]}
        settings = config(upstream.base_url, models={"m": {"targets": [up], "retries": 0}})
        async with ProxyProcess(tmp_path, settings, policy=POLICY) as proxy, aiohttp.ClientSession() as http:
            asked = {"model": "m", "input": "publish it", "tools": TOOLS} | more
            url = f"{proxy.origin}/v1/responses"
            async with http.post(url, json=asked, headers=headers(x_run_id="clean")) as reply:
                told = await reply.text()
            assert reply.status != 200 or "85000" not in told, (upstream.bodies[-1][:300], told[:300])
