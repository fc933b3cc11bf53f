"""No interleaving spends past a limit: fifty calls at once, on both stores, with one worker and with two."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio
from sqlalchemy import URL

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import ProxyProcess, ask, config, headers

pytest_plugins = ["tests.postgres"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = 50
ROOM = 10
CAP = 92
TOKENS = 8 + CAP
"""Of one call: its prompt as counted, and its cap; the upstream reports that all of it was used."""
MICRO_USD = 8 + 2 * CAP
SCRIPT = f"default: {{turns: [{{text: Hello there, usage: {{input: 8, output: {CAP}}}, latency_s: 0.05}}]}}"
LIMITS: dict[str, dict[str, Any]] = {
    "requests": {"window": "day", "requests": ROOM},
    "tokens": {"window": "month", "tokens": ROOM * TOKENS},
    "input_tokens": {"window": "day", "input_tokens": ROOM * 8 + 7},
    "output_tokens": {"window": "day", "output_tokens": ROOM * CAP + CAP - 1},
    "usd": {"window": "day", "usd": (ROOM * MICRO_USD + MICRO_USD - 1) / 1e6},
    "run": {"window": "run", "requests": ROOM},
}
UNITS = {"requests": ROOM, "tokens": ROOM * TOKENS, "micro_usd": ROOM * MICRO_USD}
LONERS = ("uncapped", "many", "small")


def _key(agent: str) -> str:
    return f"sk-{agent}-0123456789abcdef"


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Scripted
    workers: int


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """URLs of two empty stores of one kind."""
    if request.param == "sqlite":
        yield [f"sqlite:///{tmp_path_factory.mktemp('store') / name}" for name in ("one.db", "two.db")]
        return
    from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

    server: URL = request.getfixturevalue("postgres_server")
    with ExitStack() as stack:
        urls = [stack.enter_context(fresh_database(server)) for _ in range(2)]
        yield [url.render_as_string(hide_password=False) for url in urls]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[1, 2], ids=["1-worker", "2-workers"])
async def house(
    request: pytest.FixtureRequest, store: list[str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    workers: int = request.param
    async with running(parse_script(SCRIPT)) as upstream:
        agents = [*LIMITS, *LONERS]
        settings = config(
            upstream.base_url,
            store=store[workers - 1],
            agents={agent: {"keys": [_key(agent)], "models": ["m"]} for agent in agents},
            budgets=[
                *({"id": f"{agent}-limit", "agent": agent} | limit for agent, limit in LIMITS.items()),
                *(
                    {"id": f"{agent}-limit", "agent": agent, "window": "day", "tokens": 1000}
                    for agent in LONERS
                ),
                {"id": "everyone", "window": "month", "usd": 100, "requests": 100_000},
            ],
        )
        async with ProxyProcess(tmp_path_factory.mktemp("budgets"), settings, workers=workers) as proxy:
            yield House(proxy, upstream, workers)


async def _connected(house: House) -> list[aiohttp.ClientSession]:
    """A connection for each call; with two workers, some at either (a refused call tells which it is)."""
    sessions: list[aiohttp.ClientSession] = []
    at: Counter[str] = Counter()
    while len(sessions) < CALLS or (len(at) < house.workers and len(sessions) < 4 * CALLS):
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        sessions.append(session)
        body = ask(model="nope")
        async with session.post(house.proxy.url, json=body, headers=headers(_key("requests"))) as reply:
            await reply.read()
            at[house.proxy.writer_of(reply.headers["x-call-id"])] += 1
    assert len(at) == house.workers, "every connection went to the same worker"
    return sessions


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: bytes


@pytest.mark.parametrize("agent", LIMITS)
async def test_fifty_at_once_against_room_for_ten(house: House, agent: str) -> None:
    sessions = await _connected(house)
    house.upstream.reset()

    async def one(number: int, session: aiohttp.ClientSession) -> Answer:
        body = ask("hi", max_completion_tokens=CAP, stream=number % 2 == 0)
        sent = headers(_key(agent), x_run_id=f"crowd-{agent}")
        async with session.post(house.proxy.url, json=body, headers=sent) as reply:
            return Answer(reply.status, reply.headers, await reply.read())

    answers = await asyncio.gather(*(one(number, session) for number, session in enumerate(sessions)))
    await asyncio.gather(*(session.close() for session in sessions))
    assert house.upstream.stats.total == ROOM, "another number of calls reached the upstream"
    assert Counter(answer.status for answer in answers) == {200: ROOM, 429: len(sessions) - ROOM}
    for answer in answers:
        if answer.status == 429:
            error = json.loads(answer.body)["error"]
            assert error["code"] == "budget_exceeded"
            assert f"'{agent}-limit'" in error["message"]
            waits = agent != "run" or "may be free in a moment" in error["message"]
            assert ("retry-after" in answer.headers) is waits
        else:
            assert b"Hello" in answer.body
    await house.proxy.settled()
    assert {unit: house.proxy.used(f"{agent}-limit", unit) for unit in UNITS} == UNITS
    assert house.proxy.held_amounts() == 0
    views = house.proxy.views(run=f"crowd-{agent}")
    assert Counter(view.status for view in views) == {Status.OK: ROOM, Status.REFUSED: len(sessions) - ROOM}
    assert sum(view.cost_micro_usd for view in views) == UNITS["micro_usd"]


async def test_another_run_has_a_budget_of_its_own(house: House) -> None:
    async with house.proxy.sdk(_key("run"), default_headers={"x-run-id": "crowd-run"}) as full:
        while len(house.proxy.views(run="crowd-run", status="ok")) < ROOM:
            await full.chat.completions.create(**ask())
        with pytest.raises(openai.RateLimitError) as error:
            await full.chat.completions.create(**ask())
    assert "does not reset" in error.value.message
    assert error.value.response.headers["x-should-retry"] == "false"
    async with house.proxy.sdk(_key("run"), default_headers={"x-run-id": "fresh"}) as fresh:
        raw = await fresh.chat.completions.with_raw_response.create(**ask())
    assert raw.headers["x-ratelimit-limit-requests"] == str(ROOM)
    assert raw.headers["x-ratelimit-remaining-requests"] == str(ROOM - 1)


async def test_an_uncapped_call_is_kept_to_what_is_left(house: House) -> None:
    """992 tokens are left for the reply where 4,096 are assumed; then 892, to share by three choices."""
    async with house.proxy.sdk(_key("uncapped")) as sdk:
        await sdk.chat.completions.create(**ask())
        assert json.loads(house.upstream.seen[-1].body)["max_completion_tokens"] == 992
        raw = await sdk.chat.completions.with_raw_response.create(**ask(n=3, stream=True))
        assert [chunk async for chunk in raw.parse()]
    assert json.loads(house.upstream.seen[-1].body)["max_completion_tokens"] == 892 // 3
    assert house.proxy.view(raw.headers["x-call-id"]).held["output_tokens"] == 892 // 3 * 3


async def test_a_callers_own_cap_is_not_touched(house: House) -> None:
    async with house.proxy.sdk(_key("small")) as sdk:
        with pytest.raises(openai.RateLimitError, match="may need 1,001"):
            await sdk.chat.completions.create(**ask(max_tokens=993))
        raw = await sdk.chat.completions.with_raw_response.create(**ask(max_tokens=992))
    sent = json.loads(house.upstream.seen[-1].body)
    assert sent["max_tokens"] == 992
    assert "max_completion_tokens" not in sent
    assert house.proxy.view(raw.headers["x-call-id"]).held == {
        "input_tokens": 8,
        "output_tokens": 992,
        "requests": 1,
        "micro_usd": 8 + 2 * 992,
    }


async def test_limits_of_others_do_not_matter(house: House) -> None:
    async with house.proxy.sdk(_key("many")) as sdk:
        for _ in range(3):
            await sdk.chat.completions.create(**ask(max_tokens=20))
    await house.proxy.settled()
    assert house.proxy.used("many-limit", "tokens") == 3 * TOKENS
