"""An agent written with the official OpenAI SDK works through the proxy: every feature passes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pydantic
import pytest
import pytest_asyncio

from llm_proxy.chat.events import Usage
from llm_proxy.records.view import CostLabel, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.scripted_house import House
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIXEL = "data:image/png;base64,iVBORw0KGgo="
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "strict": True, "parameters": parameters}}
    for name, parameters in (
        ("crm_read", {"type": "object", "properties": {"id": {"type": "integer"}}}),
        ("kb_search", {"type": "object", "properties": {"query": {"type": "string"}}}),
    )
]
SCRIPT = """
default:
  turns:
    - when: {last_user_contains: order, turn: 0}
      reasoning: I should look both things up first.
      tool_calls:
        - {name: crm_read, arguments: {id: 7}}
        - {name: kb_search, arguments: {query: "tank \\u00e9"}}
    - {when: {last_user_contains: order, turn: 1, tool_answered: kb_search}, text: Your order is on its way.}
    - {when: {last_user_contains: city}, text: '{"name": "Oslo", "people": 717710}'}
    - {when: {last_user_contains: picture}, text: A cat.}
    - {when: {last_user_contains: toss}, text: heads, choices: [{text: tails}, {text: edge}]}
    - {when: {last_user_contains: stubborn}, refusal: I can't help with that.}
    - when: {last_user_contains: sure}
      text: Sure
      choice_extra:
        logprobs: {content: [{token: Sure, logprob: -0.1, bytes: [83], top_logprobs: []}], refusal: null}
    - {when: {last_user_contains: silent}, text: Hello there., usage: none}
    - {when: {last_user_contains: free}, text: '', usage: {input: 9, output: 0}, finish: stop}
    - text: Hello there, friend.
      usage: {input: 20, output: 6, cached: 8, reasoning: 2}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            models={name: {"targets": [target(f"to-{name}", upstream.base_url)]} for name in ("m", "other")},
            agents={
                "bot": {"team": "crew", "keys": [KEY], "models": ["*"]},
                "narrow": {"keys": [OTHER_KEY], "models": ["oth*"]},
            },
            budgets=[
                {"id": "day", "agent": "bot", "window": "day", "usd": 5, "requests": 900, "tokens": 10**7}
            ],
        )
        async with ProxyProcess(tmp_path_factory.mktemp("sdk"), settings) as proxy:
            yield House(proxy, upstream)


class City(pydantic.BaseModel):
    name: str
    people: int


@pytest.mark.parametrize("stream", [False, True])
async def test_text_with_usage_and_cost(house: House, stream: bool) -> None:
    async with house.proxy.sdk() as sdk:
        if stream:
            raw = await sdk.chat.completions.with_raw_response.create(
                **ask(stream=True, stream_options={"include_usage": True})
            )
            chunks = [chunk async for chunk in raw.parse()]
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            usages = [chunk.usage for chunk in chunks if chunk.usage]
            assert len(usages) == 1
            usage = usages[0]
        else:
            raw = await sdk.chat.completions.with_raw_response.create(**ask())
            reply = raw.parse()
            text, usage = reply.choices[0].message.content, reply.usage
    assert text == "Hello there, friend."
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (20, 6)
    assert raw.headers["x-served-by"] == "to-m"
    assert raw.headers["x-attempts"] == "1"
    assert float(raw.headers["x-overhead-ms"]) >= 0
    assert raw.headers["x-ratelimit-limit-requests"] == "900"
    assert int(raw.headers["x-ratelimit-remaining-tokens"]) < 10**7
    view = house.proxy.view(raw.headers["x-call-id"])
    assert (view.status, view.agent_id, view.team, view.stream) == (Status.OK, "bot", "crew", stream)
    assert view.usage == Usage(input=20, output=6, cached=8, reasoning=2)
    assert (view.cost_micro_usd, view.cost_label) == (32, CostLabel.REPORTED)
    assert view.reply is not None
    assert view.reply.choices[0].text == "Hello there, friend."
    assert view.request == house.upstream.seen[-1].body


async def test_a_stream_without_usage_asked_for_has_none_and_is_charged_all_the_same(house: House) -> None:
    async with house.proxy.sdk() as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(**ask(stream=True))
        chunks = [chunk async for chunk in raw.parse()]
    assert [chunk for chunk in chunks if chunk.usage or not chunk.choices] == []
    view = house.proxy.view(raw.headers["x-call-id"])
    assert (view.usage, view.cost_label) == (Usage(input=20, output=6, cached=8, reasoning=2), "reported")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_without_usage_is_counted(house: House, stream: bool) -> None:
    async with house.proxy.sdk() as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(**ask("silent", stream=stream))
        if stream:
            assert [chunk async for chunk in raw.parse()]
    view = house.proxy.view(raw.headers["x-call-id"])
    assert view.usage is not None
    assert 1 <= view.usage.output <= 6
    assert 4 <= view.usage.input <= 12
    assert view.cost_label is CostLabel.ESTIMATED
    assert view.cost_micro_usd == view.usage.input + 2 * view.usage.output


@pytest.mark.parametrize("stream", [False, True])
async def test_zero_usage_is_zero(house: House, stream: bool) -> None:
    async with house.proxy.sdk() as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(**ask("free", stream=stream))
        if stream:
            assert [chunk async for chunk in raw.parse()]
    view = house.proxy.view(raw.headers["x-call-id"])
    assert view.usage == Usage(input=9, output=0)
    assert (view.cost_micro_usd, view.cost_label) == (9, CostLabel.REPORTED)


async def _turn(sdk: openai.AsyncOpenAI, messages: list[Any], stream: bool) -> Any:
    """One assistant message, however it came."""
    asked: dict[str, Any] = {"model": "m", "messages": messages, "tools": TOOLS}
    if not stream:
        return (await sdk.chat.completions.create(**asked)).choices[0].message
    async with sdk.chat.completions.stream(**asked) as events:
        return (await events.get_final_completion()).choices[0].message


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agents_loop_with_parallel_tool_calls(house: House, stream: bool) -> None:
    run = f"loop-{stream}"
    messages: list[Any] = [{"role": "user", "content": "Where is my order?"}]
    async with house.proxy.sdk(default_headers={"x-run-id": run, "x-user-id": "ann"}) as sdk:
        asked = await _turn(sdk, messages, stream)
        names = [(call.function.name, json.loads(call.function.arguments)) for call in asked.tool_calls]
        assert names == [("crm_read", {"id": 7}), ("kb_search", {"query": "tank é"})]
        messages.append(asked.model_dump(exclude_none=True))
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": f"result of {call.function.name}"}
            for call in asked.tool_calls
        ]
        answered = await _turn(sdk, messages, stream)
    assert answered.content == "Your order is on its way."
    first, second = house.proxy.views(run=run)
    assert (first.user_id, second.user_id) == ("ann", "ann")
    assert first.reply is not None
    assert first.reply.choices[0].reasoning[0].text == "I should look both things up first."
    assert first.finish_reasons == ("tool_call",)
    assert [call.name for call in first.reply.choices[0].calls] == ["crm_read", "kb_search"]
    assert second.request is not None
    assert json.loads(second.request)["messages"] == messages


@pytest.mark.parametrize("stream", [False, True])
async def test_structured_outputs(house: House, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "Which city?"}]
    async with house.proxy.sdk() as sdk:
        if stream:
            async with sdk.chat.completions.stream(
                model="m", messages=messages, response_format=City
            ) as events:
                reply = await events.get_final_completion()
        else:
            reply = await sdk.chat.completions.parse(model="m", messages=messages, response_format=City)
    assert reply.choices[0].message.parsed == City(name="Oslo", people=717710)
    sent = json.loads(house.upstream.seen[-1].body)
    assert sent["response_format"]["json_schema"]["name"] == "City"


@pytest.mark.parametrize("stream", [False, True])
async def test_images(house: House, stream: bool) -> None:
    parts: list[Any] = [
        {"type": "text", "text": "What picture is it?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
    ]
    async with house.proxy.sdk() as sdk:
        message = await _turn(sdk, [{"role": "user", "content": parts}], stream)
    assert message.content == "A cat."
    assert json.loads(house.upstream.seen[-1].body)["messages"][0]["content"] == parts


@pytest.mark.parametrize("stream", [False, True])
async def test_three_choices(house: House, stream: bool) -> None:
    async with house.proxy.sdk() as sdk:
        if stream:
            said = ["", "", ""]
            async for chunk in await sdk.chat.completions.create(**ask("toss", n=3, stream=True)):
                for choice in chunk.choices:
                    said[choice.index] += choice.delta.content or ""
        else:
            reply = await sdk.chat.completions.create(**ask("toss", n=3))
            said = [choice.message.content for choice in reply.choices]
    assert said == ["heads", "tails", "edge"]


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_and_refusals(house: House, stream: bool) -> None:
    async with house.proxy.sdk() as sdk:
        if stream:
            sure = [c async for c in await sdk.chat.completions.create(**ask("sure?", stream=True))]
            logprobs = sure[0].choices[0].logprobs
            stubborn = [c async for c in await sdk.chat.completions.create(**ask("stubborn", stream=True))]
            refusal = "".join(c.choices[0].delta.refusal or "" for c in stubborn)
        else:
            choice = (await sdk.chat.completions.create(**ask("sure?", logprobs=True))).choices[0]
            logprobs = choice.logprobs
            refusal = (await sdk.chat.completions.create(**ask("stubborn"))).choices[0].message.refusal
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].logprob == -0.1
    assert refusal == "I can't help with that."


async def test_models(house: House) -> None:
    async with house.proxy.sdk() as sdk, house.proxy.sdk(OTHER_KEY) as narrow:
        assert [model.id async for model in await sdk.models.list()] == ["m", "other"]
        assert [model.id async for model in await narrow.models.list()] == ["other"]
        assert (await narrow.models.retrieve("other")).id == "other"
        with pytest.raises(openai.NotFoundError) as error:
            await narrow.models.retrieve("m")
    assert error.value.code == "model_not_found"
    async with house.proxy.sdk("sk-nobody") as nobody:
        with pytest.raises(openai.AuthenticationError):
            await nobody.models.list()


async def test_the_synchronous_client(house: House) -> None:
    def talk() -> tuple[str | None, str]:
        with openai.OpenAI(base_url=house.proxy.base_url, api_key=KEY, max_retries=0) as sdk:
            said = sdk.chat.completions.create(**ask()).choices[0].message.content
            stream = sdk.chat.completions.create(**ask(stream=True))
            return said, "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(talk) == ("Hello there, friend.", "Hello there, friend.")


async def test_the_keys_of_callers_and_upstreams_stay_apart(house: House) -> None:
    house.upstream.reset()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with house.proxy.sdk(default_headers={"traceparent": trace}) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(**ask())
    seen = house.upstream.seen[-1].headers
    assert seen["authorization"] == "Bearer sk-upstream"
    assert KEY not in str(seen)
    assert seen["traceparent"] == trace
    assert house.proxy.view(raw.headers["x-call-id"]).traceparent == trace


RUNS = [
    ({"x-run-id": "r-1"}, {}, "r-1"),
    ({"x-session-id": "r-2"}, {}, "r-2"),
    ({"x-litellm-session-id": "r-3"}, {}, "r-3"),
    ({}, {"metadata": {"run_id": "r-4"}}, "r-4"),
    ({"x-run-id": "r-5"}, {"metadata": {"run_id": "other"}}, "r-5"),
]


@pytest.mark.parametrize(("sent", "body", "run"), RUNS, ids=[run for _, _, run in RUNS])
async def test_where_a_run_is_named(
    house: House, sent: dict[str, str], body: dict[str, Any], run: str
) -> None:
    async with house.proxy.sdk(default_headers=sent) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(**ask(**body))
    assert raw.headers["x-run-id"] == run
    view = house.proxy.view(raw.headers["x-call-id"])
    assert (view.run_id, view.run_inferred) == (run, False)


async def test_a_call_without_a_run_is_a_run_of_its_own(house: House) -> None:
    async with house.proxy.sdk() as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(**ask(), extra_headers=headers())
    view = house.proxy.view(raw.headers["x-call-id"])
    assert (view.run_id, view.run_inferred) == (view.id, True)
