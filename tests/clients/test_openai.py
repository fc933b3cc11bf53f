"""The official OpenAI SDK: chat, Responses, completions and embeddings, whatever the upstream speaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ParsedChatCompletion
from openai.types.responses import Response

from tests.clients.house import (
    ASKED,
    DIALECTS,
    FINAL,
    ORDER,
    POOR_KEY,
    SCHEMAS,
    THOUGHTS,
    WRONG_KEY,
    City,
    House,
    answer,
    said,
    thoughts,
)
from tests.proxy import KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")
every_upstream = pytest.mark.parametrize("upstream", list(DIALECTS))
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
CHAT_TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "strict": True, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
RESPONSES_TOOLS: list[Any] = [
    {"type": "function", "name": name, "strict": True, "parameters": schema}
    for name, schema in SCHEMAS.items()
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sdk(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    async with house.proxy.sdk() as sdk:
        yield sdk


async def _chat(sdk: openai.AsyncOpenAI, *, stream: bool, **asked: Any) -> Any:
    if not stream:
        return await sdk.chat.completions.create(**asked)
    async with sdk.chat.completions.stream(**asked) as events:
        async for _ in events:
            pass
        final: ParsedChatCompletion[None] = await events.get_final_completion()
        return final


async def _respond(sdk: openai.AsyncOpenAI, *, stream: bool, **asked: Any) -> Response:
    if not stream:
        return await sdk.responses.create(**asked)
    async with sdk.responses.stream(**asked) as events:
        async for _ in events:
            pass
        return await events.get_final_response()


@every_upstream
@whole_and_streamed
async def test_chat_with_tools(
    house: House, sdk: openai.AsyncOpenAI, run: str, upstream: str, stream: bool
) -> None:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ORDER}]
    proposed: list[Any] = []
    reasoned: list[Any] = []
    ends: list[str] = []
    for _ in range(3):
        reply = await _chat(
            sdk,
            stream=stream,
            model=f"m-{upstream}",
            messages=messages,
            tools=CHAT_TOOLS,
            reasoning_effort="medium",
            max_completion_tokens=4000,
            extra_headers={"x-run-id": run},
        )
        (choice,) = reply.choices
        message = choice.message
        ends.append(choice.finish_reason)
        reasoned.append(getattr(message, "reasoning_content", None))
        back = message.to_dict()
        messages.append({name: value for name, value in back.items() if name != "parsed"})
        for call in message.tool_calls or []:
            arguments = json.loads(call.function.arguments)
            proposed.append((call.function.name, arguments))
            said_by_tool = answer(call.function.name, arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": said_by_tool})
    assert ends == ["tool_calls", "tool_calls", "stop"]
    assert tuple(proposed) == ASKED
    assert messages[-1]["content"] == FINAL
    assert tuple(reasoned) == THOUGHTS
    house.three_turns(run, "chat", upstream, stream=stream)


@every_upstream
async def test_chat_without_the_reasoning_sent_back(
    house: House, sdk: openai.AsyncOpenAI, run: str, upstream: str
) -> None:
    """As most programs do it: the vendor that wants its signed thinking back is asked not to think on."""
    messages: list[Any] = [{"role": "user", "content": ORDER}]
    for _ in range(3):
        reply = await sdk.chat.completions.create(
            model=f"m-{upstream}",
            messages=messages,
            tools=CHAT_TOOLS,
            reasoning_effort="medium",
            max_completion_tokens=4000,
            extra_headers={"x-run-id": run},
        )
        message = reply.choices[0].message
        calls = [call for call in message.tool_calls or [] if call.type == "function"]
        messages.append({"role": "assistant", "content": message.content, "tool_calls": calls or None})
        for call in calls:
            output = answer(call.function.name, json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output})
    assert messages[-1]["content"] == FINAL
    house.three_turns(run, "chat", upstream, stream=False)
    assert thoughts(house.calls(run)[0]) == THOUGHTS[0]


@every_upstream
@whole_and_streamed
async def test_responses_with_tools_and_reasoning_sent_back(
    house: House, sdk: openai.AsyncOpenAI, run: str, upstream: str, stream: bool
) -> None:
    items: list[Any] = [{"role": "user", "content": ORDER}]
    proposed: list[Any] = []
    sealed: list[bool] = []
    text = ""
    for _ in range(3):
        reply = await _respond(
            sdk,
            stream=stream,
            model=f"m-{upstream}",
            input=items,
            instructions="Be brief.",
            tools=RESPONSES_TOOLS,
            reasoning={"effort": "medium", "summary": "auto"},
            include=["reasoning.encrypted_content"],
            store=False,
            max_output_tokens=4000,
            extra_headers={"x-run-id": run},
        )
        assert reply.status == "completed"
        sealed.append(any(item.type == "reasoning" and item.encrypted_content for item in reply.output))
        text = reply.output_text
        items += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in reply.output]
        for call in reply.output:
            if call.type == "function_call":
                arguments = json.loads(call.arguments)
                proposed.append((call.name, arguments))
                output = answer(call.name, arguments)
                items.append({"type": "function_call_output", "call_id": call.call_id, "output": output})
    assert (tuple(proposed), text) == (ASKED, FINAL)
    assert sealed == [True] * 3
    house.three_turns(run, "responses", upstream, stream=stream)
    assert tuple(thoughts(call) for call in house.calls(run)) == THOUGHTS


@every_upstream
@whole_and_streamed
async def test_responses_go_on_from_a_stored_one(
    house: House, sdk: openai.AsyncOpenAI, run: str, upstream: str, stream: bool
) -> None:
    asked: dict[str, Any] = {
        "model": f"m-{upstream}",
        "tools": RESPONSES_TOOLS,
        "reasoning": {"effort": "low"},
        "extra_headers": {"x-run-id": run},
    }
    reply = await _respond(sdk, stream=stream, input=ORDER, **asked)
    for _ in range(2):
        results: list[Any] = [
            {
                "type": "function_call_output",
                "call_id": call.call_id,
                "output": answer(call.name, json.loads(call.arguments)),
            }
            for call in reply.output
            if call.type == "function_call"
        ]
        before = reply.id
        reply = await _respond(sdk, stream=stream, input=results, previous_response_id=before, **asked)
        assert reply.previous_response_id == before
    assert reply.output_text == FINAL
    house.three_turns(run, "responses", upstream, stream=stream)


@every_upstream
async def test_a_response_that_was_never_given_is_a_bad_request(
    house: House, sdk: openai.AsyncOpenAI, run: str, upstream: str
) -> None:
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        await sdk.responses.create(
            model=f"m-{upstream}",
            input="Go on.",
            previous_response_id="resp_1",
            extra_headers={"x-run-id": run},
        )
    house.failed(run, 400)


@every_upstream
async def test_structured_replies(sdk: openai.AsyncOpenAI, upstream: str) -> None:
    model = f"m-{upstream}"
    question: Any = [{"role": "user", "content": "Which city?"}]
    chat = await sdk.chat.completions.parse(model=model, messages=question, response_format=City)
    response = await sdk.responses.parse(model=model, input=question, text_format=City)
    oslo = City(name="Oslo", people=717710)
    assert (chat.choices[0].message.parsed, response.output_parsed) == (oslo, oslo)


@every_upstream
async def test_streams_come_as_typed_events(sdk: openai.AsyncOpenAI, upstream: str) -> None:
    model = f"m-{upstream}"
    async with sdk.chat.completions.stream(
        model=model, messages=[{"role": "user", "content": "hi"}], stream_options={"include_usage": True}
    ) as chat:
        deltas = [event.delta async for event in chat if event.type == "content.delta"]
        usage = (await chat.get_final_completion()).usage
    assert usage is not None
    assert ("".join(deltas), usage.total_tokens) == ("Hello there, friend.", 26)
    assert len(deltas) > 1
    async with sdk.responses.stream(model=model, input="hi") as response:
        events = [event async for event in response]
    assert [event.type for event in events][:2] == ["response.created", "response.in_progress"]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == "Hello there, friend."
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage is not None
    assert last.response.usage.total_tokens == 26


async def test_embeddings_and_completions(house: House, sdk: openai.AsyncOpenAI, run: str) -> None:
    more: dict[str, Any] = {"model": "m-chat", "extra_headers": {"x-run-id": run}}
    vectors = await sdk.embeddings.create(input=["one", "two"], **more)
    assert [len(vector.embedding) > 1 for vector in vectors.data] == [True, True]
    assert vectors.data[0].embedding != vectors.data[1].embedding
    whole = await sdk.completions.create(prompt="hi", **more)
    stream = await sdk.completions.create(prompt="hi", stream=True, **more)
    pieces = [chunk.choices[0].text async for chunk in stream if chunk.choices]
    assert whole.choices[0].text == "".join(pieces) == "Hello there, friend."
    dialects = [(call.dialect, call.stream) for call in house.calls(run)]
    assert dialects == [
        ("openai_embeddings", False),
        ("openai_completions", False),
        ("openai_completions", True),
    ]


@every_upstream
async def test_what_the_headers_say_is_recorded(
    house: House, sdk: openai.AsyncOpenAI, run: str, upstream: str
) -> None:
    raw = await sdk.responses.with_raw_response.create(
        model=f"m-{upstream}", input="hi", extra_headers={"x-run-id": run}
    )
    assert raw.parse().output_text == "Hello there, friend."
    assert raw.headers["x-run-id"] == run
    assert raw.headers["x-served-by"] == f"to-m-{upstream}"
    assert said(house.proxy.view(raw.headers["x-call-id"])).text == "Hello there, friend."


API = ["chat", "responses"]


async def _ask(sdk: openai.AsyncOpenAI, api: str, model: str, run: str, *, stream: bool) -> str:
    """The text of the reply, from the plain calls that most programs make."""
    extra: Any = {"extra_headers": {"x-run-id": run}}
    if api == "chat":
        messages: Any = [{"role": "user", "content": "hi"}]
        if not stream:
            reply = await sdk.chat.completions.create(model=model, messages=messages, **extra)
            return reply.choices[0].message.content or ""
        chunks = await sdk.chat.completions.create(model=model, messages=messages, stream=True, **extra)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])
    if not stream:
        return (await sdk.responses.create(model=model, input="hi", **extra)).output_text
    events = await sdk.responses.create(model=model, input="hi", stream=True, **extra)
    return "".join([event.delta async for event in events if event.type == "response.output_text.delta"])


@pytest.mark.parametrize("api", API)
@whole_and_streamed
async def test_refusals_have_their_own_types(house: House, run: str, api: str, stream: bool) -> None:
    async with house.proxy.sdk(WRONG_KEY) as sdk:
        with pytest.raises(openai.AuthenticationError) as unknown:
            await _ask(sdk, api, "m-chat", run, stream=stream)
    assert unknown.value.code == "invalid_credential"
    async with house.proxy.sdk() as sdk:
        with pytest.raises(openai.NotFoundError) as missing:
            await _ask(sdk, api, "nothing", run, stream=stream)
    assert missing.value.code == "model_not_found"
    async with house.proxy.sdk(POOR_KEY) as sdk:
        with pytest.raises(openai.RateLimitError, match="pence") as spent:
            await _ask(sdk, api, "m-chat", run, stream=stream)
    assert spent.value.code == "budget_exceeded"
    assert int(spent.value.response.headers["retry-after"]) > 0
    assert spent.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("api", API)
@every_upstream
@whole_and_streamed
async def test_failures_of_the_upstream_have_their_own_types(
    house: House, sdk: openai.AsyncOpenAI, run: str, api: str, upstream: str, stream: bool
) -> None:
    with pytest.raises(openai.InternalServerError) as down:
        await _ask(sdk, api, f"broken-{upstream}", f"{run}-down", stream=stream)
    assert (down.value.status_code, down.value.code) == (502, "upstream_failed")
    house.failed(f"{run}-down", 502)
    with pytest.raises(openai.BadRequestError, match="The vendor refuses this"):
        await _ask(sdk, api, f"refusing-{upstream}", f"{run}-no", stream=stream)
    house.failed(f"{run}-no", 400)


@pytest.mark.parametrize("api", API)
@every_upstream
async def test_a_stream_that_breaks_off_raises(
    house: House, sdk: openai.AsyncOpenAI, run: str, api: str, upstream: str
) -> None:
    with pytest.raises(openai.APIError) as cut:
        await _ask(sdk, api, f"cut-{upstream}", run, stream=True)
    assert cut.value.code == "upstream_failed"
    (call,) = house.calls(run)
    assert call.status == "failed"
    assert said(call).text.startswith("This sentence")


async def test_the_model_list_is_what_the_key_may_use(house: House, sdk: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in sdk.models.list()]
    assert {f"m-{upstream}" for upstream in DIALECTS} < set(listed)
    assert (await sdk.models.retrieve("m-chat")).id == "m-chat"
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve("nothing")


async def test_a_blocking_client_works_too(house: House) -> None:
    with openai.OpenAI(base_url=house.base_url, api_key=KEY, max_retries=0) as sdk:
        replies = [model.id for model in sdk.models.list()]
    assert "m-messages" in replies
