"""A run's calls stay on the target that answered it, under every strategy, and move when that one rests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.config.choices import StrategyName
from tests.proxy import ProxyProcess, ask, config, headers, target
from tests.raw_upstream import Answer, RawUpstream, model_of, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRATEGIES = [strategy.value for strategy in StrategyName]
REPLY = json.dumps(
    {
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26},
    }
).encode()
ANSWERS_IN_S = 0.02
"""So that no hiccup makes a target look three times slower than the others, which would move a run."""


class Server:
    """One of several that serve every model; it can be told to fail."""

    def __init__(self) -> None:
        self.down = False
        self.raw: RawUpstream

    def answer(self, body: bytes) -> Answer:
        if self.down:
            return whole(b'{"error": {"message": "down"}}', status="500 Internal Server Error")
        return [ANSWERS_IN_S, *whole(REPLY)]

    def asked(self, model: str) -> int:
        return sum(model_of(body) == model for body in self.raw.bodies)


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    servers: dict[str, Server]
    """By the letter that their targets' ids end in."""

    async def served(self, model: str, run: str | None = None) -> str:
        """The letter of the server that answered a call."""
        sent = headers() if run is None else headers(x_run_id=run)
        async with (
            aiohttp.ClientSession() as http,
            http.post(self.proxy.url, json=ask(model=model), headers=sent) as reply,
        ):
            assert reply.status == 200, await reply.text()
            return reply.headers["x-served-by"][-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """Three servers; targets of each model have breakers of their own, which one failure opens."""
    servers = {letter: Server() for letter in "abc"}
    async with contextlib.AsyncExitStack() as stack:
        for server in servers.values():
            server.raw = await stack.enter_async_context(raw_upstream(server.answer))

        def model(name: str, **more: Any) -> dict[str, Any]:
            targets = [
                target(f"{name}-{letter}", server.raw.base_url, name) for letter, server in servers.items()
            ]
            return {"targets": targets, "retries": 0, "breaker": {"failures": 1, "cool_down_s": 600}} | more

        models = {name: model(name, strategy=name) for name in STRATEGIES}
        models |= {
            f"{name}-none": model(f"{name}-none", strategy=name, affinity="none") for name in STRATEGIES
        }
        models |= {
            name: model(name, breaker={"failures": 1, "cool_down_s": 0.05}) for name in ("back", "back-none")
        }
        models["back-none"]["affinity"] = "none"
        settings = config(servers["a"].raw.base_url, models=models)
        async with ProxyProcess(tmp_path_factory.mktemp("affinity"), settings) as proxy:
            yield House(proxy, servers)


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_a_run_stays_and_moves_only_when_its_target_rests(house: House, strategy: str) -> None:
    home = await house.served(strategy, "run-1")
    assert [await house.served(strategy, "run-1") for _ in range(8)] == [home] * 8
    house.servers[home].down = True
    try:
        moved = [await house.served(strategy, "run-1") for _ in range(6)]
    finally:
        house.servers[home].down = False
    assert moved[0] != home
    assert moved == [moved[0]] * 6, "it stays where it went"
    assert house.servers[home].asked(strategy) == 9 + 1, "who rests is asked no more"
    (*_, view) = house.proxy.views(run="run-1")
    assert view.attempts[0].target == f"{strategy}-{moved[0]}"


async def test_a_run_does_not_go_back(house: House) -> None:
    """Its first target is well again, but the other one's cache is warm; new runs start at the first."""
    assert await house.served("back", "run-2") == "a"
    house.servers["a"].down = True
    try:
        assert await house.served("back", "run-2") == "b"
    finally:
        house.servers["a"].down = False
    for n in range(1000):  # until the first one is asked again
        if await house.served("back", f"other-{n}") == "a":
            break
    assert await house.served("back", "other-last") == "a"
    assert [await house.served("back", "run-2") for _ in range(4)] == ["b"] * 4


async def test_without_affinity_a_run_goes_back(house: House) -> None:
    assert await house.served("back-none", "run-3") == "a"
    house.servers["a"].down = True
    try:
        assert await house.served("back-none", "run-3") == "b"
    finally:
        house.servers["a"].down = False
    for n in range(1000):
        if await house.served("back-none", f"other-{n}") == "a":
            break
    assert await house.served("back-none", "run-3") == "a"


async def test_weighted_runs_are_spread(house: House) -> None:
    """Each stays where its name puts it. The names decide, so this is the same each time."""
    homes = {f"job-{n}": await house.served("weighted", f"job-{n}") for n in range(24)}
    assert len(set(homes.values())) >= 2
    assert {run: await house.served("weighted", run) for run in homes} == homes


async def test_a_weighted_run_without_affinity_is_spread(house: House) -> None:
    """Forty calls on one target of three would be chance once in 10^18."""
    assert {await house.served("weighted-none", "run-4") for _ in range(40)} == {"a", "b", "c"}


async def test_calls_outside_a_run_are_spread(house: House) -> None:
    assert len({await house.served("weighted") for _ in range(40)}) >= 2


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_without_affinity_a_target_that_rests_is_left_all_the_same(house: House, strategy: str) -> None:
    model = f"{strategy}-none"
    down = await house.served(model, "run-5")
    house.servers[down].down = True
    try:
        served = {await house.served(model, "run-5") for _ in range(30)}
    finally:
        house.servers[down].down = False
    assert down not in served
