"""Targets with limits of their own: none is asked past its limit while another serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import ProxyProcess, ask, config, headers, target, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_S = 20.0
SCRIPT = """
models:
  silent: {turns: [{text: late, latency_s: 60}]}
default:
  turns: [{text: Hello., usage: {input: 20, output: 80}}]
"""
SPENT = 20 + 80
"""Tokens that a reply reports."""


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    first: Scripted
    second: Scripted
    """Two servers of the same model."""

    async def targets(self, model: str, calls: int, *, stream: bool) -> list[str]:
        """Who answered each of so many calls, one after another."""
        served: list[str] = []
        async with self.proxy.sdk() as sdk:
            for _ in range(calls):
                reply = await sdk.chat.completions.with_raw_response.create(**ask(model=model, stream=stream))
                await reply.http_response.aread()
                served.append(reply.headers["x-served-by"])
        return served

    async def refused(self, model: str, *, stream: bool) -> openai.APIStatusError:
        async with self.proxy.sdk() as sdk:
            with pytest.raises(openai.APIStatusError) as caught:
                await sdk.chat.completions.create(**ask(model=model, stream=stream))
        return caught.value


def _name(limit: str, stream: bool) -> str:
    return f"{limit}-{'stream' if stream else 'whole'}"


LIMITS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "rpm": ({"rpm": 3}, {}),
    "rpm-both": ({"rpm": 2}, {"rpm": 1}),
    "tpm": ({"tpm": 2 * SPENT}, {}),
    "tpm-both": ({"tpm": SPENT}, {"tpm": SPENT}),
    "mixed": ({"tpm": SPENT}, {"rpm": 1}),
}
"""What the two targets of a model take."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    script = parse_script(SCRIPT)
    async with running(script) as first, running(script) as second:

        def pair(name: str, limits: tuple[dict[str, int], dict[str, int]], asked: str) -> dict[str, Any]:
            return {
                "targets": [
                    target(f"{name}-1", first.base_url, asked) | limits[0],
                    target(f"{name}-2", second.base_url, asked) | limits[1],
                ],
                "affinity": "none",
                "retries": 0,
            }

        models = {
            _name(limit, stream): pair(_name(limit, stream), limits, _name(limit, stream))
            for limit, limits in LIMITS.items()
            for stream in (False, True)
        }
        models["at-once"] = pair("at-once", ({"concurrency": 2}, {}), "silent")
        models["full"] = pair("full", ({"concurrency": 1}, {"concurrency": 2}), "silent")
        models["spread"] = pair("spread", ({}, {}), "silent") | {"strategy": "least-busy"}
        settings = config(
            first.base_url,
            models=models,
            budgets=[{"id": "day", "window": "day", "requests": 900, "tokens": 10**7}],
        )
        async with ProxyProcess(tmp_path_factory.mktemp("limits"), settings) as proxy:
            yield House(proxy, first, second)


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_per_minute(house: House, stream: bool) -> None:
    model = _name("rpm", stream)
    served = await house.targets(model, 8, stream=stream)
    assert served == [f"{model}-1"] * 3 + [f"{model}-2"] * 5
    assert (house.first.stats.requests[model], house.second.stats.requests[model]) == (3, 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_per_minute(house: House, stream: bool) -> None:
    """What replies report counts: two of them, and the first is full."""
    model = _name("tpm", stream)
    served = await house.targets(model, 5, stream=stream)
    assert served == [f"{model}-1"] * 2 + [f"{model}-2"] * 3
    assert (house.first.stats.requests[model], house.second.stats.requests[model]) == (2, 3)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("limit", "room"), [("rpm-both", 3), ("tpm-both", 2), ("mixed", 2)])
async def test_when_every_target_is_at_its_limit(house: House, limit: str, room: int, stream: bool) -> None:
    model = _name(limit, stream)
    await house.targets(model, room, stream=stream)
    await house.proxy.settled()
    asked, before = house.first.stats.total + house.second.stats.total, house.proxy.counters()
    error = await house.refused(model, stream=stream)
    assert (error.status_code, error.code) == (429, "rate_limited")
    assert 1 <= int(error.response.headers["retry-after"]) <= 120
    assert model in error.message
    assert house.first.stats.total + house.second.stats.total == asked, "a target was asked past its limit"
    view = house.proxy.view(error.response.headers["x-call-id"])
    assert (view.status, view.attempts, view.cost_micro_usd) == (Status.FAILED, (), 0)
    await house.proxy.settled()
    assert house.proxy.counters() == before, "who wasn't served isn't charged"


class Callers:
    """Calls in flight to targets that stay silent."""

    def __init__(self, house: House, http: aiohttp.ClientSession) -> None:
        self._house = house
        self._http = http
        self._before = (house.first.stats.total, house.second.stats.total)
        self._tasks: list[asyncio.Task[aiohttp.ClientResponse]] = []

    async def call(self, model: str, calls: int = 1) -> tuple[int, int]:
        """So many more at once; how many each server has, once it has all of them."""
        first, second = self._house.first, self._house.second
        for _ in range(calls):
            post = self._http.post(self._house.proxy.url, json=ask(model=model), headers=headers())
            self._tasks.append(asyncio.ensure_future(post))
        await until(
            lambda: first.stats.total + second.stats.total == sum(self._before) + len(self._tasks),
            "every call has reached a server",
        )
        return first.stats.in_flight, second.stats.in_flight

    async def leave(self) -> None:
        """All of them; returns once the servers have noticed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        async with asyncio.timeout(PATIENCE_S):
            for server in (self._house.first, self._house.second):
                await server.until(lambda stats: stats.in_flight == 0)
        await self._house.proxy.settled()


async def test_calls_at_once(house: House) -> None:
    """The first takes two; places are free again when their callers have left."""
    for _ in range(2):
        async with aiohttp.ClientSession() as http:
            callers = Callers(house, http)
            assert await callers.call("at-once", 6) == (2, 4)
            await callers.leave()


async def test_when_every_target_has_all_the_calls_it_takes(house: House) -> None:
    async with aiohttp.ClientSession() as http:
        callers = Callers(house, http)
        assert await callers.call("full", 3) == (1, 2)
        error = await house.refused("full", stream=False)
        assert (error.status_code, error.code) == (429, "rate_limited")
        assert error.response.headers["retry-after"] == "1"
        assert (house.first.stats.in_flight, house.second.stats.in_flight) == (1, 2)
        await callers.leave()


async def test_the_least_busy_target_is_asked(house: House) -> None:
    async with aiohttp.ClientSession() as http:
        callers = Callers(house, http)
        busy = [await callers.call("spread") for _ in range(6)]
        assert busy == [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]
        await callers.leave()
