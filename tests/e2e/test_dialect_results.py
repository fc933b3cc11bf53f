"""A tool's result names the call as the agent was given it, also where a dialect can't spell its id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.proxy import ProxyProcess, config, headers
from tests.raw_upstream import Answer, raw_upstream, whole

ID = "functions.crm_read:0|abc"
POLICY: dict[str, Any] = {
    "policy": {"id": "strict", "version": 1, "owner": "o@example.com"},
    "posture": {"default": "deny", "unknown_results": "reject"},
    "tools": {"crm_read": {"effect": "read", "tier": "autonomous", "result": {"trust": "internal"}}},
}


def _answer(body: bytes) -> Answer:
    asked = json.loads(body)
    answered = any(message["role"] == "tool" for message in asked["messages"])
    call = {"id": ID, "type": "function", "function": {"name": "crm_read", "arguments": "{}"}}
    message = {"role": "assistant", "content": "Done." if answered else None}
    if not answered:
        message["tool_calls"] = [call]  # type: ignore[assignment]
    finish = "stop" if answered else "tool_calls"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    return whole(json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage}).encode())


@pytest.mark.parametrize("changed", [False, True])
async def test_a_result_is_known_by_the_id_that_the_agent_was_given(tmp_path: Path, changed: bool) -> None:
    async with (
        raw_upstream(_answer) as upstream,
        ProxyProcess(tmp_path, config(upstream.base_url), policy=POLICY) as proxy,
        aiohttp.ClientSession(headers=headers(**{"x-run-id": "run-1"})) as http,
    ):
        said: list[Any] = [{"role": "user", "content": "look it up"}]
        asked = {"model": "m", "max_tokens": 99, "tools": [{"name": "crm_read", "input_schema": {}}]}
        url = f"{proxy.base_url}/messages"
        async with http.post(url, json={**asked, "messages": said}) as reply:
            first = await reply.json()
        call = next(block for block in first["content"] if block["type"] == "tool_use")
        assert call["id"] != ID
        id_ = "toolu_made_up" if changed else call["id"]
        said += [
            {"role": "assistant", "content": [{**call, "id": id_}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id_, "content": "7"}]},
        ]
        async with http.post(url, json={**asked, "messages": said}) as reply:
            second = await reply.json()
        if changed:
            assert (reply.status, second["error"]["code"]) == (403, "policy_denied")
            return
        assert (reply.status, second["content"][0]["text"]) == (200, "Done.")
        (told,) = proxy.view(reply.headers["x-call-id"]).results
        assert (told.tool, told.known) == ("crm_read", True)
