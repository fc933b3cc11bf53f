"""Costs through the real proxy: kinds and tiers as upstreams report them, what is held, the version."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import aiohttp
import anthropic
import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import select

from llm_proxy.pricing.price import Price
from llm_proxy.pricing.row import price_of
from llm_proxy.records.tables import calls, prices
from llm_proxy.records.view import CallView, CostLabel
from tests.proxy import KEY, ProxyProcess, ask, config, headers, target
from tests.raw_upstream import Answer, events, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = "an-admin-token-of-some-length"
PRICE = {
    "input_cost_per_token": 1e-6,
    "output_cost_per_token": 2e-6,
    "cache_creation_input_token_cost": 2e-6,
    "cache_creation_input_token_cost_above_1hr": 4e-6,
    "input_cost_per_audio_token": 5e-6,
    "input_cost_per_token_priority": 10e-6,
    "output_cost_per_token_priority": 20e-6,
    "input_cost_per_token_flex": 5e-7,
    "output_cost_per_token_flex": 1e-6,
    "input_cost_per_token_above_2k_tokens": 50e-6,
    "output_cost_per_token_above_2k_tokens": 60e-6,
}
DEAREST, DEAREST_PRIORITY = (5, 2), (10, 20)
"""Micro-dollars a token: sound costs the most of a prompt in the standard tier."""


@dataclass
class House:
    proxy: ProxyProcess
    answer: list[Answer] = field(default_factory=list)

    async def call(self, **asked: Any) -> CallView:
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                self.proxy.base_url + "/chat/completions",
                json=ask(max_tokens=100, **asked),
                headers=headers(KEY),
            ) as reply,
        ):
            assert reply.status == 200, await reply.text()
            await reply.read()
        await self.proxy.settled()
        return self.proxy.view(reply.headers["x-call-id"])

    def price(self, version: str) -> Price:
        """The price as the store keeps it."""
        with self.proxy.engine.connect() as connection:
            row = connection.execute(select(prices).where(prices.c.version == version)).one()
        kept = msgspec.json.decode(row.rates, type=dict[str, float])
        price = price_of(kept, row.provider, row.model, version.partition(":")[0])
        assert price is not None
        return price


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    answer: list[Answer] = []
    async with raw_upstream(lambda _: answer[0]) as raw:
        claude = target("claude", raw.base_url.removesuffix("/v1"), "claude-haiku-4-5")
        settings = config(
            raw.base_url,
            server={"admin_token": ADMIN, "drain_s": 1},
            models={
                "m": {"targets": [target("up", raw.base_url)], "retries": 0},
                "mini": {"targets": [target("mini", raw.base_url, "gpt-4o-mini")], "retries": 0},
                "claude": {"targets": [claude | {"provider": "anthropic"}], "retries": 0},
            },
            prices={"m": PRICE},
            budgets=[{"id": "day", "window": "day", "usd": 100, "tokens": 10**9}],
        )
        async with ProxyProcess(tmp_path_factory.mktemp("prices"), settings) as proxy:
            yield House(proxy, answer)


def said(usage: dict[str, Any], **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    return {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "choices": [choice],
        "usage": usage,
    } | fields


def streamed(usage: dict[str, Any], **fields: Any) -> Answer:
    one = {"id": "c", "object": "chat.completion.chunk", "model": "m"} | fields
    choice = {"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    chunks = [one | {"choices": [choice]}, one | {"choices": [], "usage": usage}]
    return events(*[b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks], b"data: [DONE]\n\n")


USED = {"prompt_tokens": 1_000, "completion_tokens": 50, "total_tokens": 1_050}
HEARD = USED | {"prompt_tokens_details": {"audio_tokens": 300}}
LONG = USED | {"prompt_tokens": 2_001, "total_tokens": 2_051}
CASES = {
    "plain": ({}, USED, {}, "", 1_100),
    "as asked": ({"service_tier": "flex"}, USED, {}, "flex", 550),
    "as reported": ({"service_tier": "flex"}, USED, {"service_tier": "default"}, "", 1_100),
    "reported alone": ({}, USED, {"service_tier": "flex"}, "flex", 550),
    "chosen by the vendor": (
        {"service_tier": "auto"},
        USED,
        {"service_tier": "priority"},
        "priority",
        11_000,
    ),
    "a tier without a price": ({}, USED, {"service_tier": "odd"}, "odd", 1_100),
    "odd": ({}, USED, {"service_tier": ["odd"]}, "", 1_100),
    "sound": ({}, HEARD, {}, "", 700 + 1_500 + 100),
    "a long prompt": ({}, LONG, {}, "", 2_001 * 50 + 50 * 60),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CASES)
async def test_what_is_reported_is_what_is_charged(house: House, case: str, *, stream: bool) -> None:
    asked, usage, fields, tier, micro_usd = CASES[case]
    body = json.dumps(said(usage, **fields)).encode()
    house.answer[:] = [streamed(usage, **fields) if stream else whole(body)]
    before = house.proxy.used("day", "micro_usd")
    view = await house.call(stream=stream, **asked)
    assert (view.cost_micro_usd, view.cost_label) == (micro_usd, CostLabel.REPORTED)
    assert view.tier == tier
    assert house.proxy.used("day", "micro_usd") - before == micro_usd
    assert view.usage is not None
    assert house.price(view.price).micro_usd(view.usage, view.tier) == micro_usd
    with house.proxy.engine.connect() as connection:
        kept = connection.execute(select(calls.c.price).where(calls.c.id == view.id)).scalar_one()
    assert kept == view.price


@pytest.mark.parametrize(
    ("asked", "rates"),
    [
        ({}, DEAREST),
        ({"service_tier": "default"}, DEAREST),
        ({"service_tier": None}, DEAREST),
        ({"service_tier": "flex"}, DEAREST),
        ({"service_tier": "priority"}, DEAREST_PRIORITY),
        ({"service_tier": "fast"}, DEAREST_PRIORITY),
        ({"service_tier": "auto"}, DEAREST_PRIORITY),
        ({"service_tier": "never heard of"}, DEAREST_PRIORITY),
    ],
)
async def test_the_dearest_tier_that_a_request_may_lead_to_is_held(
    house: House, asked: dict[str, Any], rates: tuple[int, int]
) -> None:
    house.answer[:] = [whole(json.dumps(said(USED)).encode())]
    view = await house.call(**asked)
    per_input, per_output = rates
    assert view.held["micro_usd"] == per_input * view.held["input_tokens"] + per_output * 100


async def test_a_prompt_that_may_pass_the_threshold_is_held_at_the_dearer_rate(house: House) -> None:
    house.answer[:] = [whole(json.dumps(said(LONG)).encode())]
    view = await house.call(text="word " * 2_100)
    assert view.held["input_tokens"] > 2_000
    assert view.held["micro_usd"] == 50 * view.held["input_tokens"] + 60 * 100
    assert view.cost_micro_usd <= view.held["micro_usd"]


async def test_an_estimate_is_in_the_tier_that_was_asked_for(house: House) -> None:
    reply = said({})
    del reply["usage"]
    house.answer[:] = [whole(json.dumps(reply).encode())]
    plain, dear = await house.call(), await house.call(service_tier="priority")
    assert (plain.cost_label, dear.cost_label) == (CostLabel.ESTIMATED, CostLabel.ESTIMATED)
    assert (plain.tier, dear.tier) == ("", "priority")
    assert dear.cost_micro_usd == 10 * plain.cost_micro_usd


@pytest.mark.parametrize("stream", [False, True])
async def test_cache_writes_for_an_hour(house: House, *, stream: bool) -> None:
    """At the table's rates of claude-haiku-4-5, asked by Anthropic's own SDK."""
    usage = {
        "input_tokens": 5_000,
        "cache_read_input_tokens": 3_000,
        "cache_creation_input_tokens": 2_000,
        "cache_creation": {"ephemeral_5m_input_tokens": 1_500, "ephemeral_1h_input_tokens": 500},
        "output_tokens": 1_000,
        "service_tier": "standard",
    }
    house.answer[:] = [_streamed_message(usage) if stream else whole(json.dumps(_message(usage)).encode())]
    asked: Any = {"model": "claude", "max_tokens": 5_000, "messages": [{"role": "user", "content": "hi"}]}
    async with anthropic.AsyncAnthropic(
        base_url=house.proxy.origin,
        api_key=KEY,
        max_retries=0,
        default_headers={"x-run-id": f"hour-{stream}"},
    ) as sdk:
        if stream:
            async with sdk.messages.stream(**asked) as reply:
                told = (await reply.get_final_message()).usage
        else:
            told = (await sdk.messages.create(**asked)).usage
    assert told.cache_creation is not None
    assert told.cache_creation.ephemeral_1h_input_tokens == 500
    await house.proxy.settled()
    (view,) = house.proxy.views(run=f"hour-{stream}")
    assert view.usage is not None
    assert (view.usage.input, view.usage.cache_write, view.usage.cache_write_hour) == (10_000, 2_000, 500)
    assert (view.cost_micro_usd, view.cost_label) == (13_175, CostLabel.REPORTED)
    assert house.price(view.price).micro_usd(view.usage, view.tier) == 13_175


@pytest.mark.parametrize(("ttl", "rate"), [(None, 1.25), ("5m", 1.25), ("1h", 2)])
async def test_an_hour_in_the_cache_is_held_where_it_is_asked_for(
    house: House, ttl: str | None, rate: float
) -> None:
    """At claude-haiku-4-5's rates of cache writes, which cost the most of a prompt."""
    house.answer[:] = [whole(json.dumps(_message({"input_tokens": 10, "output_tokens": 5})).encode())]
    mark: Any = {"type": "ephemeral"} if ttl is None else {"type": "ephemeral", "ttl": ttl}
    run = f"ttl-{ttl}"
    async with anthropic.AsyncAnthropic(
        base_url=house.proxy.origin, api_key=KEY, max_retries=0, default_headers={"x-run-id": run}
    ) as sdk:
        await sdk.messages.create(
            model="claude",
            max_tokens=100,
            system=[{"type": "text", "text": "word " * 2_000, "cache_control": mark}],
            messages=[{"role": "user", "content": "hi"}],
        )
    await house.proxy.settled()
    (view,) = house.proxy.views(run=run)
    assert view.held["micro_usd"] == ceil(rate * view.held["input_tokens"] + 5 * 100)


def _message(usage: dict[str, Any]) -> dict[str, Any]:
    content = [{"type": "text", "text": "Hi"}]
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    named = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5"}
    return named | {"content": content, "usage": usage} | ended


def _streamed_message(usage: dict[str, Any]) -> Answer:
    """What was written to the cache is told at the start alone."""
    start = _message(usage | {"output_tokens": 1}) | {"content": [], "stop_reason": None}
    block = {"type": "text", "text": ""}
    said = [
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 1_000},
        },
        {"type": "message_stop"},
    ]
    return events(*[f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in said])


async def test_prices_are_told_to_those_who_may_read(house: House) -> None:
    async with aiohttp.ClientSession() as http:

        async def get(path: str, token: str = ADMIN) -> tuple[int, Any]:
            sent = {"authorization": f"Bearer {token}"}
            async with http.get(f"{house.proxy.origin}/admin{path}", headers=sent) as reply:
                return reply.status, await reply.json()

        assert (await get("/prices", KEY))[0] in (401, 403)
        status, lines = await get("/prices?limit=2")
        assert status == 200
        assert [(line["target"], line["input_usd"], line["above"]) for line in lines] == [
            ("up", 1.0, [2_000]),
            ("mini", 0.15, []),
        ]
        status, (shown,) = await get("/prices/m")
        assert (status, shown["source"]) == (200, "config")
        assert [(rate["tier"], rate["above"]) for rate in shown["rates"][:2]] == [
            ("standard", 0),
            ("standard", 2_000),
        ]
        assert (await get("/prices/gpt-5.4"))[1][0]["version"].startswith("litellm-")
        status, refused = await get("/prices/gpt-4o-minni")
        assert (status, refused["error"]["code"]) == (404, "not_found")
        assert "gpt-4o-mini" in refused["error"]["message"]
