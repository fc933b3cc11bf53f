"""The store is down: good keys get 503, nothing is sent that could not be recorded, and it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path

import aiohttp
from sqlalchemy import text

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.faults.relay import relayed
from tests.proxy import KEY, ProxyProcess, ask, config, headers, until

pytest_plugins = ["tests.postgres"]

SCRIPT = """
default:
  turns:
    - {when: {last_user_contains: long}, text: one two three four, stall_after: 5}
    - {when: {last_user_contains: slow}, text: one two three four five six, delta_s: 0.4}
    - {text: Hello}
"""
LIMITS = [{"id": "day", "window": "day", "requests": 1000, "usd": 5}]


async def _status(
    proxy: ProxyProcess, key: str = KEY, *, stream: bool = False
) -> tuple[int, str, str | None]:
    """Status, `code` and `retry-after` of one small call."""
    async with (
        aiohttp.ClientSession() as http,
        http.post(proxy.url, json=ask(stream=stream), headers=headers(key)) as reply,
    ):
        body = await reply.read()
        code = "" if reply.status == 200 else json.loads(body)["error"]["code"]
        return reply.status, code, reply.headers.get("retry-after")


async def _refuses(proxy: ProxyProcess, upstream: Scripted) -> None:
    """Whatever is asked while the store is down: 503, and nothing reaches the upstream."""
    before = upstream.stats.total
    asked = [
        _status(proxy),
        _status(proxy, stream=True),
        _status(proxy, "sk-wrong"),
        *(_status(proxy) for _ in range(20)),
    ]
    answers = set(await asyncio.gather(*asked))
    assert answers == {(503, "store_unavailable", "2")}
    assert upstream.stats.total == before, "a call was sent that could not be recorded"
    async with aiohttp.ClientSession() as http, http.get(f"{proxy.origin}/health/ready") as reply:
        assert reply.status == 503
        assert "the store can't be written" in (await reply.json())["reasons"]
    async with aiohttp.ClientSession() as http, http.get(f"{proxy.origin}/health/live") as reply:
        assert reply.status == 200


def _called(proxy: ProxyProcess) -> int:
    """Calls that were let through. One refused while the store came back has a record too, and no charge."""
    return sum(view.status != "refused" for view in proxy.views())


async def _is_back(proxy: ProxyProcess) -> None:
    """Nobody did anything but bring the store back."""

    async def answers() -> bool:
        return (await _status(proxy))[0] == 200

    async def ready() -> bool:
        async with aiohttp.ClientSession() as http, http.get(f"{proxy.origin}/health/ready") as reply:
            return reply.status == 200

    await until(answers, "calls are answered again", 15)
    await until(ready, "it is ready again", 15)
    assert await _status(proxy, "sk-wrong") == (401, "invalid_credential", None)


async def _streamed(proxy: ProxyProcess, run: str, text: str, begun: asyncio.Event) -> bytes:
    """All that a client gets of a stream; `begun` is set with its first bytes."""
    sent, got = headers(x_run_id=run), b""
    async with (
        aiohttp.ClientSession() as http,
        http.post(proxy.url, json=ask(text, stream=True), headers=sent) as reply,
    ):
        async for chunk in reply.content.iter_any():
            got += chunk
            begun.set()
    return got


async def test_sqlite_is_locked_for_longer_than_its_busy_timeout(tmp_path: Path) -> None:
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(upstream.base_url, budgets=LIMITS)
        async with ProxyProcess(tmp_path, settings, store_may_fail=True) as proxy:
            assert (await _status(proxy))[0] == 200
            begun = asyncio.Event()
            stream = asyncio.create_task(_streamed(proxy, "cut", "slow", begun))
            await asyncio.wait_for(begun.wait(), 10)
            with contextlib.closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                await _refuses(proxy, upstream)
                got = await stream
                assert b"one" in got
                assert b"[DONE]" not in got, "the end of a reply was released unrecorded"
                assert b'"store_unavailable"' in got
                other.execute("ROLLBACK")
            await _is_back(proxy)
            used = proxy.used("day", "requests")
            assert (await _status(proxy))[0] == 200
            await until(lambda: proxy.used("day", "requests") == used + 1, "the call is charged")
            # What the closing record would have said is lost: the call is charged at least its prompt.
            proxy.lapse()
            await until(
                lambda: proxy.views(run="cut")[0].status is Status.INTERRUPTED, "the cut call is closed", 35
            )
            await proxy.settled()
            assert proxy.held_amounts() == 0
            assert proxy.used("day", "micro_usd") == sum(view.cost_micro_usd for view in proxy.views())


async def test_postgresql_goes_away_and_comes_back(tmp_path: Path, postgres_url: str) -> None:
    async with running(parse_script(SCRIPT)) as upstream, relayed(postgres_url) as (relay, url):
        settings = config(upstream.base_url, store=url, budgets=LIMITS)
        async with ProxyProcess(tmp_path, settings, store_may_fail=True, read_from=postgres_url) as proxy:
            for _ in range(2):
                assert (await _status(proxy))[0] == 200
                await proxy.settled()
                before = proxy.counters()
                await relay.close()
                await _refuses(proxy, upstream)
                await relay.open()
                await _is_back(proxy)
                await proxy.settled()
                used = proxy.used("day", "requests")
                assert used > sum(row.get("used_requests", 0) for row in before.values())
                assert used == _called(proxy), (
                    "what was refused was charged, or what was charged has no record"
                )
            await relay.close()
            await _refuses(proxy, upstream)


async def test_postgresql_is_locked(tmp_path: Path, postgres_url: str) -> None:
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(upstream.base_url, store=postgres_url, budgets=LIMITS)
        async with ProxyProcess(tmp_path, settings, store_may_fail=True) as proxy:
            assert (await _status(proxy))[0] == 200
            await proxy.settled()
            with proxy.engine.connect() as other, other.begin():
                # All that a caller leaves: calls leave counters and records, who isn't known is counted.
                tables = "state_counters, records, state_refusals"
                other.execute(text(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))
                async with asyncio.timeout(60):
                    await _refuses(proxy, upstream)
            await _is_back(proxy)
            await proxy.settled()
            assert proxy.used("day", "requests") == _called(proxy)
