"""A call that has ended leaves nothing behind: its bodies aren't kept until garbage is collected."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn

from llm_proxy.app import Application
from llm_proxy.config import load_config
from llm_proxy.exchange import Exchange
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import ask, config, free_port, headers, target, until

SCRIPT = """
default:
  turns:
    - {when: {model: slow}, text: one two three four five six, delta_s: 0.1}
    - {when: {model: late}, text: late, latency_s: 0.5}
    - {when: {model: bad}, status: 500}
    - {when: {model: cut}, text: one two three four, cut_after: 3}
    - {when: {model: tools}, tool_calls: [{name: pay, arguments: {}}, {name: drop, arguments: {}}]}
    - {text: Hello there.}
"""
POLICY = {
    "policy": {"id": "p", "version": 1},
    "on_deny": "replan",
    "tools": {"pay": {"effect": "write", "tier": "autonomous", "args": {"type": "object"}}},
}
CALLS: list[tuple[str, dict[str, Any], int]] = [
    ("chat/completions", ask(), 200),
    ("chat/completions", ask(stream=True), 200),
    ("chat/completions", ask(model="tools"), 200),
    ("chat/completions", ask(model="tools", stream=True), 200),
    ("chat/completions", ask(model="bad"), 502),
    ("chat/completions", ask(model="saved"), 200),
    ("chat/completions", ask(model="hedged", stream=True), 200),
    ("chat/completions", ask(model="cut", stream=True), 200),
    ("chat/completions", ask(model="none"), 404),
    ("chat/completions", ask(model="poor"), 429),
    ("chat/completions", {"model": "m"}, 400),
    ("messages", ask(max_tokens=9), 200),
    ("messages", ask(max_tokens=9, stream=True), 200),
    ("responses", {"model": "m", "input": "hi", "stream": True}, 200),
    ("embeddings", {"model": "m", "input": "hi"}, 200),
]


def _settings(url: str, folder: Path) -> dict[str, Any]:
    ids = itertools.count()

    def model(*names: str, **more: Any) -> dict[str, Any]:
        targets = [target(f"t{next(ids)}", url, name) for name in names]
        return {"targets": targets, "retries": 0, **more}

    price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    return config(
        url,
        store=f"sqlite:///{folder / 'store.db'}",
        policy=str(folder / "policy.yaml"),
        models={name: model(name) for name in ("m", "tools", "bad", "cut", "poor", "slow")}
        | {"saved": model("bad", "m"), "hedged": model("late", "m", hedge_after=0.05)},
        prices=dict.fromkeys(("m", "tools", "bad", "cut", "poor", "slow", "late"), price),
        budgets=[
            {"id": "day", "window": "day", "usd": 50},
            {"id": "poor", "model": "poor", "window": "day", "usd": 1e-6},
        ],
    )


@asynccontextmanager
async def _serving(folder: Path, settings: dict[str, Any]) -> AsyncGenerator[str]:
    """The proxy in this very process, so that its objects can be counted."""
    (folder / "policy.yaml").write_text(json.dumps(POLICY))
    (folder / "proxy.yaml").write_text(json.dumps(settings))
    app = Application(load_config(folder / "proxy.yaml", {}))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="on", log_config=None))
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started, "it serves")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        await task


def _exchanges() -> int:
    return sum(isinstance(found, Exchange) for found in gc.get_objects())


async def _leaves(http: aiohttp.ClientSession, base: str) -> None:
    """Reads the beginning of a stream, and goes."""
    body = ask(model="slow", stream=True)
    async with http.post(f"{base}/chat/completions", json=body, headers=headers()) as reply:
        await reply.content.readany()
        reply.close()


async def test_an_ended_call_is_gone_without_a_collection(tmp_path: Path) -> None:
    async with (
        running(parse_script(SCRIPT)) as upstream,
        _serving(tmp_path, _settings(upstream.base_url, tmp_path)) as base,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http,
    ):
        gc.collect()
        gc.disable()
        try:
            kept: list[str] = []
            for path, body, status in CALLS:
                async with http.post(f"{base}/{path}", json=body, headers=headers()) as reply:
                    got = await reply.read()
                    assert reply.status == status, (path, body, got)
                if not await _gone():
                    kept.append(f"{path} {body}")
                    gc.collect()
            await _leaves(http, base)
            if not await _gone():
                kept.append("a caller who left")
            assert kept == []
        finally:
            gc.enable()


async def _gone() -> bool:
    for _ in range(100):
        if _exchanges() == 0:
            return True
        await asyncio.sleep(0.02)
    return False
