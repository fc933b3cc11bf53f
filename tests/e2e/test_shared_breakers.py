"""Workers of one host, and replicas on one PostgreSQL, share open breakers and what they send."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
from sqlalchemy import Engine, select

from llm_proxy.records.tables import breakers, targets
from tests.proxy import ProxyProcess, ask, config, headers, target, until
from tests.raw_upstream import Answer, RawUpstream, raw_upstream, whole

pytest_plugins = ["tests.postgres"]

WITHIN_S = 2.0
"""What the others may take to hear of a breaker."""
COOL_DOWN_S = 6.0
FAILURES = 3


def _reply(text: str) -> Answer:
    message = {"role": "assistant", "content": text}
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9},
    }
    return whole(json.dumps(body).encode())


@dataclass(slots=True)
class House:
    """Two upstreams: `first` fails while it is `broken`, else is slow by `delay_s`; `second` is well."""

    broken: bool = True
    delay_s: float = 0.0
    first: RawUpstream = field(init=False)
    second: RawUpstream = field(init=False)

    def answer(self, _body: bytes) -> Answer:
        if self.broken:
            return whole(b"{}", status="503 Service Unavailable")
        return [self.delay_s, *_reply("first")]

    @property
    def asked(self) -> int:
        """How often the first one was."""
        return len(self.first.bodies)

    def config(self, **more: Any) -> dict[str, Any]:
        """Model `m` goes on to the second target; `alone` has one target, `only`, where the first one is."""
        model: dict[str, Any] = {
            "retries": 0,
            "affinity": "none",
            "breaker": {"failures": FAILURES, "cool_down_s": COOL_DOWN_S},
        }
        targets = [target("first", self.first.base_url), target("second", self.second.base_url)]
        alone = target("only", self.first.base_url)
        models = {"m": {"targets": targets, **model}, "alone": {"targets": [alone], **model}}
        return config("", models=models, **more)


@asynccontextmanager
async def house() -> AsyncGenerator[House]:
    built = House()
    async with raw_upstream(built.answer) as first, raw_upstream(lambda _: _reply("second")) as second:
        built.first, built.second = first, second
        yield built


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    call_id: str
    retry_after: str | None
    text: str


async def call(proxy: ProxyProcess, model: str = "m") -> Said:
    """One call, on a connection of its own. `text` is the reply's, or the error's code."""
    async with (
        aiohttp.ClientSession() as http,
        http.post(proxy.url, json={**ask(), "model": model}, headers=headers()) as reply,
    ):
        body = await reply.json()
        text = body["choices"][0]["message"]["content"] if reply.status == 200 else body["error"]["code"]
        return Said(reply.status, reply.headers["x-call-id"], reply.headers.get("retry-after"), text)


async def open_it(proxy: ProxyProcess) -> float:
    """Calls both models until their breakers are open; returns when they were."""
    for _ in range(FAILURES):
        assert (await call(proxy)).text == "second"
        assert (await call(proxy, "alone")).status == 502
    return monotonic()


def deadline(engine: Engine, key: str = "first") -> int | None:
    """Unix µs of the breaker's row; None where there is none, or it is closed."""
    with engine.connect() as connection:
        return connection.execute(select(breakers.c.until_us).where(breakers.c.key == key)).scalar()


@asynccontextmanager
async def replicas(
    tmp_path: Path, settings: dict[str, Any]
) -> AsyncGenerator[tuple[ProxyProcess, ProxyProcess]]:
    async with AsyncExitStack() as stack:
        found: list[ProxyProcess] = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            found.append(await stack.enter_async_context(ProxyProcess(tmp_path / name, settings)))
        yield found[0], found[1]


async def test_replicas_on_postgresql_hear_of_an_open_breaker_within_two_seconds(
    tmp_path: Path, postgres_url: str
) -> None:
    async with house() as up, replicas(tmp_path, up.config(store=postgres_url)) as (a, b):
        opened = await open_it(a)
        assert up.asked == 2 * FAILURES
        # Not polled: each call to `b` would show it the failing target.
        await asyncio.sleep(opened + WITHIN_S - 0.1 - monotonic())
        assert (await call(b)).text == "second"
        refused = await call(b, "alone")
        assert (refused.status, refused.text) == (503, "upstream_unavailable")
        assert refused.retry_after is not None
        assert 1 <= int(refused.retry_after) <= COOL_DOWN_S
        assert up.asked == 2 * FAILURES, "the other process asked a target that was known to fail"

        up.broken, up.delay_s = False, 1.0
        await until(lambda: answers(a, "first"), "a probe found the target well")
        await until(lambda: deadline(a.engine) is None, "the breaker is closed in the store")
        await asyncio.sleep(WITHIN_S)
        # A half-open breaker would let one of them through.
        together = await asyncio.gather(*(call(b) for _ in range(5)))
        assert {said.text for said in together} == {"first"}


async def answers(proxy: ProxyProcess, text: str) -> bool:
    return (await call(proxy)).text == text


async def test_workers_on_sqlite_share_an_open_breaker(tmp_path: Path) -> None:
    async with house() as up, ProxyProcess(tmp_path, up.config(), workers=2) as proxy:
        answered = Counter[str]()
        while max(answered.values(), default=0) < FAILURES:
            answered[proxy.writer_of((await call(proxy)).call_id)] += 1
        asked = up.asked
        assert asked < 2 * FAILURES, "only one worker found out by itself"
        await asyncio.sleep(WITHIN_S)
        answered.clear()
        while len(answered) < 2:
            answered[proxy.writer_of((await call(proxy)).call_id)] += 1
        assert up.asked == asked


async def test_a_restart_keeps_an_open_breaker(tmp_path: Path) -> None:
    async with house() as up:
        settings = up.config()
        for model in settings["models"].values():
            model["breaker"] = {"failures": FAILURES, "cool_down_s": 300}
        async with ProxyProcess(tmp_path, settings) as proxy:
            await open_it(proxy)
            await until(lambda: deadline(proxy.engine, "only"), "the breaker is in the store")
            proxy.kill9()
            await proxy.restart()
            assert (await call(proxy, "alone")).status == 503
            assert (await call(proxy)).text == "second"
            assert up.asked == 2 * FAILURES


async def test_a_limit_of_calls_at_once_is_shared(tmp_path: Path, postgres_url: str) -> None:
    async with house() as up:
        up.broken, up.delay_s = False, 4.0
        settings = up.config(store=postgres_url)
        settings["models"]["m"]["targets"][0]["concurrency"] = 2
        async with replicas(tmp_path, settings) as (a, b):
            calls = [asyncio.create_task(call(a)) for _ in range(2)]
            await until(lambda: in_flight(a.engine) == 2, "it is told what is in flight")
            await asyncio.sleep(1.0)
            assert (await call(b)).text == "second"
            assert up.asked == 2
            assert {said.text for said in await asyncio.gather(*calls)} == {"first"}
            await until(lambda: in_flight(a.engine) == 0, "it is told that they ended")
            up.delay_s = 0.0
            await until(lambda: answers(b, "first"), "the other process has room again")


def in_flight(engine: Engine) -> int:
    with engine.connect() as connection:
        found = connection.execute(select(targets.c.in_flight).where(targets.c.key == "first"))
        return sum(found.scalars())
