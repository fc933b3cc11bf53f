"""Thousands of calls over fallbacks, retries, callers who leave and killed processes: the books agree."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from llm_proxy.records.view import CallView, Status
from tests.either_store import POSTGRESQL_FIRST
from tests.either_store import store as store
from tests.faults.injecting import Injecting, injecting
from tests.proxy import ProxyProcess, ask, config, headers, target, until

pytest_plugins = ["tests.postgres"]

AT_ONCE = 48
STUCK_S = 45.0
POLICY = {
    "policy": {"id": "p", "version": 1},
    "tools": {"pay": {"effect": "write", "tier": "autonomous", "args": {"type": "object"}}},
}


def _key(agent: str) -> str:
    return f"sk-{agent}-0123456789abcdef"


AGENTS = [f"bot-{n}" for n in range(6)]


def _settings(store: str, targets: dict[str, Injecting]) -> dict[str, Any]:
    model = {
        "targets": [target(id_, each.base_url) for id_, each in targets.items()],
        "breaker": {"failures": 5, "cool_down_s": 0.05},
        "timeouts": {"first_event_s": 12},
    }
    drains = {"on_leave": "drain"}
    return config(
        "",
        store=store,
        models={"m": model, "drained": model | {"targets": [target("d", targets["c"].base_url)]} | drains},
        prices={
            "m": {"input_cost_per_token": 1.3e-6, "output_cost_per_token": 2.7e-6},
        },
        agents={a: {"team": f"team-{a[-1]}", "keys": [_key(a)], "models": ["*"]} for a in AGENTS},
        budgets=[
            {"id": "all", "window": "month", "usd": 5_000, "requests": 10**6, "tokens": 10**9},
            {"id": "each", "agent": "*", "window": "day", "usd": 500, "tokens": 10**9},
            {"id": "tight", "agent": "bot-5", "window": "day", "usd": 0.0015},
            {"id": "rolling", "team": "*", "window": "7d", "output_tokens": 10**9},
            {"id": "run", "agent": "*", "window": "run", "usd": 100, "concurrency": 40},
            {"id": "user", "user": "*", "window": "week", "usd": 500},
            {"id": "tag", "tag": "env=*", "window": "hour", "requests": 10**6},
        ],
    )


async def _call(http: aiohttp.ClientSession, proxy: ProxyProcess, number: int, chance: random.Random) -> None:
    """One call; every fourth caller leaves, at any moment."""
    body = ask(
        f"call {number}",
        model="m" if number % 5 else "drained",
        stream=number % 2 == 0,
        max_completion_tokens=chance.choice([8, 64]),
    )
    sent = headers(
        _key(chance.choice(AGENTS)),
        x_run_id=f"run-{number % 97}",
        x_user_id=f"user-{number % 7}",
        x_tags=f"env={'prod' if number % 3 else 'test'},nightly",
    )
    patience = chance.uniform(0, 0.06) if number % 4 == 0 else 60.0
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(patience), http.post(proxy.url, json=body, headers=sent) as reply:
            await reply.read()


async def _calls(proxy: ProxyProcess, numbers: range, chance: random.Random, kill_at: int | None) -> None:
    """So many calls, `AT_ONCE` at a time; where told, SIGKILL in their midst, and a new start."""
    queue = iter(numbers)
    back = asyncio.Event()
    back.set()

    async def caller(http: aiohttp.ClientSession) -> None:
        for number in queue:
            await back.wait()
            if number == kill_at:
                back.clear()
                proxy.kill9()
                await proxy.restart()
                back.set()
            await _call(http, proxy, number, chance)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(caller(http) for _ in range(AT_ONCE)))


async def _told(proxy: ProxyProcess, folder: Path, *words: str) -> tuple[int, Any]:
    """What a command of the CLI says with --json, and its exit status."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_proxy", *words, "--json", "--config", str(folder / "proxy.yaml")),
        stdout=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(out)


def _check(views: list[CallView]) -> None:
    """Nothing is free that may have cost, and nothing is open."""
    kinds = {view.status for view in views}
    assert {Status.OK, Status.CLIENT_GONE, Status.INTERRUPTED, Status.REFUSED} <= kinds, kinds
    assert any(len(view.attempts) > 1 for view in views)
    for view in views:
        if view.status is Status.OK:
            assert view.cost_micro_usd > 0
            assert view.cost_label is not None


async def _replay(folder: Path, store: str, calls: int, kills: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        seeds = {"a": "a of 5", "b": "b of 5", "c": None}
        targets = {id_: await stack.enter_async_context(injecting(seed)) for id_, seed in seeds.items()}
        told = _settings(store, targets)
        proxy = await stack.enter_async_context(ProxyProcess(folder, told, policy=POLICY, workers=2))
        chance = random.Random(11)
        share = calls // (kills + 1)
        for part in range(kills + 1):
            numbers = range(1_000 + part * share, 1_000 + (part + 1) * share)
            kill_at = numbers[share // 2] if part < kills else None
            await _calls(proxy, numbers, chance, kill_at)
        await asyncio.sleep(1.0)  # what drains behind callers who left has ended by then
        proxy.lapse()
        await until(lambda: not proxy.views(status="open") and not proxy.held(), "all has ended", STUCK_S)
        assert proxy.held_amounts() == 0
        status, said = await _told(proxy, folder, "reconcile")
        assert status == 0, said
        status, spent = await _told(proxy, folder, "spend", "--by", "agent,day")
        assert status == 0
        assert spent["total"]["cost_micro_usd"] == proxy.used("all", "micro_usd") > 0
        assert sum(row["cost_micro_usd"] for row in spent["rows"]) == spent["total"]["cost_micro_usd"]
        if calls <= 5_000:
            _check(proxy.views())


@POSTGRESQL_FIRST
async def test_six_hundred_calls_add_up(tmp_path: Path, store: str) -> None:
    await _replay(tmp_path, store, 600, 1)


@pytest.mark.soak
async def test_ten_thousand_calls_add_up(tmp_path: Path, store: str) -> None:
    await _replay(tmp_path, store, 10_000, 8)
