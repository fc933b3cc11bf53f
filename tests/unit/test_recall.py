"""Conversations read back from the record by the id of a response, for the agent who had them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_proxy.archive.recall import Recalled, recall
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import ProxyProcess, config, target, until

SCRIPT = """
default:
  turns:
    - when: {turn: 0}
      tool_calls: [{name: order, arguments: {id: 7}, id: call_7}]
      usage: {input: 40, output: 10}
    - {text: It was shipped., usage: {input: 70, output: 5}}
"""


async def test_a_conversation_is_read_back_in_order(tmp_path: Path) -> None:
    async with running(parse_script(SCRIPT)) as upstream:
        models = {"m": {"targets": [target("up", upstream.base_url) | {"dialects": ["openai_chat"]}]}}
        settings = config(upstream.base_url, models=models)
        async with ProxyProcess(tmp_path, settings) as proxy, proxy.sdk() as sdk:
            tools: Any = [{"type": "function", "name": "order", "parameters": {}, "strict": False}]
            first = await sdk.responses.create(model="m", input="Where is it?", tools=tools)
            answer: Any = {"type": "function_call_output", "call_id": "call_7", "output": "shipped"}
            second = await sdk.responses.create(
                model="m", input=[answer], tools=tools, previous_response_id=first.id
            )
            await until(lambda: len(proxy.views(status="ok")) == 2, "both are recorded")

            def read(agent: str, response: str) -> Recalled | None:
                with proxy.engine.connect() as connection:
                    return recall(connection, agent, response)

            found = read("bot", second.id)
            assert found is not None
            items = [json.loads(item) for item in found.items]
            assert items[0] == {"role": "user", "content": "Where is it?"}
            assert [item.get("type") for item in items[1:]] == [
                "function_call",
                "function_call_output",
                "message",
            ]
            assert items[2] == answer
            assert items[3]["content"][0]["text"] == "It was shipped."
            assert found.tokens == 75, "the newest call's: it held all of what was said before"
            shorter = read("bot", first.id)
            assert shorter is not None
            assert found.items[: len(shorter.items)] == shorter.items
            assert shorter.tokens == 50
            assert read("other", second.id) is None
            assert read("bot", "resp_" + "0" * 32) is None
            assert read("bot", "nonsense") is None

            for damage in (
                "UPDATE blobs SET codec = 'zstd', data = x'00'",
                "UPDATE blobs SET codec = 'none'",
                "UPDATE records SET body = x'7b' WHERE kind = 'call.closed'",
                "UPDATE records SET body = '{' WHERE kind = 'call.closed'",
            ):
                with proxy.engine.begin() as connection:
                    connection.exec_driver_sql(damage)
                assert read("bot", second.id) is None, damage
            with pytest.raises(openai.BadRequestError, match="send the whole conversation as input"):
                await sdk.responses.create(model="m", input="And?", previous_response_id=second.id)
