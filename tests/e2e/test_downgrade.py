"""A limit that names a cheaper model: calls go there, in every dialect, counted and not blocked."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio
from sqlalchemy import select

from llm_proxy.records import bodies
from llm_proxy.records.evidence import RecordKind
from llm_proxy.records.tables import calls, records
from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import ProxyProcess, ask, config, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLS = 50
ROOM = 10
SCRIPT = "default: {turns: [{text: Hello there, usage: {input: 8, output: 4}, latency_s: 0.02}]}"
DOWN = {"on_exceed": {"downgrade": "small"}}
BUDGETS: list[dict[str, Any]] = [
    *(
        {"id": f"{agent}-day", "agent": agent, "window": "day", "requests": ROOM} | DOWN
        for agent in ("crowd", "messages")
    ),
    {"id": "usd-day", "agent": "usd", "window": "day", "usd": 0.002} | DOWN,
    {"id": "usd-stop", "agent": "usd", "window": "day", "requests": 3},
    {"id": "chain-all", "agent": "chain", "window": "day", "requests": 1, "on_exceed": {"downgrade": "mid"}},
    {"id": "chain-mid", "agent": "chain", "model": "mid", "window": "day", "requests": 1} | DOWN,
    {"id": "scoped-big", "agent": "scoped", "model": "big", "window": "day", "requests": 1} | DOWN,
    {"id": "talks-day", "agent": "talks", "window": "day", "requests": 1} | DOWN,
    {"id": "embeds-day", "agent": "embeds", "window": "day", "requests": 1} | DOWN,
    {"id": "slots", "agent": "slots", "concurrency": 2} | DOWN,
]
AGENTS = ("crowd", "messages", "usd", "chain", "scoped", "talks", "embeds", "slots")


def _key(agent: str) -> str:
    return f"sk-{agent}-0123456789abcdef"


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Scripted

    def asked(self) -> Counter[str]:
        """How often each model was asked upstream."""
        return Counter(json.loads(seen.body)["model"] for seen in self.upstream.seen)

    def served(self, agent: str) -> list[str]:
        """The model under which each of the agent's calls is counted, in order."""
        query = select(calls.c.model).where(calls.c.agent_id == agent).order_by(calls.c.started_us)
        with self.proxy.engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def opened(self, call_id: str) -> bodies.Opened:
        query = select(records.c.body).where(
            records.c.call_id == call_id, records.c.kind == RecordKind.CALL_OPENED.value
        )
        with self.proxy.engine.connect() as connection:
            return bodies.read_opened(connection.execute(query).scalar_one())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        rate = {"big": 1e-4, "mid": 1e-5, "small": 1e-6}
        models = {
            name: {
                "targets": [
                    target(f"{name}-a", upstream.base_url, name),
                    target(f"{name}-b", upstream.base_url, name),
                ],
                "hedge_after": 5,
            }
            for name in rate
        }
        settings = config(
            upstream.base_url,
            models=models,
            prices={
                name: {"input_cost_per_token": usd, "output_cost_per_token": usd, "max_output_tokens": 50}
                for name, usd in rate.items()
            },
            agents={agent: {"keys": [_key(agent)], "models": ["big"]} for agent in AGENTS},
            budgets=BUDGETS,
        )
        async with ProxyProcess(tmp_path_factory.mktemp("downgrade"), settings) as proxy:
            yield House(proxy, upstream)


async def test_fifty_at_once_over_the_openai_sdk(house: House) -> None:
    house.upstream.reset()
    async with house.proxy.sdk(_key("crowd")) as sdk:

        async def one(number: int) -> tuple[str | None, str]:
            body = ask(model="big", stream=number % 2 == 0)
            raw = await sdk.chat.completions.with_raw_response.create(**body)
            reply = raw.parse()
            if number % 2 == 0:
                said = "".join([c.choices[0].delta.content or "" async for c in reply if c.choices])
            else:
                said = reply.choices[0].message.content or ""
            return raw.headers.get("x-downgraded-by"), said

        answers = await asyncio.gather(*map(one, range(CALLS)))
    assert Counter(by for by, _ in answers) == {None: ROOM, "crowd-day": CALLS - ROOM}
    assert {said for _, said in answers} == {"Hello there"}
    assert house.asked() == {"big": ROOM, "small": CALLS - ROOM}
    await house.proxy.settled()
    assert house.proxy.used("crowd-day", "requests") == CALLS
    assert Counter(house.served("crowd")) == {"big": ROOM, "small": CALLS - ROOM}
    costs = ROOM * 12 * 100 + (CALLS - ROOM) * 12
    assert sum(view.cost_micro_usd for view in house.proxy.views(agent="crowd")) == costs


async def test_fifty_at_once_over_the_anthropic_sdk(house: House) -> None:
    house.upstream.reset()
    # The SDK gives up on a connection after 5 s, which a busy machine may take for fifty at once.
    sdk = anthropic.AsyncAnthropic(
        base_url=house.proxy.origin, api_key=_key("messages"), max_retries=0, timeout=60
    )

    async def one(number: int) -> str | None:
        asked: dict[str, Any] = {
            "model": "big",
            "max_tokens": 20,
            "messages": [{"role": "user", "content": "hi"}],
        }
        if number % 2:
            raw = await sdk.messages.with_raw_response.create(**asked)
            assert (await raw.parse()).content[0].text == "Hello there"
            return raw.headers.get("x-downgraded-by")
        async with sdk.messages.stream(**asked) as stream:
            assert await stream.get_final_text() == "Hello there"
            return stream.response.headers.get("x-downgraded-by")

    async with sdk:
        answers = await asyncio.gather(*map(one, range(CALLS)))
    assert Counter(answers) == {None: ROOM, "messages-day": CALLS - ROOM}
    assert house.asked() == {"big": ROOM, "small": CALLS - ROOM}
    await house.proxy.settled()
    assert house.proxy.used("messages-day", "requests") == CALLS
    assert house.proxy.held_amounts() == 0


async def test_the_record_says_what_was_asked_and_what_limit_stepped_in(house: House) -> None:
    async with house.proxy.sdk(_key("scoped")) as sdk:
        first = await sdk.chat.completions.with_raw_response.create(**ask(model="big"))
        second = await sdk.chat.completions.with_raw_response.create(**ask(model="big"))
        with pytest.raises(openai.PermissionDeniedError, match="may not use model 'small'"):
            await sdk.chat.completions.create(**ask(model="small"))
    assert "x-downgraded-by" not in first.headers
    assert second.headers["x-downgraded-by"] == "scoped-big"
    assert second.headers["x-served-by"] == "small-a"
    opened = house.opened(second.headers["x-call-id"])
    assert (opened.model, opened.asked_model, opened.downgraded_by) == ("small", "big", "scoped-big")
    await house.proxy.settled()
    # The limit is for calls of big alone: what small did is none of its business.
    assert house.proxy.used("scoped-big", "requests") == 1
    view = house.proxy.view(second.headers["x-call-id"])
    assert json.loads(view.request or b"")["model"] == "big"
    assert json.loads(view.sent or b"")["model"] == "small"


async def test_other_limits_block_as_ever(house: House) -> None:
    """A call of big holds 58 tokens, $0.0058, where $0.002 are allowed: it goes to small, three times."""
    async with house.proxy.sdk(_key("usd")) as sdk:
        for _ in range(3):
            raw = await sdk.chat.completions.with_raw_response.create(**ask(model="big"))
            assert raw.headers["x-downgraded-by"] == "usd-day"
            await house.proxy.settled()
        with pytest.raises(openai.RateLimitError) as refused:
            await sdk.chat.completions.create(**ask(model="big"))
    assert "'usd-stop'" in refused.value.message
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert house.proxy.used("usd-day", "micro_usd") == 3 * 12
    assert house.proxy.view(refused.value.response.headers["x-call-id"]).status is Status.REFUSED


async def test_a_chain_of_limits_ends_at_the_last_model(house: House) -> None:
    told: list[str | None] = []
    async with house.proxy.sdk(_key("chain")) as sdk:
        for _ in range(3):
            raw = await sdk.chat.completions.with_raw_response.create(**ask(model="big"))
            told.append(raw.headers.get("x-downgraded-by"))
            await house.proxy.settled()
    assert told == [None, "chain-all", "chain-all, chain-mid"]
    assert house.served("chain") == ["big", "mid", "small"]
    assert house.proxy.used("chain-all", "requests") == 3


async def test_calls_at_once_overflow_to_the_other_model(house: House) -> None:
    house.upstream.reset()
    async with house.proxy.sdk(_key("slots")) as sdk:
        raws = await asyncio.gather(
            *(sdk.chat.completions.with_raw_response.create(**ask(model="big")) for _ in range(12))
        )
    assert len(raws) == 12
    assert house.asked()["small"] >= 1
    assert sum(house.asked().values()) == 12
    await house.proxy.settled()
    assert house.proxy.held_amounts() == 0


async def test_a_conversation_goes_on_where_it_was_downgraded(house: House) -> None:
    house.upstream.reset()
    async with house.proxy.sdk(_key("talks")) as sdk:
        first = await sdk.responses.create(model="big", input="one")
        second = await sdk.responses.create(model="big", input="two", previous_response_id=first.id)
        stream = await sdk.responses.create(
            model="big", input="three", previous_response_id=second.id, stream=True
        )
        last = [event async for event in stream][-1]
    assert last.type == "response.completed"
    assert house.served("talks") == ["big", "small", "small"]
    assert house.asked() == {"big": 1, "small": 2}


async def test_embeddings_are_not_made_by_another_model(house: House) -> None:
    async with house.proxy.sdk(_key("embeds")) as sdk:
        await sdk.embeddings.create(model="big", input="hello")
        with pytest.raises(openai.RateLimitError, match="'embeds-day'"):
            await sdk.embeddings.create(model="big", input="hello")
    assert house.served("embeds") == ["big", "big"]
