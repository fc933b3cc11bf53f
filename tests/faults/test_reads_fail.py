"""The store can be written, and a read that a call needs fails: the call is refused as if it were down."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import ProxyProcess, config, headers

SCRIPT = """
default:
  turns:
    - {when: {last_user_contains: wipe, has_tool_result: false}, tool_calls: [{name: wipe, arguments: {}}]}
    - {text: Hello}
"""
TOOLS = [{"type": "function", "function": {"name": "wipe", "parameters": {"type": "object"}}}]
WIPE: dict[str, Any] = {"model": "m", "tools": TOOLS, "messages": [{"role": "user", "content": "wipe it"}]}
AGAIN: dict[str, Any] = WIPE | {
    "messages": [
        *WIPE["messages"],
        {"role": "assistant", "content": "Nobody said this."},
        {"role": "user", "content": "Again"},
    ],
}
POLICY = {
    "policy": {"id": "closed", "version": 1, "owner": "o@example.com", "mode": "enforce"},
    "posture": {"default": "deny"},
}


async def _asked(proxy: ProxyProcess, path: str, body: dict[str, Any] | None) -> tuple[int, str, str | None]:
    """Status, `code` and `retry-after`."""
    async with (
        aiohttp.ClientSession(headers=headers(x_run_id="r")) as http,
        http.request("GET" if body is None else "POST", proxy.base_url + path, json=body) as reply,
    ):
        told = await reply.read()
        code = "" if reply.status == 200 else json.loads(told)["error"]["code"]
        return reply.status, code, reply.headers.get("retry-after")


async def test_a_call_whose_read_fails_is_told_that_the_store_is_unavailable(tmp_path: Path) -> None:
    async with (
        running(parse_script(SCRIPT)) as upstream,
        ProxyProcess(tmp_path, config(upstream.base_url), policy=POLICY, store_may_fail=True) as proxy,
    ):
        asks: list[tuple[str, dict[str, Any] | None]] = [
            ("/responses/resp_unknown", None),
            ("/responses", {"model": "m", "input": "Hi", "previous_response_id": "resp_unknown"}),
            ("/chat/completions", AGAIN),
        ]
        assert (await _asked(proxy, "/chat/completions", WIPE))[0] == 200  # denied, which the agent never saw
        before = [await _asked(proxy, *one) for one in asks]
        assert [status for status, _, _ in before] == [400, 400, 200]
        sent = upstream.stats.total
        with contextlib.closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
            for table in ("state_responses", "state_unseen"):
                other.execute(f"ALTER TABLE {table} RENAME TO away_{table}")
            for one in asks:
                assert await _asked(proxy, *one) == (503, "store_unavailable", "2"), one
            assert upstream.stats.total == sent, "a call was sent all the same"
            for table in ("state_responses", "state_unseen"):
                other.execute(f"ALTER TABLE away_{table} RENAME TO {table}")
        assert [await _asked(proxy, *one) for one in asks] == before
