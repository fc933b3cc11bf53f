"""SIGKILL with a hundred calls in flight: no released reply is lost, no call forgotten, no budget stuck."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from llm_proxy.records.view import CallView, CostLabel, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.either_store import store as store
from tests.proxy import ProxyProcess, ask, config, headers, target, until

pytest_plugins = ["tests.postgres"]

CALLS = 100
SPEEDS = 10
STUCK_S = 35.0
"""After this long nothing of a killed process may be held any more: a lease is 30 s."""
SCRIPT = "models:\n  m: {turns: [{text: I am back}]}\n" + "".join(
    f"  speed-{n}: {{turns: [{{text: one two three four five six seven, usage: {{input: 40, output: 9}},"
    f" delta_s: {0.02 * n * n}, latency_s: {0.05 * n}}}]}}\n"
    for n in range(SPEEDS)
)


def _settings(upstream: Scripted, store: str) -> dict[str, object]:
    names = [*(f"speed-{n}" for n in range(SPEEDS)), "m"]
    return config(
        upstream.base_url,
        store=store,
        models={name: {"targets": [target(name, upstream.base_url, name)], "retries": 0} for name in names},
        prices={name: {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6} for name in names},
        budgets=[{"id": "day", "window": "day", "usd": 500, "requests": 100_000}],
    )


@dataclass
class Client:
    """One call: what was sent, and, once the reply has come whole, its id and bytes."""

    run: str
    body: bytes
    call_id: str = ""
    got: bytes | None = None

    async def call(self, http: aiohttp.ClientSession, proxy: ProxyProcess) -> None:
        try:
            async with http.post(proxy.url, data=self.body, headers=headers(x_run_id=self.run)) as reply:
                assert reply.status == 200
                self.call_id = reply.headers["x-call-id"]
                self.got = await reply.read()
        except aiohttp.ClientError:
            return  # the proxy died under it


async def _kill_in_flight(proxy: ProxyProcess, prefix: str, finished: int) -> list[Client]:
    """Sends a hundred calls, streamed and whole; kills the proxy when so many of them have their reply."""
    clients = [
        Client(
            f"{prefix}-{n}",
            json.dumps(ask(f"prompt {n}", model=f"speed-{n % SPEEDS}", stream=n % 3 > 0)).encode(),
        )
        for n in range(CALLS)
    ]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        calls = [asyncio.create_task(client.call(http, proxy)) for client in clients]
        for number, done in enumerate(asyncio.as_completed(calls), 1):
            await done
            if number == finished:
                proxy.kill9()
    return clients


def _check(proxy: ProxyProcess, clients: list[Client]) -> list[CallView]:
    """What must be true as soon as the proxy is back; returns the records of the calls that were cut off."""
    cut_off: list[CallView] = []
    for client in clients:
        views = proxy.views(run=client.run)
        assert len(views) <= 1
        for view in views:
            assert view.request == client.body, "the prompt is not what was sent"
        if client.got is not None:
            (view,) = views
            assert (view.id, view.status) == (client.call_id, Status.OK)
            assert (view.emitted if view.released is None else view.released) == client.got
        elif views and views[0].status is not Status.OK:  # a committed reply may have died on its last hop
            cut_off += views
    return cut_off


async def _all_is_settled(proxy: ProxyProcess, cut_off: list[CallView], timeout_s: float) -> None:
    await until(lambda: not proxy.views(status="open"), "no call is open any more", timeout_s)
    for before in cut_off:
        view = proxy.view(before.id)
        assert view.status is Status.INTERRUPTED
        assert view.request == before.request
        assert (view.cost_label, view.usage is not None and view.usage.input > 0) == (CostLabel.PARTIAL, True)
        assert view.cost_micro_usd > 0
    assert proxy.held() == 0
    assert proxy.held_amounts() == 0, "a budget is stuck"
    views = proxy.views()
    assert proxy.used("day", "micro_usd") == sum(view.cost_micro_usd for view in views)
    assert proxy.used("day", "requests") == len(views)


async def _answers(proxy: ProxyProcess) -> None:
    async with proxy.sdk() as sdk:
        assert (await sdk.chat.completions.create(**ask())).choices[0].message.content == "I am back"


@pytest.mark.soak
async def test_kill_with_a_hundred_calls_in_flight(tmp_path: Path) -> None:
    async with running(parse_script(SCRIPT)) as upstream:
        settings = _settings(upstream, f"sqlite:///{tmp_path / 'store.db'}")
        async with ProxyProcess(tmp_path, settings) as proxy:
            clients = await _kill_in_flight(proxy, "call", finished=30)
            killed = asyncio.get_running_loop().time()
            assert len([client for client in clients if client.got is None]) >= 30
            recorded = sum(len(proxy.views(run=client.run)) for client in clients)
            assert recorded >= upstream.stats.total, "the upstream was asked before the call was recorded"
            await proxy.restart()
            await _answers(proxy)
            cut_off = _check(proxy, clients)
            assert len(cut_off) >= 30
            patience = killed + STUCK_S - asyncio.get_running_loop().time()
            await _all_is_settled(proxy, cut_off, patience)
            await _answers(proxy)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [1, 2])
async def test_kill_again_and_again(tmp_path: Path, store: str, workers: int) -> None:
    chance = random.Random(7)
    everyone: list[Client] = []
    async with (
        running(parse_script(SCRIPT)) as upstream,
        ProxyProcess(tmp_path, _settings(upstream, store), workers=workers) as proxy,
    ):
        for round_ in range(40):
            everyone += await _kill_in_flight(proxy, f"call-{round_}", finished=chance.randrange(1, 80))
            await proxy.restart()
            await _answers(proxy)
        cut_off = _check(proxy, everyone)
        await _all_is_settled(proxy, cut_off, STUCK_S)
