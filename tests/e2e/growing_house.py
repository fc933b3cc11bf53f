"""A proxy whose streams begin with a small hold, and callers of three SDKs that read them to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import openai
from sqlalchemy import Engine

from llm_proxy.records.ids import now_us, uuid7
from llm_proxy.records.migrate import upgrade
from llm_proxy.records.tables import calls
from llm_proxy.records.view import CallView
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.e2e.dialect_agents import speaking
from tests.proxy import ProxyProcess, config

LARGEST = 32_000
LONG = 6_000
"""Words of the long reply, a token each; its server counts three bytes of them as three quarters of one."""
REPORTED = LONG * 3 // 4
CALLERS = ("openai_chat", "openai_responses", "anthropic_messages")
SCRIPT = f"""
models:
  broken: {{turns: [{{status: 500}}]}}
default:
  turns:
    - {{when: {{last_user_contains: warm}}, text: so on}}
    - {{when: {{last_user_contains: short}}, text: "{"so on " * 100}", deltas: 10, latency_s: 1.5}}
    - when: {{last_user_contains: tool}}
      delta_s: 0.05
      tool_calls: [{{name: f, arguments: {{a: "{"so on " * 3_000}"}}}}]
    - {{when: {{last_user_contains: slowly}}, text: "{"so on " * (LONG // 2)}", deltas: 250, delta_s: 0.04}}
    - {{text: "{"so on " * (LONG // 2)}", deltas: 250, delta_s: 0.008}}
"""
PRICE = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_output_tokens": LARGEST}


def key_of(agent: str) -> str:
    return f"sk-{agent}-0123456789abcdef"


@dataclass
class House:
    proxy: ProxyProcess
    upstream: Scripted

    def caller(self, agent: str, dialect: str, model: str = "m") -> Caller:
        return Caller(self.proxy, agent, dialect, model if dialect == CALLERS[0] else f"{model}-{dialect}")

    def tokens(self, limit: str) -> tuple[int, int]:
        """Used and held under a limit."""
        rows = [row for key, row in self.proxy.counters().items() if key.split("|")[0] == limit]
        return tuple(sum(row.get(f"{what}_tokens", 0) for row in rows) for what in ("used", "held"))  # type: ignore[return-value]

    def only_view(self, agent: str) -> CallView:
        (view,) = self.proxy.views(agent=agent)
        return view


@dataclass
class Caller:
    """One streamed call. `said` is what came; `error` how it ended, where it didn't end well."""

    proxy: ProxyProcess
    agent: str
    dialect: str
    model: str
    said: str = ""
    began: asyncio.Event = field(default_factory=asyncio.Event)
    error: Any = None

    async def asks(self, text: str, **more: Any) -> Caller:
        try:
            async for piece in getattr(self, f"_{self.dialect}")(text, **more):
                self.said += piece
                self.began.set()
        except (openai.APIError, anthropic.APIError) as error:
            self.error = error
        return self

    async def _openai_chat(self, text: str, **more: Any) -> AsyncGenerator[str]:
        async with self.proxy.sdk(key_of(self.agent)) as sdk:
            asked = [{"role": "user", "content": text}]
            stream: Any = await sdk.chat.completions.create(
                model=self.model,
                messages=asked,  # type: ignore[arg-type]
                stream=True,
                **more,
            )
            async for chunk in stream:
                for choice in chunk.choices:
                    yield choice.delta.content or ""

    async def _openai_responses(self, text: str, **more: Any) -> AsyncGenerator[str]:
        async with self.proxy.sdk(key_of(self.agent)) as sdk:
            stream: Any = await sdk.responses.create(model=self.model, input=text, stream=True, **more)
            async for event in stream:
                if event.type == "response.output_text.delta":
                    yield event.delta

    async def _anthropic_messages(self, text: str, **more: Any) -> AsyncGenerator[str]:
        sdk = anthropic.AsyncAnthropic(base_url=self.proxy.origin, api_key=key_of(self.agent), max_retries=0)
        asked: Any = [{"role": "user", "content": text}]
        async with (
            sdk,
            sdk.messages.stream(model=self.model, messages=asked, max_tokens=LARGEST, **more) as stream,
        ):
            async for piece in stream.text_stream:
                yield piece


def settings(upstream: Scripted, budgets: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Model `m` in each dialect, `hold: expected`; `w` holds its worst case, `d` drains."""

    def model(name: str, dialect: str, **keys: Any) -> dict[str, Any]:
        return {"targets": [speaking(dialect, name, upstream.origin, name)], "retries": 0, **keys}

    models = {f"m-{dialect}": model(f"m-{dialect}", dialect, hold="expected") for dialect in CALLERS[1:]}
    models["m"] = model("m", CALLERS[0], hold="expected")
    models["w"] = model("w", CALLERS[0])
    models["d"] = model("d", CALLERS[0], hold="expected", on_leave="drain")
    models["h"] = model("h", CALLERS[0], hold="expected", hedge_after=9.0)
    models["h"]["targets"].append(speaking(CALLERS[0], "h-2", upstream.origin, "h"))
    models["f"] = model("f", CALLERS[0], hold="expected")
    models["f"]["targets"].insert(0, speaking(CALLERS[0], "broken", upstream.origin, "broken"))
    models["new"] = model("new", CALLERS[0], hold="expected")
    agents = [budget["agent"] for budget in budgets]
    return config(
        upstream.base_url,
        models=models,
        agents={agent: {"keys": [key_of(agent)], "models": ["*"]} for agent in agents},
        prices=dict.fromkeys(models, PRICE),
        budgets=[{"id": budget["agent"], "window": "day"} | budget for budget in budgets],
        **more,
    )


def remembered(engine: Engine, target: str, tokens: int, count: int = 500) -> None:
    """Puts so many whole replies of a target into the store, as if they had been served."""
    now = now_us() - count
    told = {"run_id": "r", "agent_id": "a", "team": "", "user_id": "", "key_id": "k", "stream": True}
    told |= {"dialect": CALLERS[0], "model": target, "target": target, "status": "ok"}
    rows = [
        {**told, "id": uuid7(now + n), "started_us": now + n, "output_tokens": tokens} for n in range(count)
    ]
    with engine.begin() as connection:
        connection.execute(calls.insert(), rows)


@asynccontextmanager
async def growing(
    folder: Path, budgets: list[dict[str, Any]], *, store: str = "", **more: Any
) -> AsyncGenerator[House]:
    """The house, on a store in which every model but `new` has given five hundred short replies."""
    async with running(parse_script(SCRIPT)) as upstream:
        told = settings(upstream, budgets, store=store or f"sqlite:///{folder / 'store.db'}")
        proxy = ProxyProcess(folder, told, **more)
        upgrade(proxy.engine)
        for target in ("m", "w", "d", "h", "f", *(f"m-{dialect}" for dialect in CALLERS[1:])):
            remembered(proxy.engine, target, 2)
        async with proxy:
            yield House(proxy, upstream)


async def watched(house: House, limit: str, work: asyncio.Task[Any], maximum: int) -> list[int]:
    """What is held under a limit while `work` runs, wherever it changes. AssertionError past the maximum."""
    held: list[int] = []
    while not work.done():
        used, now = house.tokens(limit)
        assert used + now <= maximum
        if now and now not in held[-1:]:
            held.append(now)
        await asyncio.sleep(0.01)
    return held
