"""Crowds of calls against a limit for a hundred of them, and a vendor that counts how many come at once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.proxy import ProxyProcess, ask, config, headers, target
from tests.raw_upstream import Answer, RawUpstream, events, whole

CALLS = 500
ROOM = 100
WORKERS = 4
CAP = 12
PROMPT = 8
"""Tokens of `ask("hi")`, as counted and as reported."""
TOKENS, MICRO_USD = PROMPT + CAP, PROMPT + 2 * CAP
SLOW_S = 4.0
"""Longer than it takes a crowd to arrive, so that all of its calls are there at once."""
LIMITS: dict[str, dict[str, Any]] = {
    "requests": {"window": "day", "requests": ROOM},
    "tokens": {"window": "24h", "tokens": ROOM * TOKENS + TOKENS - 1},
    "usd": {"window": "month", "usd": (ROOM * MICRO_USD + MICRO_USD - 1) / 1e6},
    "tool_calls": {"window": "run", "tool_calls": ROOM},
    "writes": {"window": "day", "writes": ROOM},
    "concurrency": {"concurrency": ROOM},
}
USED = {
    "requests": ROOM,
    "tokens": ROOM * TOKENS,
    "micro_usd": ROOM * MICRO_USD,
    "tool_calls": ROOM,
    "writes": ROOM,
}
POLICY = {
    "policy": {"id": "p", "version": 1},
    "on_deny": "replace",
    "tools": {"pay": {"effect": "write", "tier": "autonomous", "args": {"type": "object"}}},
}


class Vendor(RawUpstream):
    """Answers at the cap, with words, slowly, or with a tool call, as the model's name says."""

    def __init__(self) -> None:
        super().__init__(_answer)
        self.now = self.most = self.total = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.total += 1
        self.most = max(self.most, self.now)
        try:
            await super().serve(reader, writer)
        finally:
            self.now -= 1

    def reset(self) -> None:
        self.most = self.total = 0
        self.bodies.clear()


def _answer(body: bytes) -> Answer:
    asked = json.loads(body)
    out = asked["max_completion_tokens"]
    usage = {"prompt_tokens": PROMPT, "completion_tokens": out, "total_tokens": PROMPT + out}
    pause = [SLOW_S] if asked["model"] == "slow" else []
    message: dict[str, Any] = {"role": "assistant", "content": "Hello there"}
    reason = "stop"
    if asked["model"] == "tool":
        call = {"id": "call_1", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
        message, reason = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    if not asked.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return [*pause, *whole(json.dumps({"choices": [choice], "usage": usage}).encode())]
    for number, call in enumerate(message.get("tool_calls", ())):
        call["index"] = number
    deltas = [{"index": 0, "delta": message}, {"index": 0, "delta": {}, "finish_reason": reason}]
    chunks: list[dict[str, Any]] = [{"choices": [delta]} for delta in deltas]
    frames = [*chunks, {"choices": [], "usage": usage}]
    return [
        *pause,
        *events(*(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames), b"data: [DONE]\n\n"),
    ]


def agent_of(unit: str, mode: str, number: int) -> str:
    return f"{unit}-{mode}-{number}"


def key_of(agent: str) -> str:
    return f"sk-{agent}-0123456789abcdef"


def settings(vendor: Vendor, store: str, rounds: int) -> dict[str, Any]:
    """Every round has an agent of its own; a limit counts each of its unit's agents by itself."""
    models = {
        name: {"targets": [target(name, vendor.base_url, name)], "retries": 0}
        for name in ("m", "slow", "tool")
    }
    agents = {
        agent_of(unit, mode, number): {"keys": [key_of(agent_of(unit, mode, number))], "models": ["*"]}
        for unit in LIMITS
        for mode in ("whole", "streamed")
        for number in range(rounds)
    }
    return config(
        vendor.base_url,
        store=store,
        models=models,
        agents=agents,
        prices={name: {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6} for name in models},
        budgets=[
            *({"id": unit, "agent": f"{unit}-*"} | limit for unit, limit in LIMITS.items()),
            {"id": "everyone", "window": "month", "usd": 1_000_000},
        ],
    )


@dataclass
class Answers:
    """What a crowd was told: calls answered, refused for want of budget, and tool calls that came through."""

    answered: int = 0
    refused: int = 0
    tool_calls: int = 0
    denied: int = 0


async def crowd(proxy: ProxyProcess, unit: str, mode: str, number: int, calls: int = CALLS) -> Answers:
    """So many calls at once, each over a connection of its own. AssertionError for any other answer."""
    agent, told = agent_of(unit, mode, number), Answers()
    model = {"concurrency": "slow", "tool_calls": "tool", "writes": "tool"}.get(unit, "m")
    body = ask("hi", model=model, max_completion_tokens=CAP, stream=mode == "streamed")
    sent = headers(key_of(agent), x_run_id="crowd")
    gate = asyncio.Event()

    async def one(http: aiohttp.ClientSession) -> None:
        await gate.wait()
        async with http.post(proxy.url, json=body, headers=sent) as reply:
            said = await reply.read()
        if reply.status == 429:
            assert json.loads(said)["error"]["code"] == "budget_exceeded"
            assert f"'{unit}'" in json.loads(said)["error"]["message"]
            told.refused += 1
            return
        assert reply.status == 200, said
        told.answered += 1
        told.tool_calls += b'"pay"' in said and b"denied" not in said
        told.denied += b"budget:" in said

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        every = [asyncio.create_task(one(http)) for _ in range(calls)]
        gate.set()
        await asyncio.gather(*every)
    return told
