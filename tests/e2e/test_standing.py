"""A frozen agent, a revoked or expired key and an ended run stop within a second: new calls and open ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from tests.e2e.standing_house import ADMIN, House, Stream, settled_as_cut, standing_house
from tests.proxy import KEY, OTHER_KEY, headers, until

pytest_plugins = ["tests.postgres"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAMS = 20
SOON_S = 1.0


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("standing")
    if request.param == "sqlite":
        async with standing_house(folder, None) as opened:
            yield opened
        return
    from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

    with fresh_database(request.getfixturevalue("postgres_server")) as url:
        async with standing_house(folder, url.render_as_string(hide_password=False)) as opened:
            yield opened


async def ended(streams: list[Stream], by: Awaitable[tuple[int, Any]]) -> float:
    """Waits until `by` has ended all of them; seconds from its beginning to the end of the last one."""
    began = time.monotonic()
    status, answer = await by
    assert status in (200, 201), answer
    tasks = [stream.task for stream in streams if stream.task is not None]
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    return max(stream.ended for stream in streams) - began


async def test_freezing_ends_what_is_open_and_thawing_lets_in_again(house: House) -> None:
    streams = await house.streams(STREAMS, spread=True)
    (other,) = await house.streams(1, OTHER_KEY)
    took = await ended(streams, house.admin("/agents/bot/freeze", {"reason": "it mailed customers twice"}))
    assert took < SOON_S
    for stream in streams:
        assert stream.error["code"] == "agent_frozen"
        assert "is frozen since" in stream.error["message"]
        assert "it mailed customers twice. Ask dana@example.com" in stream.error["message"]
    await until(lambda: house.upstream.stats.in_flight == 1, "only the other agent's reply is under way")
    await until(lambda: all(s.view.status is Status.CUT for s in streams), "all are recorded")
    for stream in streams:
        settled_as_cut(house, stream, "agent_frozen")
    assert not other.ended
    await _refused_everywhere(house)
    assert (await house.call(OTHER_KEY))[0] == 200

    status, answer = await house.admin("/agents/bot/thaw", {"reason": "mended"})
    assert (status, answer["changed"], answer["frozen"]) == (200, True, False)
    await asyncio.sleep(SOON_S)
    assert [(await house.call())[0] for _ in range(6)] == [200] * 6
    assert other.task is not None
    other.task.cancel()
    await house.proxy.settled()
    assert house.proxy.held_amounts() == 0


async def _refused_everywhere(house: House) -> None:
    for path in ("/models", "/models/good"):
        async with house.http.get(house.proxy.base_url + path, headers=headers()) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (403, "agent_frozen")
    for _ in range(6):
        status, body, got = await house.call(x_run_id="frozen-run")
        assert (status, body["error"]["code"]) == (403, "agent_frozen")
        assert got["x-should-retry"] == "false"
        view = house.proxy.view(got["x-call-id"])
        assert (view.status, view.agent_id, view.run_id) == (Status.REFUSED, "bot", "frozen-run")
        assert view.problem is not None
        assert view.problem.kind == "agent_frozen"


async def test_revoking_ends_what_is_open(house: House) -> None:
    mine, others = await house.key(), await house.key()
    streams = await house.streams(STREAMS, mine["key"], spread=True)
    (kept,) = await house.streams(1, others["key"])
    took = await ended(streams, house.admin(f"/keys/{mine['id']}/revoke"))
    assert took < SOON_S
    assert {stream.error["code"] for stream in streams} == {"invalid_credential"}
    assert all(f"{mine['id']} was revoked" in stream.error["message"] for stream in streams)
    await until(lambda: all(s.view.status is Status.CUT for s in streams), "all are recorded")
    for stream in streams:
        settled_as_cut(house, stream, "invalid_credential")
    for _ in range(6):
        assert (await house.call(mine["key"]))[1]["error"]["code"] == "invalid_credential"
        assert (await house.call(others["key"]))[0] == 200
    assert not kept.ended
    took = await ended([kept], house.admin(f"/keys/{others['id']}/revoke"))
    assert took < SOON_S
    await house.proxy.settled()


async def test_a_key_ends_what_is_open_as_it_expires(house: House) -> None:
    mine = await house.key(ttl="3s")
    streams = await house.streams(4, mine["key"])
    for stream in streams:
        assert stream.task is not None
        await stream.task
    late = time.time() - mine["expires_us"] / 1e6
    assert 0 <= late < SOON_S
    assert all("has expired" in stream.error["message"] for stream in streams)
    await house.proxy.settled()


async def test_rotating_keeps_the_old_keys_for_the_overlap_and_their_streams_with_them(house: House) -> None:
    old = await house.key(agent="other")
    streams = await house.streams(4, old["key"])
    status, new = await house.admin("/keys/rotate", {"agent_id": "other", "overlap": "2s"})
    assert status == 201
    assert (await house.call(old["key"]))[0] == (await house.call(new["key"]))[0] == 200
    for stream in streams:
        assert stream.task is not None
        await stream.task
    assert 0 <= time.time() - new["others_expire_us"] / 1e6 < SOON_S
    assert all(f"{old['id']} has expired" in stream.error["message"] for stream in streams)
    for _ in range(6):
        assert (await house.call(old["key"]))[0] == 401
        assert (await house.call(new["key"]))[0] == 200
    assert len(new["unchanged"]) == 1
    assert (await house.call(OTHER_KEY))[0] == 200


async def test_ending_a_run_ends_what_is_open_of_it_and_below_it(house: House) -> None:
    top = await _opened(house, {"purpose": "all", "envelope": {"requests": 100}})
    below = await _opened(house, {"purpose": "part", "envelope": {"requests": 10}, "parent": top["run_id"]})
    streams = await house.streams(4, top["token"], "", spread=True)
    streams += await house.streams(4, KEY, below["run_id"], spread=True)
    (kept,) = await house.streams(1, run="another")
    took = await ended(streams, house.admin(f"/runs/{top['run_id']}/end", {"why": "enough"}))
    assert took < SOON_S
    assert {stream.error["code"] for stream in streams} == {"run_ended"}
    await until(lambda: all(s.view.status is Status.CUT for s in streams), "all are recorded")
    for stream in streams:
        settled_as_cut(house, stream, "run_ended")
    for key, more in ((top["token"], {}), (KEY, {"x_run_id": below["run_id"]})):
        status, body, _ = await house.call(key, **more)
        assert (status, body["error"]["code"]) == (403, "run_ended")
    assert not kept.ended
    assert kept.task is not None
    kept.task.cancel()
    await house.proxy.settled()


async def _opened(house: House, wish: dict[str, Any]) -> dict[str, Any]:
    async with house.http.post(house.proxy.base_url + "/runs", json=wish, headers=headers()) as reply:
        assert reply.status == 201, await reply.text()
        return await reply.json()


async def test_no_sdk_takes_it_for_a_whole_reply(house: House) -> None:
    mine = await house.key()
    sdk = house.proxy.sdk(mine["key"])
    claude = anthropic.AsyncAnthropic(base_url=house.proxy.origin, api_key=mine["key"], max_retries=0)
    async with sdk, claude:
        chat = await sdk.chat.completions.create(
            model="m-openai_chat", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        responses = await sdk.responses.create(model="m-openai_responses", input="hi", stream=True)
        messages = await claude.messages.create(
            model="m-anthropic_messages",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=50,
            stream=True,
        )
        replies = [chat, responses, messages]
        for reply in replies:
            await anext(aiter(reply))
        await house.admin(f"/keys/{mine['id']}/revoke")
        for reply in replies:
            with pytest.raises((openai.APIError, anthropic.APIError), match="was revoked"):
                await _read(reply)
    await house.proxy.settled()


async def _read(reply: AsyncIterator[object]) -> None:
    async for _ in reply:
        continue


async def test_replies_that_are_wanted_whole_and_drains_end_too(house: House) -> None:
    mine = await house.key()
    before = house.upstream.stats.in_flight
    whole = [asyncio.create_task(house.call(mine["key"], "silent")) for _ in range(4)]
    left = [asyncio.create_task(house.call(mine["key"], "drains", x_run_id="left")) for _ in range(4)]
    await until(lambda: house.upstream.stats.in_flight == before + 8, "all are being answered")
    await asyncio.sleep(0.2)
    for task in left:
        task.cancel()
    await asyncio.sleep(0.3)
    assert house.upstream.stats.in_flight == before + 8
    began = time.monotonic()
    await house.admin(f"/keys/{mine['id']}/revoke")
    answers = await asyncio.gather(*whole)
    await until(lambda: house.upstream.stats.in_flight == before, "the vendor is left")
    assert time.monotonic() - began < SOON_S
    assert [(status, body["error"]["code"]) for status, body, _ in answers] == [
        (401, "invalid_credential")
    ] * 4
    await house.proxy.settled()
    views = house.proxy.views(run="left")
    assert [(v.status, v.problem.kind if v.problem else "") for v in views] == [
        (Status.CUT, "invalid_credential")
    ] * 4


async def test_frozen_twice_the_first_word_stands(house: House) -> None:
    await house.admin("/agents/other/freeze", {"reason": "first"})
    status, again = await house.admin("/agents/other/freeze", {"reason": "second"}, ADMIN)
    assert (status, again["changed"], again["reason"], again["by"]) == (
        200,
        False,
        "first",
        "dana@example.com",
    )
    assert (await house.admin("/agents/other/thaw"))[1]["changed"]
    assert not (await house.admin("/agents/other/thaw"))[1]["changed"]
    for body, said in (({"reason": " "}, "Say why"), ({"reason": "x" * 501}, "over 500"), ({}, "Say why")):
        status, answer = await house.admin("/agents/other/freeze", body)
        assert (status, answer["error"]["code"]) == (400, "invalid_request")
        assert said in answer["error"]["message"]
    status, answer = await house.admin("/agents/othr/freeze", {"reason": "x"})
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert "did you mean 'other'?" in answer["error"]["message"]


async def test_calls_that_arrive_while_it_freezes_are_refused_or_ended(house: House) -> None:
    """None slips through between the look and the hold, and none is recorded twice or left open."""
    mine = await house.key()
    stop = asyncio.Event()
    statuses: list[int] = []

    async def calling() -> None:
        while not stop.is_set():
            statuses.append((await house.call(mine["key"], x_run_id="race"))[0])

    callers = [asyncio.create_task(calling()) for _ in range(8)]
    await asyncio.sleep(0.4)
    await house.admin(f"/keys/{mine['id']}/revoke")
    await asyncio.sleep(SOON_S)
    seen = len(statuses)
    await asyncio.sleep(0.3)
    stop.set()
    await asyncio.gather(*callers)
    assert set(statuses) == {200, 401}
    assert set(statuses[seen:]) == {401}
    await house.proxy.settled()
    assert {v.status for v in house.proxy.views(run="race")} <= {Status.OK, Status.CUT, Status.REFUSED}
    assert house.proxy.held_amounts() == 0
