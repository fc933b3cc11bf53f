"""Limits hold on every path and in every dialect, and what is charged is what the upstream reported."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
import pytest_asyncio

from llm_proxy.chat.events import Usage
from llm_proxy.records.view import CostLabel, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import AGENTS, UPSTREAMS, Agent, speaking
from tests.e2e.scripted_house import House
from tests.proxy import ProxyProcess, config, headers, target, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = 50
ROOM = 10
SCRIPT = """
models:
  m:
    turns:
      - {text: Hello there, latency_s: 0.05, usage: {input: 400, cached: 250, output: 60, reasoning: 20}}
  thinking:
    turns:
      - {reasoning: Hm., text: Hello, usage: {input: 400, cached: 250, output: 60, reasoning: 20}}
  quiet: {turns: [{text: Well., usage: none}]}
  unsaid: {turns: [{text: "one two three four five six seven eight", stall_after: 6}]}
  tools:
    turns: [{tool_calls: [{name: crm_read, arguments: {id: "7"}}, {name: crm_read, arguments: {id: "8"}}]}]
"""
PRICE = {
    "input_cost_per_token": 1e-6,
    "cache_read_input_token_cost": 1e-7,
    "output_cost_per_token": 2e-6,
    "output_cost_per_reasoning_token": 3e-6,
    "max_output_tokens": 8000,
}
USED = Usage(input=400, output=60, cached=250, reasoning=20)
MICRO_USD = 150 + 25 + 2 * 40 + 3 * 20

_ASK = [{"role": "user", "content": "hi"}]
PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat/completions", {"model": "m-openai_chat", "messages": _ASK}),
    "responses": ("/responses", {"model": "m-openai_responses", "input": "hi"}),
    "messages": ("/messages", {"model": "m-anthropic_messages", "messages": _ASK, "max_tokens": 50}),
    "responses-translated": ("/responses", {"model": "m-openai_chat", "input": "hi"}),
    "messages-translated": ("/messages", {"model": "m-openai_chat", "messages": _ASK, "max_tokens": 50}),
    "completions": ("/completions", {"model": "m", "prompt": "hi"}),
    "embeddings": ("/embeddings", {"model": "m", "input": "hi"}),
    "moderations": ("/moderations", {"model": "m", "input": "hi"}),
    "count": ("/messages/count_tokens", {"model": "m-anthropic_messages", "messages": _ASK}),
}
CROWDS = [*PATHS, "mixed"]
STREAMS = ("chat", "responses", "messages", "responses-translated", "messages-translated", "completions")


def _key(agent: str) -> str:
    return f"sk-{agent}-0123456789abcdef"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        models = {
            f"{model}-{dialect}": {
                "targets": [speaking(dialect, f"{model}-{dialect}", upstream.origin, model)],
                "retries": 0,
            }
            for model in ("m", "thinking", "quiet", "unsaid", "tools")
            for dialect in UPSTREAMS
        }
        models |= {n: {"targets": [target(n, upstream.base_url, n)], "retries": 0} for n in ("m", "unsaid")}
        models["uneven"] = {
            "targets": [
                target("cheap", upstream.base_url, "m") | {"dialects": ["openai_chat", "openai_completions"]},
                target("dear", upstream.base_url, "dear") | {"dialects": ["openai_chat"]},
            ]
        }
        gate = [f"gate-{agent.dialect}" for agent in AGENTS]
        agents = [*CROWDS, *gate, "spender"]
        settings = config(
            upstream.base_url,
            models=models,
            agents={agent: {"keys": [_key(agent)], "models": ["*"]} for agent in agents},
            budgets=[
                *({"id": f"{n}-limit", "agent": n, "window": "day", "requests": ROOM} for n in CROWDS),
                *({"id": f"{n}-limit", "agent": n, "window": "run", "tool_calls": 1} for n in gate),
                {"id": "spent", "agent": "spender", "window": "day", "usd": 50, "tokens": 10**8},
            ],
            prices=dict.fromkeys(("m", "thinking", "quiet", "unsaid", "tools"), PRICE)
            | {"dear": {"input_cost_per_token": 1e-5, "output_cost_per_token": 1e-4}},
        )
        async with ProxyProcess(tmp_path_factory.mktemp("budgets"), settings) as proxy:
            yield House(proxy, upstream)


async def test_the_dearest_target_that_a_call_may_reach_is_held(house: House) -> None:
    """A path that only the cheap one serves doesn't decide what a call that may reach both is held at."""
    sent = headers(_key("spender"), x_run_id="uneven")
    asked = [("/completions", {"prompt": "hi"}), ("/chat/completions", {"messages": _ASK})]
    async with aiohttp.ClientSession() as http:
        for path, body in asked:
            body |= {"model": "uneven", "max_tokens": 100}
            async with http.post(house.proxy.base_url + path, json=body, headers=sent) as reply:
                assert reply.status == 200
    held = [view.held for view in house.proxy.views(run="uneven")]
    rates = [(1, 3), (10, 100)]
    assert [each["micro_usd"] for each in held] == [
        rate_in * each["input_tokens"] + rate_out * 100
        for each, (rate_in, rate_out) in zip(held, rates, strict=True)
    ]


@pytest.mark.parametrize("agent", CROWDS)
async def test_fifty_at_once_against_room_for_ten(house: House, agent: str) -> None:
    house.upstream.reset()
    names = list(PATHS) if agent == "mixed" else [agent]
    sent = headers(_key(agent), x_run_id=f"crowd-{agent}")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def one(number: int) -> tuple[int, bytes]:
            name = names[number % len(names)]
            path, body = PATHS[name]
            if name in STREAMS and number % 2:
                body = body | {"stream": True}
            async with http.post(house.proxy.base_url + path, json=body, headers=sent) as reply:
                return reply.status, await reply.read()

        answers = await asyncio.gather(*(one(number) for number in range(CALLS)))
    assert house.upstream.stats.total == ROOM, "another number of calls reached the upstream"
    assert Counter(status for status, _ in answers) == {200: ROOM, 429: CALLS - ROOM}
    for status, body in answers:
        if status == 429:
            error = json.loads(body)["error"]
            assert (error["code"], f"'{agent}-limit'" in error["message"]) == ("budget_exceeded", True)
    await house.proxy.settled()
    assert house.proxy.used(f"{agent}-limit", "requests") == ROOM
    assert house.proxy.held_amounts() == 0
    views = house.proxy.views(run=f"crowd-{agent}")
    assert Counter(view.status for view in views) == {Status.OK: ROOM, Status.REFUSED: CALLS - ROOM}


async def _charged(house: House) -> tuple[int, int]:
    await house.proxy.settled()
    return house.proxy.used("spent", "tokens"), house.proxy.used("spent", "micro_usd")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_what_is_reported_is_charged(
    house: House, kind: type[Agent], upstream: str, stream: bool
) -> None:
    before = await _charged(house)
    run = f"spend-{kind.dialect}-{upstream}-{stream}"
    async with kind(house.proxy, f"thinking-{upstream}", run=run, key=_key("spender")) as agent:
        await agent.say("hi", stream=stream)
        view = house.proxy.view(agent.tape.call_id)
    after = await _charged(house)
    assert (view.usage, view.cost_micro_usd, view.cost_label) == (USED, MICRO_USD, CostLabel.REPORTED)
    assert (after[0] - before[0], after[1] - before[1]) == (USED.total, MICRO_USD)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_completions_are_charged(house: House, stream: bool) -> None:
    before = await _charged(house)
    async with house.proxy.sdk(_key("spender")) as sdk:
        raw: Any = await sdk.completions.with_raw_response.create(model="m", prompt="hi", stream=stream)
        reply = raw.parse()
        if stream:
            assert [chunk async for chunk in reply]
    after = await _charged(house)
    view = house.proxy.view(raw.headers["x-call-id"])
    assert view.usage is not None
    assert (view.usage.total, view.cost_label) == (460, CostLabel.REPORTED)
    assert (after[0] - before[0], after[1] - before[1]) == (460, view.cost_micro_usd)
    assert view.cost_micro_usd > 0


async def test_embeddings_are_charged(house: House) -> None:
    before = await _charged(house)
    async with house.proxy.sdk(_key("spender")) as sdk:
        raw = await sdk.embeddings.with_raw_response.create(model="m", input=["some words", "and others"])
    view = house.proxy.view(raw.headers["x-call-id"])
    prompt = raw.parse().usage.prompt_tokens
    after = await _charged(house)
    assert prompt > 0
    assert (view.usage, view.cost_micro_usd) == (Usage(input=prompt), prompt)
    assert (after[0] - before[0], after[1] - before[1]) == (prompt, prompt)


@pytest.mark.parametrize("name", STREAMS)
async def test_who_leaves_in_mid_stream_is_charged(house: House, name: str) -> None:
    before = await _charged(house)
    path, body = PATHS[name]
    asked = body | {"stream": True, "model": body["model"].replace("m", "unsaid", 1)}
    sent = headers(_key("spender"), x_run_id=f"leave-{name}")
    async with aiohttp.ClientSession() as http:
        reply = await http.post(house.proxy.base_url + path, json=asked, headers=sent)
        got = b""
        while b"two" not in got:
            got += await reply.content.readany()
        reply.close()
    await until(
        lambda: all(v.status is not Status.OPEN for v in house.proxy.views(run=f"leave-{name}")), "it ended"
    )
    after = await _charged(house)
    (view,) = house.proxy.views(run=f"leave-{name}")
    assert (view.status, view.cost_label) == (Status.CLIENT_GONE, CostLabel.PARTIAL)
    assert view.usage is not None
    assert view.usage.input > 0
    assert view.usage.output >= 1
    assert (after[0] - before[0], after[1] - before[1]) == (view.usage.total, view.cost_micro_usd)
    assert got in ((view.emitted or b"") if view.released is None else view.released)
    assert house.proxy.held_amounts() == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_tool_calls_run_out(house: House, kind: type[Agent], upstream: str, stream: bool) -> None:
    """Two are proposed where one is left; the run's next call is refused."""
    name, run = f"gate-{kind.dialect}", f"gate-{upstream}-{stream}"
    async with kind(house.proxy, f"tools-{upstream}", run=run, key=_key(name), think=False) as agent:
        heard = await agent.say("do it", stream=stream)
        assert heard.calls == [("crm_read", {"id": "7"})]
        assert f"denied by rule 'budget:{name}-limit'" in heard.text
        assert heard.stop == agent.ends[True]
        assert b'"8' not in agent.tape.bytes
        with pytest.raises((openai.RateLimitError, anthropic.RateLimitError), match="tool_calls"):
            await agent.answer(stream=stream)
        assert house.proxy.view(agent.tape.call_id).status is Status.REFUSED


async def test_a_conversation_that_only_the_record_holds_counts_once(house: House) -> None:
    """An upstream that reports nothing: what is counted is the same, whoever sends the earlier turn."""
    words = "word " * 300
    async with house.proxy.sdk(_key("spender")) as sdk:
        first = await sdk.responses.create(model="quiet-openai_chat", input=words)
        earlier: Any = [{"role": "user", "content": words}, *(i.to_dict() for i in first.output)]
        again: Any = {"role": "user", "content": "and then?"}
        asked: Any = ({"previous_response_id": first.id, "input": [again]}, {"input": [*earlier, again]})
        counted: list[int] = []
        for more in asked:
            raw: Any = await sdk.responses.with_raw_response.create(model="quiet-openai_chat", **more)
            view = house.proxy.view(raw.headers["x-call-id"])
            assert view.usage is not None
            assert view.cost_label is CostLabel.ESTIMATED
            counted.append(view.usage.input)
    assert counted[1] > 300
    assert abs(counted[0] - counted[1]) < 30
