"""A proxy whose models are a script's, each with one target and settings of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.scripted_house import House
from tests.proxy import ProxyProcess, ask, config, target


@asynccontextmanager
async def timed_house(
    folder: Path, script: str, settings: Mapping[str, dict[str, Any]], price: dict[str, float]
) -> AsyncGenerator[House]:
    """`settings` by model; its model `good` was called once, since the first call loads the encoding."""
    parsed = parse_script(script)
    async with running(parsed) as upstream:
        told = config(
            upstream.base_url,
            models={
                name: {"targets": [target(name, upstream.base_url, name)], "retries": 0}
                | settings.get(name, {})
                for name in parsed.models
            },
            prices=dict.fromkeys(parsed.models, price),
            budgets=[{"id": "day", "window": "day", "usd": 5, "requests": 900, "tokens": 10**7}],
        )
        async with ProxyProcess(folder, told) as proxy:
            async with proxy.sdk() as sdk:
                await sdk.chat.completions.create(**ask(model="good"))
            yield House(proxy, upstream)
