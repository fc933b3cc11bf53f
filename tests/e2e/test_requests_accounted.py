"""Requests received = records + counted refusals, whatever is thrown at the door; the store may be down."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, select

from llm_proxy.records.tables import calls, refusals
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers, target, until

SCRIPT = """
default:
  turns:
    - {when: {last_user_contains: long}, text: one two three four, stall_after: 2}
    - {when: {last_user_contains: fail}, status: 500}
    - {text: Hello}
"""


@asynccontextmanager
async def _house(folder: Path) -> AsyncGenerator[ProxyProcess]:
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            models={"m": {"targets": [target("up", upstream.base_url)], "retries": 0}},
            agents={
                "bot": {"keys": [KEY], "models": ["m"]},
                "poor": {"keys": [OTHER_KEY], "models": ["m"]},
            },
            budgets=[{"id": "none", "agent": "poor", "window": "day", "requests": 1}],
        )
        settings["server"] |= {"max_body_mb": 1}
        async with ProxyProcess(folder, settings, store_may_fail=True) as proxy:
            yield proxy


async def _scraped(proxy: ProxyProcess) -> dict[str, float]:
    async with aiohttp.ClientSession() as http, http.get(f"{proxy.origin}/metrics") as reply:
        text = await reply.text()
    return {
        sample.labels.get("as", sample.name.removeprefix("llm_proxy_")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(("llm_proxy_requests_", "llm_proxy_refusals_"))
    }


async def _adds_up(proxy: ProxyProcess, received: int) -> dict[str, float]:
    """Waits until all is accounted for, and compares with the store."""

    async def settled() -> bool:
        told = await _scraped(proxy)
        return sum(told[name] for name in ("record", "refusal", "answer")) >= received

    await until(settled, f"{received} requests are accounted for")
    told = await _scraped(proxy)
    assert told["requests_received_total"] == received
    assert told["record"] + told["refusal"] + told["answer"] == received
    assert (told["requests_unaccounted"], told["refusals_waiting"]) == (0, 0)
    with proxy.engine.connect() as connection:
        recorded = connection.execute(select(func.count()).select_from(calls)).scalar_one()
        refused = connection.execute(select(func.sum(refusals.c.count))).scalar_one()
    assert (told["record"], told["refusal"]) == (recorded, refused or 0)
    return told


async def _status(
    http: aiohttp.ClientSession, url: str, body: bytes, key: str | None = KEY, method: str = "POST"
) -> int:
    data = io.BytesIO(body) if body else None
    async with http.request(method, url, data=data, headers=headers(key)) as reply:
        await reply.read()
        return reply.status


async def _leaves(proxy: ProxyProcess, sent: bytes, after_s: float = 0.0) -> None:
    """Sends some bytes, and hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(sent)
    await writer.drain()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(reader.read(1), after_s or 0.1)
    writer.transport.abort()


def _raw(proxy: ProxyProcess, body: bytes, length: int) -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ).encode() + body


async def test_every_request_is_a_record_or_a_counted_refusal(tmp_path: Path) -> None:
    async with _house(tmp_path) as proxy:
        good = json.dumps(ask()).encode()
        long = json.dumps(ask("long", stream=True)).encode()
        origin, url = proxy.origin, proxy.url
        async with aiohttp.ClientSession() as http:
            statuses = [
                await _status(http, url, good),
                await _status(http, url, json.dumps(ask(stream=True)).encode()),
                await _status(http, url, json.dumps(ask("fail")).encode()),
                await _status(http, url, b"{"),
                await _status(http, url, good, "sk-wrong"),
                await _status(http, url, good, None),
                await _status(http, f"{url}?a=%23%20b#", good),
                await _status(http, f'{url}?a="', good),
                await _status(http, f"{origin}/v1/nope", good),
                await _status(http, url, b'{"model": "m", "x": "' + b"x" * 1_100_000 + b'"}'),
                await _status(http, url, good, OTHER_KEY),
                await _status(http, url, good, OTHER_KEY),
                await _status(http, f"{origin}/v1/models", b"", method="GET"),
                await _status(http, f"{origin}/v1/models", b"", "sk-wrong", method="GET"),
                await _status(http, f"{origin}/v1/runs", b"{}"),
                await _status(http, f"{origin}/v1/runs/none", b"", method="GET"),
                await _status(http, f"{origin}/v1/actions/check", b'{"tool": "t", "arguments": {}}'),
                await _status(http, f"{origin}/v1/messages/count_tokens", good),
            ]
            assert await _status(http, f"{origin}/nope", good) == 404, "no path of the model APIs"
        await _leaves(proxy, _raw(proxy, good[:20], len(good)))
        await _leaves(proxy, _raw(proxy, long, len(long)), after_s=1.0)
        assert statuses[:6] == [200, 200, 502, 400, 401, 401]
        assert statuses[9:12] == [413, 200, 429]
        told = await _adds_up(proxy, len(statuses) + 2)
        assert told["answer"] == 3, "the models, a run that was opened, and one that is not there"
        assert proxy.refusals()["client_gone"] == 1
        assert proxy.refusals()["missing"] == 1

        await proxy.terminate()
        await proxy.start()
        async with aiohttp.ClientSession() as http:
            await _status(http, url, good)
        told = await _scraped(proxy)
        assert (told["requests_received_total"], told["record"]) == (1, 1), "counted per process"


async def test_what_is_refused_while_the_store_is_down_is_counted_when_it_is_back(tmp_path: Path) -> None:
    async with _house(tmp_path) as proxy:
        good = json.dumps(ask()).encode()
        async with aiohttp.ClientSession() as http:
            assert await _status(http, proxy.url, good) == 200
            lock = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
            try:
                lock.execute("BEGIN IMMEDIATE")
                answers = await asyncio.gather(*(_status(http, proxy.url, good) for _ in range(10)))
                assert set(answers) == {503}
                told = await _scraped(proxy)
                assert told["requests_unaccounted"] == 0
                assert told["refusals_waiting"] > 0
            finally:
                lock.execute("ROLLBACK")
                lock.close()
        await _adds_up(proxy, 11)
        assert proxy.refusals()["store_unavailable"] >= 1
