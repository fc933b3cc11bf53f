"""Five hundred calls at once, over four processes, against limits for exactly a hundred: never one over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from llm_proxy.records.view import Status
from tests.e2e.crowd import CALLS, LIMITS, POLICY, ROOM, USED, WORKERS, Answers, Vendor, crowd, settings
from tests.either_store import POSTGRESQL_FIRST
from tests.either_store import store as store
from tests.proxy import ProxyProcess

pytest_plugins = ["tests.postgres"]

ROUNDS = 20


@asynccontextmanager
async def _house(folder: Path, store: str, rounds: int) -> AsyncGenerator[tuple[ProxyProcess, Vendor]]:
    vendor = Vendor()
    server = await asyncio.start_server(vendor.serve, "127.0.0.1", 0, backlog=1_000)
    vendor.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        told = settings(vendor, store, rounds)
        async with ProxyProcess(folder, told, policy=POLICY, workers=WORKERS) as proxy:
            yield proxy, vendor
    finally:
        server.close()


async def _check(proxy: ProxyProcess, vendor: Vendor, unit: str, answers: Answers, round_: str) -> None:
    """Nothing over the limit, less than one call's worth left; what was told, recorded and counted agrees."""
    await proxy.settled()
    assert answers.answered + answers.refused == CALLS
    assert vendor.total == answers.answered
    counted = Counter[str]()
    for key, row in proxy.counters().items():
        if key.startswith(f"{unit}|agent={round_}|"):
            counted.update(row)
    if unit == "concurrency":
        assert vendor.most == ROOM
        assert answers.answered >= ROOM
        assert "used_concurrency" not in counted
    else:
        column = "micro_usd" if unit == "usd" else unit
        assert counted[f"used_{column}"] == USED[column]
    if unit in ("requests", "tokens", "usd"):
        assert answers.answered == ROOM
    if unit in ("tool_calls", "writes"):
        assert answers.tool_calls == ROOM
        assert answers.denied == answers.answered - ROOM
    assert proxy.held_amounts() == 0
    views = proxy.views(agent=round_)
    assert sum(view.status is Status.OK for view in views) == answers.answered
    assert sum(view.status is Status.REFUSED for view in views) == answers.refused


EVERY = [(unit, mode) for unit in LIMITS for mode in ("whole", "streamed")]


async def _rounds(folder: Path, store: str, rounds: int, which: list[tuple[str, str]]) -> None:
    async with _house(folder, store, rounds) as (proxy, vendor):
        for number in range(rounds):
            for unit, mode in which:
                vendor.reset()
                answers = await crowd(proxy, unit, mode, number)
                await _check(proxy, vendor, unit, answers, f"{unit}-{mode}-{number}")


@POSTGRESQL_FIRST
async def test_five_hundred_at_once_against_a_hundred(tmp_path: Path, store: str) -> None:
    """Each unit in one of the modes; the long lane takes both."""
    modes = ["whole", "streamed"]
    await _rounds(tmp_path, store, 1, [(unit, modes[number % 2]) for number, unit in enumerate(LIMITS)])


@pytest.mark.soak
async def test_twenty_rounds_of_five_hundred(tmp_path: Path, store: str) -> None:
    await _rounds(tmp_path, store, ROUNDS, EVERY)
