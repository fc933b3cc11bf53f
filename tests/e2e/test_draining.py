"""Callers who leave: the upstream is left at once, or (`on_leave: drain`) its reply is read to the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView, CostLabel, Status
from tests.e2e.scripted_house import House
from tests.e2e.timed_house import timed_house
from tests.proxy import ask, headers, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_S = 20.0
TEXT = "one two three four five six seven eight"
PROMPT = 8
"""Tokens that `ask()` is counted as; a micro-dollar each."""
PRICE = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
COST = 40 + 2 * 9
"""Of a reply that came whole, by the usage it reports."""
SCRIPT = f"""
models:
  good: {{turns: [{{text: {TEXT}, usage: {{input: 40, output: 9}}}}]}}
  slow-drain: {{turns: [{{text: {TEXT}, usage: {{input: 40, output: 9}}, delta_s: 0.15, latency_s: 0.5}}]}}
  silent-drain: {{turns: [{{text: {TEXT}, latency_s: 60}}]}}
  cut-drain: {{turns: [{{text: {TEXT}, latency_s: 0.8, cut_after: 0}}]}}
  busy-drain: {{turns: [{{status: 429, retry_after: 6}}]}}
  silent-cancel: {{turns: [{{text: {TEXT}, latency_s: 60}}]}}
  stalls-cancel: {{turns: [{{text: {TEXT}, stall_after: 4}}]}}
"""
SETTINGS: dict[str, dict[str, Any]] = {
    "slow-drain": {"on_leave": "drain"},
    "silent-drain": {"on_leave": "drain", "timeouts": {"total_s": 1.5}},
    "cut-drain": {"on_leave": "drain", "retries": 3, "fallbacks": ["good"]},
    "busy-drain": {"on_leave": "drain", "retries": 3, "fallbacks": ["good"]},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with timed_house(tmp_path_factory.mktemp("drain"), SCRIPT, SETTINGS, PRICE) as opened:
        yield opened


class Leaver:
    """A caller that asks for `model` in a run of its own and hangs up when told to."""

    def __init__(self, house: House, run: str, model: str, *, stream: bool) -> None:
        self._house = house
        self._run = run
        self._body = ask(model=model, stream=stream)
        self._stream = stream
        self._requests = house.upstream.stats.total

    async def leave(self) -> None:
        """Once the reply streams, or, where it is wanted whole, once its target is at work on it."""
        async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession() as http:
            if self._stream:
                await self._ask(http)
                return
            asked = asyncio.create_task(self._ask(http))
            await self._house.upstream.until(lambda stats: stats.total > self._requests)
            await asyncio.sleep(0.1)
            assert asked.cancel(), "it was answered"
            await asyncio.wait([asked])

    async def _ask(self, http: aiohttp.ClientSession) -> None:
        url, sent = self._house.proxy.url, headers(x_run_id=self._run)
        async with http.post(url, json=self._body, headers=sent) as reply:
            assert await reply.content.readuntil(b'"content":"one"')
            reply.close()

    async def ended(self) -> CallView:
        """The call's record."""
        proxy = self._house.proxy
        await until(
            lambda: [v for v in proxy.views(run=self._run) if v.status is not Status.OPEN], "it ended"
        )
        await proxy.settled()
        assert proxy.held_amounts() == 0
        (view,) = proxy.views(run=self._run)
        return view


@pytest.mark.parametrize("stream", [False, True])
async def test_a_drained_reply_is_read_to_its_end(house: House, stream: bool) -> None:
    gone, before = house.upstream.stats.client_gone, house.proxy.used("day", "micro_usd")
    caller = Leaver(house, f"drain-{stream}", "slow-drain", stream=stream)
    await caller.leave()
    view = await caller.ended()
    assert view.status is Status.CLIENT_GONE
    assert [(attempt.failure, attempt.status) for attempt in view.attempts] == [("", 200)]
    assert view.usage is not None
    assert (view.usage.input, view.usage.output) == (40, 9)
    assert (view.cost_micro_usd, view.cost_label) == (COST, CostLabel.REPORTED)
    assert house.proxy.used("day", "micro_usd") - before == COST
    assert view.reply is not None
    assert (view.reply.choices[0].text, view.finish_reasons) == (TEXT, ("stop",))
    assert (house.upstream.stats.client_gone, house.upstream.stats.in_flight) == (gone, 0)


@pytest.mark.parametrize(("model", "stream"), [("silent-cancel", False), ("stalls-cancel", True)])
async def test_without_draining_the_upstream_is_left_at_once(house: House, model: str, stream: bool) -> None:
    """Its reply would take a minute, or never end."""
    gone, before = house.upstream.stats.client_gone, house.proxy.used("day", "micro_usd")
    caller = Leaver(house, f"cancel-{stream}", model, stream=stream)
    async with asyncio.timeout(PATIENCE_S):
        await caller.leave()
        await house.upstream.until(lambda stats: stats.client_gone > gone)
    view = await caller.ended()
    assert view.status is Status.CLIENT_GONE
    assert [attempt.failure for attempt in view.attempts] == ["client_gone"]
    assert view.usage is not None
    assert (view.usage.input, view.usage.output) == (PROMPT, 3 if stream else 0)
    charged = PROMPT + 2 * (3 if stream else 0)
    assert (view.cost_micro_usd, view.cost_label) == (charged, CostLabel.PARTIAL)
    assert house.proxy.used("day", "micro_usd") - before == charged


async def test_draining_ends_with_the_calls_own_time(house: House) -> None:
    """A target that is silent is not waited for longer than a caller who stayed would have."""
    caller = Leaver(house, "drain-late", "silent-drain", stream=False)
    await caller.leave()
    view = await caller.ended()
    assert [attempt.failure for attempt in view.attempts] == ["total_timeout"]
    assert (view.cost_micro_usd, view.cost_label) == (PROMPT, CostLabel.PARTIAL)
    assert view.status is Status.CLIENT_GONE


async def test_nobody_else_is_asked_for_a_caller_who_left(house: House) -> None:
    """Its target fails while it drains: neither a retry nor a fallback would have a reader."""
    requests = dict(house.upstream.stats.requests)
    caller = Leaver(house, "drain-cut", "cut-drain", stream=False)
    await caller.leave()
    view = await caller.ended()
    assert [attempt.failure for attempt in view.attempts] == ["cut"]
    assert (view.status, view.cost_micro_usd) == (Status.CLIENT_GONE, PROMPT)
    assert house.upstream.stats.requests.get("good", 0) == requests.get("good", 0)


async def test_a_caller_who_leaves_between_two_attempts_has_nothing_to_drain(house: House) -> None:
    """It leaves while a Retry-After is waited for."""
    requests = dict(house.upstream.stats.requests)
    caller = Leaver(house, "drain-busy", "busy-drain", stream=False)
    await caller.leave()
    view = await caller.ended()
    assert [attempt.failure for attempt in view.attempts] == ["rate_limited"]
    assert (view.status, view.cost_micro_usd) == (Status.CLIENT_GONE, 0)
    assert house.upstream.stats.requests.get("good", 0) == requests.get("good", 0)
