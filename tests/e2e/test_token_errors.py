"""A model that reports more than was counted holds more from the next call on, and after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llm_proxy.records import error_rows
from tests.proxy import ProxyProcess, config, headers, target, until
from tests.raw_upstream import Answer, raw_upstream, whole

pytest_plugins = ["tests.postgres"]

WORDS = 400
PRICE = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
EVENT = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}


def answer(body: bytes) -> Answer:
    """Reports half as many prompt tokens again as there are words in the prompt."""
    asked = json.loads(body)
    words = len(asked["messages"][0]["content"].split())
    factor = {"even": 1.0, "more": 1.5, "absurd": 100.0, "less": 0.5}[asked["model"]]
    usage = {"prompt_tokens": round(words * factor), "completion_tokens": 1, "total_tokens": 0}
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    return whole(json.dumps(EVENT | {"choices": [choice], "usage": usage}).encode())


async def held(proxy: ProxyProcess, model: str, words: int = WORDS) -> int:
    """Prompt tokens that a call holds."""
    body = {"model": model, "messages": [{"role": "user", "content": "word " * words}], "max_tokens": 9}
    async with (
        aiohttp.ClientSession() as http,
        http.post(proxy.url, json=body, headers=headers()) as reply,
    ):
        assert reply.status == 200, await reply.text()
        return proxy.view(reply.headers["x-call-id"]).held["input_tokens"]


def rows_of(proxy: ProxyProcess) -> dict[str, error_rows.Row]:
    with proxy.engine.connect() as connection:
        return error_rows.read(connection, 100)


@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)])
async def test_holds_rise_with_what_is_reported(
    store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    more: dict[str, Any] = {"store": request.getfixturevalue("postgres_url")} if store == "postgresql" else {}
    names = ("even", "more", "absurd", "less")
    async with raw_upstream(answer) as upstream:
        settings = config(
            upstream.base_url,
            models={name: {"targets": [target(name, upstream.base_url, name)]} for name in names}
            | {"both": {"targets": [target(f"b-{name}", upstream.base_url, name) for name in names[:2]]}},
            prices=dict.fromkeys(names, PRICE),
            budgets=[{"id": "day", "window": "day", "tokens": 10**7}],
            **more,
        )
        async with ProxyProcess(tmp_path, settings) as proxy:
            counted = await held(proxy, "even")
            assert WORDS < counted < WORDS + 20
            first = {name: await held(proxy, name) for name in names}
            assert set(first.values()) == {counted}, "the first answer has yet to come"
            second = {name: await held(proxy, name) for name in names}
            assert (second["even"], second["less"]) == (counted, counted)
            assert second["more"] == pytest.approx(1.5 * WORDS, abs=2)
            assert second["absurd"] == 4 * counted
            assert await held(proxy, "both") == second["more"], "the dearest of its targets counts"
            assert await held(proxy, "more", 40) < 80, "a short prompt is raised by the same ratio"
            async with aiohttp.ClientSession() as http, http.get(proxy.origin + "/metrics") as reply:
                told = await reply.text()
            assert "llm_proxy_token_count_error_bucket{" in told
            await until(lambda: "openai/more" in rows_of(proxy), "it is written", 15)
        rows = rows_of(proxy)
        assert rows["openai/more"][1:] == pytest.approx((1_475_000, 1_475_000), abs=15_000)
        assert rows["openai/even"][0] >= 3
        async with ProxyProcess(tmp_path, settings) as proxy:
            assert await held(proxy, "more") == second["more"], "what was measured outlives a restart"
