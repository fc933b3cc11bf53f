"""A tree of runs shares its root's envelope, and ends with it: two workers, SQLite and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import URL

from llm_proxy.records.view import Status
from tests.e2e.runs_house import CAP, MICRO_USD, TOKENS, House, runs_house
from tests.proxy import KEY, OTHER_KEY, ask, headers

pytest_plugins = ["tests.postgres"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS, ROOM = 50, 10


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("trees")
    if request.param == "sqlite":
        async with runs_house(folder, workers=2) as opened:
            yield opened
        return
    from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

    server: URL = request.getfixturevalue("postgres_server")
    with fresh_database(server) as url:
        store = url.render_as_string(hide_password=False)
        async with runs_house(folder, workers=2, store=store) as opened:
            yield opened


async def _tree(house: House, name: str, **envelope: Any) -> list[dict[str, Any]]:
    """Ways to call in a tree of three levels and more: the spend of each counts in the root."""
    root = await house.opened(run_id=name, envelope=envelope)
    a = await house.opened(parent=name, run_id=f"{name}-a", envelope={"tool_calls": 30})
    b = await house.opened(OTHER_KEY, a["token"], run_id=f"{name}-b", envelope={"tool_calls": 30})
    return [
        {"run": name},
        {"key": root["token"]},
        {"run": f"{name}-a"},
        {"key": a["token"]},
        {"key": b["token"]},
        {"run": f"{name}-b", "key": OTHER_KEY},
        {"run": f"{name}-c", "x_parent_run_id": f"{name}-a"},
        {"run": f"{name}-d", "key": OTHER_KEY, "x_parent_run_id": f"{name}-b"},
        {"run": f"{name}-e", "key": OTHER_KEY, "x_run_token": root["token"]},
        {"x_parent_run_id": name},
    ]


async def _connected(house: House) -> list[aiohttp.ClientSession]:
    """A connection for each call, some to either worker; a refused call tells to which."""
    sessions: list[aiohttp.ClientSession] = []
    at: Counter[str] = Counter()
    while len(sessions) < CALLS or (len(at) < 2 and len(sessions) < 4 * CALLS):
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        sessions.append(session)
        async with session.post(house.proxy.url, json=ask(model="nope"), headers=headers()) as reply:
            await reply.read()
            at[house.proxy.writer_of(reply.headers["x-call-id"])] += 1
    assert len(at) == 2, "every connection went to the same worker"
    return sessions


@pytest.mark.parametrize(
    ("unit", "most", "used"),
    [
        ("requests", ROOM, ROOM),
        ("usd", (ROOM * MICRO_USD + MICRO_USD - 1) / 1e6, ROOM * MICRO_USD),
        ("tokens", ROOM * TOKENS + TOKENS - 1, ROOM * TOKENS),
        ("output_tokens", ROOM * CAP + CAP - 1, ROOM * CAP),
    ],
)
async def test_fifty_at_once_in_a_tree_against_an_envelope_for_ten(
    house: House, unit: str, most: float, used: int
) -> None:
    name = f"root-{unit}"
    ways = await _tree(house, name, **{unit: most})
    sessions = await _connected(house)
    before = house.upstream.stats.total
    bodies = [{"stream": True} if n % 3 == 0 else {} for n in range(CALLS)]

    async def one(n: int) -> tuple[int, str]:
        way = dict(ways[n % len(ways)])
        key, run = way.pop("key", KEY), way.pop("run", "")
        named = {"x_run_id": run} if run else {}
        data = json.dumps(ask("hi", max_completion_tokens=CAP) | bodies[n]).encode()
        async with sessions[n].post(
            house.proxy.url, data=data, headers=headers(key, **named, **way)
        ) as reply:
            return reply.status, await reply.text()

    answers = await asyncio.gather(*(one(n) for n in range(CALLS)))
    await asyncio.gather(*(session.close() for session in sessions))
    assert Counter(status for status, _ in answers) == {200: ROOM, 429: CALLS - ROOM}
    assert house.upstream.stats.total == before + ROOM, "another number of calls reached the upstream"
    for status, text in answers:
        if status == 429:
            error = json.loads(text)["error"]
            assert error["code"] == "budget_exceeded"
            assert f"The envelope of run '{name}' allows" in error["message"]
            assert "Left of it: " in error["message"]
    await house.proxy.settled()
    field = "micro_usd" if unit == "usd" else unit
    assert house.proxy.used(f"envelope:{name}", field) == used
    assert house.proxy.held_amounts() == 0
    views = [view for n in "abcde" for view in house.proxy.views(run=f"{name}-{n}")]
    assert {view.status for view in views} <= {Status.OK, Status.REFUSED}
    root = await house.run(name)
    [most_left] = [use for use in root["limits"] if use["limit"] == f"envelope:{name}"]
    assert most_left["held"] == 0
    if unit == "requests":
        assert (root["status"], root["left"]["requests"]) == ("exhausted", 0)
        below = await house.run(f"{name}-b", OTHER_KEY)
        assert below["status"] == "exhausted"
        assert f"the envelope of run {name!r}" in below["why"]


async def test_a_childs_spend_counts_in_every_limit_per_run_above_it(house: House) -> None:
    await house.call("top")
    await house.call("mid", x_parent_run_id="top")
    await house.call("low", x_parent_run_id="mid")
    for _ in range(3):  # at either worker
        await house.call("low")
    await house.proxy.settled()
    used = {run: house.proxy.counters()[f"per-run|agent=bot|run:{run}"] for run in ("top", "mid", "low")}
    assert [used[run]["used_requests"] for run in ("top", "mid", "low")] == [6, 5, 4]
    assert {view.parent_run_id for view in house.proxy.views(run="low")} == {"mid"}


async def test_parallel_first_calls_do_not_lose_the_parent(house: House) -> None:
    for n in range(5):
        await house.opened(run_id=f"par-{n}", envelope={"requests": 100})
        calls = (house.call(f"kid-{n}", x_parent_run_id=f"par-{n}") for _ in range(12))
        assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
        assert (await house.call(f"kid-{n}")).status == 200
        await house.proxy.settled()
        assert house.proxy.used(f"envelope:par-{n}", "requests") == 13


async def test_no_tree_is_deeper_than_32(house: House) -> None:
    await house.call("deep-0")
    for depth in range(1, 33):
        assert (await house.call(f"deep-{depth}", x_parent_run_id=f"deep-{depth - 1}")).status == 200
    refused = await house.call("deep-33", x_parent_run_id="deep-32")
    assert (refused.status, refused.error["code"]) == (400, "invalid_request")
    assert "stands 32 runs deep" in refused.said
    opened = await house.open(parent="deep-32")
    assert (opened.status, "32 runs deep" in opened.said) == (400, True)


async def test_a_run_that_ends_takes_its_streams_and_the_runs_below_with_it(house: House) -> None:
    ways = await _tree(house, "ending", requests=200)
    gone = asyncio.Event()
    ended: list[tuple[float, str]] = []
    began = 0

    async def stream(way: dict[str, Any]) -> None:
        nonlocal began
        way = dict(way)
        key, run = way.pop("key", KEY), way.pop("run", "")
        sent = headers(key, connection="close", **({"x_run_id": run} if run else {}), **way)
        data = json.dumps(ask(model="m-slow", stream=True, max_completion_tokens=CAP)).encode()
        async with (
            aiohttp.ClientSession() as http,
            http.post(house.proxy.url, data=data, headers=sent) as reply,
        ):
            assert reply.status == 200, await reply.text()
            got = await reply.content.readuntil(b'"content":"one"')
            began += 1
            if began == len(ways):
                gone.set()
            got += await reply.content.read()
        ended.append((time.monotonic(), got.decode()))

    streams = [asyncio.create_task(stream(way)) for way in ways]
    await asyncio.wait_for(gone.wait(), 20)
    other = asyncio.create_task(house.call("not-below"))
    at = time.monotonic()
    answer = await house.send("POST", "/v1/runs/ending/end", {"why": "it went round in circles"})
    assert (answer.status, answer.body["status"], answer.body["why"]) == (
        200,
        "ended",
        "it went round in circles",
    )
    await asyncio.gather(*streams)
    assert max(when for when, _ in ended) - at < 1.0, "a stream outlived its run"
    for _, got in ended:
        assert '"code":"run_ended"' in got
        assert "it went round in circles" in got
        assert "[DONE]" not in got
    assert (await other).status == 200
    await asyncio.sleep(max(0.0, at + 1 - time.monotonic()))  # a worker without a stream has heard by then
    for way in ways:
        refused = await house.call(**way)
        assert (refused.status, refused.error["code"]) == (403, "run_ended"), way
        assert "it went round in circles" in refused.said
        assert refused.headers["x-should-retry"] == "false"
    await house.proxy.settled()
    assert house.proxy.held_amounts() == 0
    assert house.proxy.used("envelope:ending", "requests") == len(ways)
    below = await house.run("ending-b", OTHER_KEY)
    assert (below["status"], below["why"]) == ("ended", "it went round in circles (with run ending)")
    again = await house.send("POST", "/v1/runs/ending/end", {"why": "another reason"})
    assert again.body["why"] == "it went round in circles", "the first reason stands"


async def test_an_operator_ends_a_run_and_sees_how_it_stood(house: House) -> None:
    trigger = {"kind": "alert", "id": "a-1"}
    run = await house.opened(purpose="look", envelope={"requests": 4, "usd": 0.5}, trigger=trigger)
    id_ = run["run_id"]
    await house.call(id_)
    await house.proxy.settled()
    [line] = [line for line in (await house.admin("GET", "/runs")).body if line["run_id"] == id_]
    assert (line["status"], line["purpose"], line["trigger"]) == (
        "open",
        "look",
        {**trigger, "url": ""},
    )
    assert line["envelope"] == {"usd": 0.5, "requests": 4, "expires_s": 3_600}
    assert line["left"] == {"usd": 0.5 - MICRO_USD / 1e6, "requests": 3, "tool_calls": 40}
    shown = (await house.admin("GET", f"/runs/{id_}")).body
    assert {use["limit"] for use in shown["limits"]} == {f"envelope:{id_}", "per-run"}
    assert shown["call_count"] == 1
    for body, status in (({}, 400), ({"why": ""}, 400), ({"why": "x" * 300}, 400)):
        assert (await house.admin("POST", f"/runs/{id_}/end", body)).status == status
    assert (await house.admin("POST", "/runs/nope/end", {"why": "w"})).status == 404
    assert (await house.send("POST", f"/admin/runs/{id_}/end", {"why": "w"})).status == 403
    ended = await house.admin("POST", f"/runs/{id_}/end", {"why": "enough", "agent": "bot"})
    assert (ended.status, ended.body["status"], ended.body["why"]) == (200, "ended", "enough")
    await asyncio.sleep(1)  # by then every worker has heard of it
    for _ in range(4):
        refused = await house.call(id_)
        assert (refused.status, "enough" in refused.said) == (403, True)
