"""Runs that nobody named, over two workers and both stores: kept apart, gone on with, bound by limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import URL, select

from llm_proxy.records.audit_tables import prefixes, traces
from llm_proxy.records.tables import runs
from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from llm_proxy.telemetry.ids import span_id_of
from tests.e2e.dialect_agents import each_speaking
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config, headers, target

pytest_plugins = ["tests.postgres"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = "an-admin-token-0123456789"
SECOND_KEY = "sk-second-0123456789abcdef"
STRICT_KEY = "sk-strict-0123456789abcdef"
SCRIPT = """
default:
  turns:
    - {when: {last_user_contains: fails}, status: 400}

    - {text: Sure.}
"""


class House:
    def __init__(self, proxy: ProxyProcess, upstream: Scripted, http: aiohttp.ClientSession) -> None:
        self.proxy, self.upstream, self.http = proxy, upstream, http

    async def post(self, path: str, body: Any, key: str = KEY, **named: str) -> tuple[int, Any, Any]:
        """Over a connection of its own, so that every worker serves some."""
        sent = headers(key, connection="close", **named)
        async with self.http.post(self.proxy.origin + path, data=json.dumps(body), headers=sent) as reply:
            return reply.status, reply.headers, await reply.json()

    async def run(self, *said: str, key: str = KEY, system: str = "", **named: str) -> str:
        """The run of a call whose history is these words, the user's and the model's in turn."""
        front = [{"role": "system", "content": system}] if system else []
        body = {"model": "m", "messages": front + _messages(*said)}
        status, got, _ = await self.post("/v1/chat/completions", body, key, **named)
        assert status == 200
        return got["x-run-id"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("stitched")
    if request.param == "sqlite":
        async with _house(folder, f"sqlite:///{folder / 'store.db'}") as opened:
            yield opened
        return
    from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

    server: URL = request.getfixturevalue("postgres_server")
    with fresh_database(server) as url:
        async with _house(folder, url.render_as_string(hide_password=False)) as opened:
            yield opened


@asynccontextmanager
async def _house(folder: Path, store: str) -> AsyncGenerator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        models = {"m": {"targets": [target("up", upstream.base_url)], "retries": 0}}
        settings = config(
            upstream.base_url,
            store=store,
            server={"drain_s": 1, "admin_token": ADMIN},
            models=models | each_speaking(upstream.origin, ["openai_responses"]),
            prices={},
            agents={
                "bot": {"keys": [KEY, SECOND_KEY], "models": ["*"]},
                "other": {"keys": [OTHER_KEY], "models": ["*"]},
                "strict": {"keys": [STRICT_KEY], "models": ["*"], "require_run": True},
            },
            budgets=[{"id": "per-run", "agent": "other", "window": "run", "requests": 3}],
        )
        async with ProxyProcess(folder, settings, workers=2) as proxy, aiohttp.ClientSession() as http:
            yield House(proxy, upstream, http)


async def test_the_same_words_twice_are_two_runs(house: House) -> None:
    first, second = await house.run("hi"), await house.run("hi")
    assert first != second
    one, other = await house.run("hi", "Sure.", "of cats"), await house.run("hi", "Sure.", "of dogs")
    assert {one, other} == {first, second}
    assert await house.run("hi", "Sure.", "of cats", "Sure.", "more") == one
    assert await house.run("hi", "Sure.", "of dogs", "Sure.", "more") == other
    assert await house.run("hi", "Sure.", "of dogs", "Sure.", "more", "Sure.", "more") == other
    assert await house.run("hi", "Sure.", "of birds") not in (one, other)  # of which of them?
    third = await house.run("hi")
    assert await house.run("hi", "Sure.", "of cats") == third  # the newest, which nobody went on from
    assert await house.run("hi", "Sure.", "of birds") == third  # a branch, and those before are over


async def test_instructions_tell_conversations_apart(house: House) -> None:
    first = await house.run("system?", system="Be terse.")
    second = await house.run("system?", system="Be kind.")
    assert await house.run("system?", "Sure.", "and?", system="Be terse.") == first
    assert await house.run("system?", "Sure.", "and?", system="Be kind.") == second
    clock = await house.run("clock", system="It is 10:00.")
    assert await house.run("clock", "Sure.", "and?", system="It is 10:01.") == clock


async def test_retries_branches_and_edits(house: House) -> None:
    run = await house.run("retry")
    failing = {"model": "m", "messages": [*_messages("retry", "Sure."), {"role": "user", "content": "fails"}]}
    for _ in range(2):
        status, got, _ = await house.post("/v1/chat/completions", failing)
        assert (status, got["x-run-id"]) == (400, run)
    assert await house.run("retry", "Sure.", "again") == run
    assert await house.run("retry", "Sure.", "otherwise") == run
    assert await house.run("retry", "Sure.", "again", "I made this up.", "and?") == run
    assert await house.run("retry, edited", "Sure.", "again") != run
    assert await house.run("retry", "Edited.", "again") != run
    asked = [house.run("retry", "Sure.", f"at once {n}") for n in range(6)]
    assert set(await asyncio.gather(*asked)) == {run}


async def test_whose_conversation_it_is(house: House) -> None:
    run = await house.run("mine", x_user_id="ann")
    said = ("mine", "Sure.", "and?")
    assert await house.run(*said, x_user_id="ben") != run
    assert await house.run(*said) != run
    assert await house.run(*said, key=SECOND_KEY, x_user_id="ann") != run
    assert await house.run(*said, key=OTHER_KEY, x_user_id="ann") != run
    assert await house.run(*said, x_user_id="ann", x_parent_run_id="elsewhere") != run
    assert await house.run(*said, x_user_id="ann", x_run_id="named") == "named"
    assert await house.run(*said, x_user_id="ann") == run
    views = house.proxy.views(run=run)
    assert [(view.run_inferred, view.user_id) for view in views] == [(True, "ann")] * 2
    assert not house.proxy.views(run="named")[0].run_inferred


async def test_the_limits_of_a_run_hold(house: House) -> None:
    run = await house.run("limit", key=OTHER_KEY)
    said = ["limit"]
    for n in range(2):
        said += ["Sure.", f"more {n}"]
        assert await house.run(*said, key=OTHER_KEY) == run
    body = {"model": "m", "messages": _messages(*said, "Sure.", "too much")}
    status, got, answer = await house.post("/v1/chat/completions", body, OTHER_KEY)
    assert (status, answer["error"]["code"], got["x-run-id"]) == (429, "budget_exceeded", run)
    assert [view.status for view in house.proxy.views(run=run)] == [Status.OK] * 3 + [Status.REFUSED]


async def test_a_run_that_was_ended_isnt_gone_on_with(house: House) -> None:
    run = await house.run("to be ended")
    status, _, _ = await house.post(f"/admin/runs/{run}/end", {"why": "enough"}, ADMIN)
    assert status == 200
    body = {"model": "m", "messages": _messages("to be ended", "Sure.", "and?")}
    status, _, answer = await house.post("/v1/chat/completions", body)
    assert (status, answer["error"]["code"]) == (403, "run_ended")
    assert "enough" in answer["error"]["message"]


async def test_who_must_name_a_run_must(house: House) -> None:
    await house.run("named", key=STRICT_KEY, x_run_id="strict-1")
    body = {"model": "m", "messages": _messages("named", "Sure.", "and?")}
    status, _, answer = await house.post("/v1/chat/completions", body, STRICT_KEY)
    assert (status, answer["error"]["code"]) == (400, "run_required")
    with house.proxy.engine.connect() as connection:
        kept = connection.execute(select(prefixes.c.key_id).where(prefixes.c.agent_id == "strict")).all()
    assert kept == []  # nothing is kept of conversations whose runs are named


async def test_responses_that_are_named(house: House) -> None:
    async def respond(**more: Any) -> tuple[str, str]:
        body = {"model": "openai_responses", "input": "hi", **more}
        status, got, answer = await house.post("/v1/responses", body)
        assert status == 200, answer
        return got["x-run-id"], answer["id"]

    run, id_ = await respond()
    for _ in range(2):
        again, id_ = await respond(previous_response_id=id_, input="and?")
        assert again == run
    other, _ = await respond()
    assert other != run
    kept, _ = await respond(conversation="conv_1")
    assert kept not in (run, other)
    again, _ = await respond(conversation={"id": "conv_1"}, input="and?")
    another, _ = await respond(conversation={"id": "conv_2"}, input="and?")
    assert again == kept != another
    listed = [{"role": "user", "content": "listed"}]
    begun, _ = await respond(input="listed")
    turn = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Sure."}]}
    more = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "more"}]}
    gone_on, _ = await respond(input=[*listed, turn, more])
    assert gone_on == begun


async def test_a_run_in_anothers_trace_is_linked_to_it(house: House) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01"
    elsewhere = trace.format("00f067aa0ba902b7")
    await house.run("hi", x_run_id="planner", traceparent=elsewhere)
    await house.run("hi", x_run_id="searcher", traceparent=elsewhere, key=OTHER_KEY)
    await house.run("hi", x_run_id="searcher", key=OTHER_KEY, traceparent=elsewhere)
    await house.run("hi", x_run_id="planner", traceparent=elsewhere)
    await house.run("hi", x_run_id="told", traceparent=elsewhere, x_parent_run_id="planner")
    unnamed = await house.run("hi there", traceparent=elsewhere)
    (call,) = house.proxy.views(run="searcher")[:1]
    spans = trace.format(span_id_of(call.id).hex())
    await house.run("hi", x_run_id="exact", traceparent=spans)
    await house.run("hi", x_run_id="another", traceparent=spans.replace("4bf92f", "5bf92f"))

    def above(run: str) -> set[str]:
        return {view.parent_run_id for view in house.proxy.views(run=run)}

    assert above("searcher") == {"planner"}
    assert above("planner") == above("another") == {""}
    assert above("told") == above(unnamed) == {"planner"}
    assert above("exact") == {"searcher"}
    with house.proxy.engine.connect() as connection:
        seen = connection.execute(
            select(traces.c.run_id).where(traces.c.trace_id == bytes.fromhex(trace[3:35]))
        )
        assert sorted(seen.scalars()) == sorted(["exact", "planner", "searcher", "told", unnamed])
        linked = connection.execute(
            select(runs.c.parent_run_id, runs.c.parent_agent_id).where(runs.c.run_id == "searcher")
        ).one()
    assert tuple(linked) == ("planner", "")  # a link, and no more: nothing of it counts in the other run


async def test_conversations_outlast_a_crash(house: House) -> None:
    run = await house.run("before")
    house.proxy.kill9()
    await house.proxy.restart()
    assert await house.run("before", "Sure.", "after") == run


def _messages(*said: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(said)]
