"""LangChain's OpenAI classes: tools bound, streams, structured output, embeddings, over both OpenAI APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
import pytest_asyncio
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

from tests.clients.house import (
    ASKED,
    DIALECTS,
    FINAL,
    ORDER,
    POOR_KEY,
    WRONG_KEY,
    City,
    House,
    Lookup,
    Query,
    answer,
)
from tests.proxy import KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")
every_upstream = pytest.mark.parametrize("upstream", list(DIALECTS))
every_api = pytest.mark.parametrize("api", ["chat", "responses"])
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
TOOLS = [
    StructuredTool.from_function(
        lambda **given: answer("crm_read", given), name="crm_read", description="Reads.", args_schema=Lookup
    ),
    StructuredTool.from_function(
        lambda **given: answer("kb_search", given), name="kb_search", description="Finds.", args_schema=Query
    ),
]


Make = Callable[..., ChatOpenAI]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def make(house: House) -> AsyncIterator[Make]:
    """Makes models over one HTTP client, which is closed at the end: LangChain's own are left open."""
    async with openai.DefaultAsyncHttpxClient() as http:

        def make(api: str, name: str, run: str, key: str = KEY, **more: Any) -> ChatOpenAI:
            return ChatOpenAI(
                model=name,
                base_url=house.base_url,
                api_key=SecretStr(key),
                max_retries=0,
                use_responses_api=api == "responses",
                default_headers={"x-run-id": run},
                http_async_client=http,
                **more,
            )

        yield make


async def _reply(model: Any, messages: Any, *, stream: bool) -> AIMessage:
    if not stream:
        return await model.ainvoke(messages)
    whole: AIMessageChunk | None = None
    async for chunk in model.astream(messages):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    return whole


@every_api
@every_upstream
@whole_and_streamed
async def test_tools_bound(house: House, make: Make, run: str, api: str, upstream: str, stream: bool) -> None:
    model = make(api, f"m-{upstream}", run, stream_usage=True).bind_tools(TOOLS)
    messages: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage(ORDER)]
    proposed: list[Any] = []
    for _ in range(3):
        reply = await _reply(model, messages, stream=stream)
        assert reply.usage_metadata is not None
        assert reply.usage_metadata["output_tokens"] > 0
        messages.append(reply)
        for call in reply.tool_calls:
            proposed.append((call["name"], call["args"]))
            messages.append(ToolMessage(answer(call["name"], call["args"]), tool_call_id=call["id"]))
    assert (tuple(proposed), messages[-1].text) == (ASKED, FINAL)
    house.three_turns(run, api, upstream, stream=stream)


@every_upstream
@whole_and_streamed
async def test_reasoning_through_responses(
    house: House, make: Make, run: str, upstream: str, stream: bool
) -> None:
    """Encrypted reasoning goes back with the tools' results, as LangChain keeps it in the message."""
    model = make(
        "responses",
        f"m-{upstream}",
        run,
        reasoning={"effort": "medium", "summary": "auto"},
        include=["reasoning.encrypted_content"],
        store=False,
        max_tokens=4000,
        output_version="responses/v1",
    ).bind_tools(TOOLS)
    messages: list[BaseMessage] = [HumanMessage(ORDER)]
    for _ in range(3):
        reply = await _reply(model, messages, stream=stream)
        kinds = [block["type"] for block in reply.content if isinstance(block, dict)]
        assert "reasoning" in kinds
        messages.append(reply)
        for call in reply.tool_calls:
            messages.append(ToolMessage(answer(call["name"], call["args"]), tool_call_id=call["id"]))
    assert messages[-1].text == FINAL
    house.three_turns(run, "responses", upstream, stream=stream)


@every_api
@every_upstream
async def test_structured_output(make: Make, run: str, api: str, upstream: str) -> None:
    model = make(api, f"m-{upstream}", run).with_structured_output(City, method="json_schema")
    assert await model.ainvoke("Which city?") == City(name="Oslo", people=717710)


async def test_embeddings(house: House) -> None:
    async with openai.DefaultAsyncHttpxClient() as http:
        embeddings = OpenAIEmbeddings(
            model="m-chat",
            base_url=house.base_url,
            api_key=SecretStr(KEY),
            max_retries=0,
            check_embedding_ctx_length=False,
            http_async_client=http,
        )
        one, two = await embeddings.aembed_documents(["one", "two"])
        again = await embeddings.aembed_query("one")
    assert one != two
    assert again == one


@every_api
@whole_and_streamed
async def test_refusals_have_the_sdk_s_types(make: Make, run: str, api: str, stream: bool) -> None:
    cases: list[tuple[str, str, type[openai.APIStatusError]]] = [
        (WRONG_KEY, "m-chat", openai.AuthenticationError),
        (KEY, "nothing", openai.NotFoundError),
        (POOR_KEY, "m-chat", openai.RateLimitError),
        (KEY, "refusing-messages", openai.BadRequestError),
        (KEY, "broken-messages", openai.InternalServerError),
    ]
    for key, name, kind in cases:
        with pytest.raises(kind):
            await _reply(make(api, name, run, key), "hi", stream=stream)


@every_api
@every_upstream
async def test_a_stream_that_breaks_off_raises(
    house: House, make: Make, run: str, api: str, upstream: str
) -> None:
    with pytest.raises(openai.APIError, match="stopped before its end"):
        await _reply(make(api, f"cut-{upstream}", run), "hi", stream=True)
    house.failed(run, 502)
