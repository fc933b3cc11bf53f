"""What bounds asking again: money, and a caller who leaves; and what a reply that went on is known by."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.e2e.dialect_agents import speaking
from tests.e2e.test_replan import POLICY
from tests.proxy import ProxyProcess, ask, config, headers, until

_BAD = "{name: mail_send, arguments: {to: SECRET}}"
SCRIPT = f"""
default:
  turns:
    - {{when: {{last_user_contains: and now}}, text: Here I am.}}
    - {{when: {{last_user_contains: <slow>, tool_answered: mail_send}}, text: I go on., stall_after: 4}}
    - {{when: {{tool_answered: mail_send}}, text: I can not., usage: {{input: 40, output: 4}}}}
    - {{text: One moment., tool_calls: [{_BAD}], usage: {{input: 30, output: 20}}}}
"""
TOOLS: Any = [{"type": "function", "function": {"name": "mail_send", "parameters": {"type": "object"}}}]


@contextlib.asynccontextmanager
async def _house(
    folder: Path, *budgets: dict[str, Any], script: str = SCRIPT
) -> AsyncGenerator[tuple[ProxyProcess, Scripted]]:
    async with running(parse_script(script)) as upstream:
        targets = [speaking("openai_responses", "r", upstream.origin)]
        models = {
            "m": {"targets": [speaking("openai_chat", "c", upstream.origin)], "retries": 0},
            "r": {"targets": targets, "retries": 0},
        }
        settings = config(upstream.base_url, models=models, budgets=list(budgets))
        async with ProxyProcess(folder, settings, policy=POLICY) as proxy:
            yield proxy, upstream


async def _asked(proxy: ProxyProcess, run: str, **more: Any) -> tuple[str, str]:
    asked = ask("do it", tools=TOOLS, max_tokens=50) | more
    async with (
        aiohttp.ClientSession() as http,
        http.post(proxy.url, json=asked, headers=headers(x_run_id=run)) as reply,
    ):
        return (await reply.json())["choices"][0]["message"]["content"], reply.headers["x-call-id"]


async def test_without_room_the_agent_reads_the_note(tmp_path: Path) -> None:
    """A limit that the first reply fits into, and not the second's worst case, ends it there."""
    limit = {"id": "run", "agent": "bot", "window": "run", "output_tokens": 60}
    async with _house(tmp_path, limit) as (proxy, upstream):
        text, call = await _asked(proxy, "poor")
        assert "denied by rule 'prohibited'" in text
        assert upstream.stats.total == 1
        view = proxy.view(call)
        assert (view.status, [a.replan for a in view.attempts]) == (Status.OK, [0])
        assert proxy.used("run", "output_tokens") == 20
        # Where the caller sets no cap, the second reply is kept to what is left.
        text, call = await _asked(proxy, "rich", max_tokens=None)
        assert text == "One moment.\n\nI can not."
        assert proxy.view(call).topped_up == {} or proxy.view(call).topped_up["input_tokens"] > 0
        assert b'"max_completion_tokens":40' in upstream.seen[-1].body
        assert proxy.used("run", "output_tokens") == 20 + 24
        assert proxy.held_amounts() == 0


async def test_a_caller_who_leaves_meanwhile_is_charged_for_both(tmp_path: Path) -> None:
    limit = {"id": "day", "agent": "bot", "window": "day", "usd": 10}
    async with _house(tmp_path, limit) as (proxy, upstream):
        asked = ask("do it <slow>", tools=TOOLS, stream=True)
        async with aiohttp.ClientSession() as http:
            reply = await http.post(proxy.url, json=asked, headers=headers())
            got = b""
            async with asyncio.timeout(20):
                while b"\\n\\nI" not in got:
                    chunk = await reply.content.readany()
                    assert chunk, "the stream ended before its caller left"
                    got += chunk
            reply.close()
        await proxy.settled()
        (view,) = proxy.views()
        assert view.status is Status.CLIENT_GONE
        assert b"SECRET" not in got
        assert view.usage is not None
        assert view.usage.input > 60
        assert view.usage.output > 20
        assert len(view.rounds) == 1
        assert proxy.used("day", "micro_usd") == view.cost_micro_usd > 70
        assert proxy.held_amounts() == 0
        await until(lambda: upstream.stats.in_flight == 0, "the target was let go")


@pytest.mark.parametrize(("most", "fits"), [(400, False), (5_000, True)])
async def test_what_is_put_back_is_held_first(tmp_path: Path, most: int, fits: bool) -> None:
    """Where a budget has no room for it the model reads what its agent did."""
    limit = {"id": "run", "agent": "bot", "window": "run", "input_tokens": most}
    script = SCRIPT.replace("to: SECRET", f'to: "{"SECRET one two " * 300}"')
    async with _house(tmp_path, limit, script=script) as (proxy, upstream):
        text, _ = await _asked(proxy, "r")
        said = [{"role": "assistant", "content": text}, {"role": "user", "content": "and now"}]
        told, call = await _asked(proxy, "r", messages=[{"role": "user", "content": "do it"}, *said])
        assert told == "Here I am."
        assert (b"SECRET one two" in upstream.seen[-1].body) is fits
        assert (proxy.view(call).topped_up.get("input_tokens", 0) > 900) is fits
        assert proxy.held_amounts() == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_response_that_went_on_can_be_gone_on_from(tmp_path: Path, stream: bool) -> None:
    """By the id that its agent knows; the model is sent, or remembers, both of its turns."""
    tools: Any = [
        {"type": "function", "name": "mail_send", "parameters": {"type": "object"}, "strict": False}
    ]
    async with _house(tmp_path) as (proxy, upstream), proxy.sdk() as sdk:
        if stream:
            async with sdk.responses.stream(model="r", input="do it", tools=tools) as events:
                async for _ in events:
                    pass
                first = await events.get_final_response()
        else:
            first = await sdk.responses.create(model="r", input="do it", tools=tools)
        assert first.output_text == "One moment.I can not."
        after = await sdk.responses.create(
            model="r", input="and now?", tools=tools, previous_response_id=first.id
        )
        assert after.output_text == "Here I am."
        sent = upstream.seen[-1].body
        assert (b"I can not." in sent) is stream
        assert (b"previous_response_id" in sent) is not stream
