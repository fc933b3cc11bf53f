"""Anthropic's count of tokens: forwarded where the model's server counts, else counted here, and free."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import UPSTREAMS, speaking
from tests.e2e.scripted_house import House
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK: list[Any] = [{"role": "user", "content": "How many otters are there in the river?"}]
SYSTEM = "You count otters. " * 50
TOOLS: list[Any] = [
    {"name": "count", "description": "Counts otters. " * 50, "input_schema": {"type": "object"}}
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script("default: {turns: [{text: Hi}]}")) as upstream:
        settings = config(
            upstream.base_url,
            models={name: {"targets": [speaking(name, name, upstream.origin)]} for name in UPSTREAMS},
            agents={
                "bot": {"keys": [KEY], "models": ["*"]},
                "last": {"keys": [OTHER_KEY], "models": ["*"]},
            },
            budgets=[
                {
                    "id": "counted",
                    "agent": "bot",
                    "window": "day",
                    "requests": 1000,
                    "tokens": 10**6,
                    "usd": 1,
                },
                {"id": "one", "agent": "last", "window": "day", "requests": 1},
            ],
        )
        async with ProxyProcess(tmp_path_factory.mktemp("counts"), settings) as proxy:
            yield House(proxy, upstream)


def _claude(proxy: ProxyProcess, key: str = KEY) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=proxy.origin, api_key=key, max_retries=0)


@pytest.mark.parametrize("model", UPSTREAMS)
async def test_a_count(house: House, model: str) -> None:
    house.upstream.reset()
    proxy, native = house.proxy, model == "anthropic_messages"
    before = [proxy.used("counted", unit) for unit in ("requests", "tokens", "micro_usd")]
    async with _claude(proxy) as claude:
        bare = await claude.messages.count_tokens(model=model, messages=ASK)
        asked: dict[str, Any] = {"system": SYSTEM, "tools": TOOLS}
        raw = await claude.messages.with_raw_response.count_tokens(model=model, messages=ASK, **asked)
    full = await raw.parse()
    assert 5 < bare.input_tokens < 40
    assert full.input_tokens > bare.input_tokens + 150, "system and tools count too"
    assert house.upstream.stats.total == (2 if native else 0)
    if native:
        assert house.upstream.seen[-1].path == "/v1/messages/count_tokens"
        assert house.upstream.seen[-1].headers["x-api-key"] == "sk-upstream"
    await proxy.settled()
    used = [proxy.used("counted", unit) for unit in ("requests", "tokens", "micro_usd")]
    assert used == [before[0] + 2, *before[1:]], "a count is a request and costs nothing else"
    view = proxy.view(raw.headers["x-call-id"])
    assert (view.status, view.operation, view.cost_micro_usd) == (Status.OK, "count_tokens", 0)
    assert view.dialect == "anthropic_count_tokens"
    assert str(full.input_tokens).encode() in (view.emitted or b"")


@pytest.mark.parametrize("model", UPSTREAMS[:1])
async def test_counts_run_into_the_limit_on_requests(house: House, model: str) -> None:
    async with _claude(house.proxy, OTHER_KEY) as claude:
        assert (await claude.messages.count_tokens(model=model, messages=ASK)).input_tokens > 0
        with pytest.raises(anthropic.RateLimitError):
            await claude.messages.count_tokens(model=model, messages=ASK)


async def test_a_count_of_an_unknown_model(house: House) -> None:
    async with _claude(house.proxy) as claude:
        with pytest.raises(anthropic.NotFoundError, match="GET /v1/models"):
            await claude.messages.count_tokens(model="nope", messages=ASK)
