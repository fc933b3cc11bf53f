"""The OpenAI Agents SDK: `Runner.run` and `run_streamed` with function tools, over Responses and chat."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import agents
import openai
import pytest
import pytest_asyncio
from openai.types.responses import ResponseTextDeltaEvent

from tests.clients.house import ASKED, DIALECTS, FINAL, ORDER, POOR_KEY, WRONG_KEY, City, House, answer
from tests.proxy import KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")
every_upstream = pytest.mark.parametrize("upstream", list(DIALECTS))
every_model = pytest.mark.parametrize("api", ["chat", "responses"])
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module", autouse=True)
def _no_traces_leave() -> None:  # pyright: ignore[reportUnusedFunction]
    agents.set_tracing_disabled(disabled=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sdk(house: House) -> AsyncIterator[openai.AsyncOpenAI]:
    async with house.proxy.sdk() as sdk:
        yield sdk


def _model(api: str, name: str, sdk: openai.AsyncOpenAI) -> agents.Model:
    kind = agents.OpenAIChatCompletionsModel if api == "chat" else agents.OpenAIResponsesModel
    return kind(model=name, openai_client=sdk)


def _agent(model: agents.Model, run: str, asked: list[Any], **more: Any) -> agents.Agent[None]:
    @agents.function_tool
    def crm_read(id: int) -> str:  # noqa: A002
        """Reads a customer."""
        asked.append(("crm_read", {"id": id}))
        return answer("crm_read", {"id": id})

    @agents.function_tool
    def kb_search(query: str) -> str:
        """Searches the knowledge base."""
        asked.append(("kb_search", {"query": query}))
        return answer("kb_search", {"query": query})

    settings = agents.ModelSettings(
        reasoning=openai.types.Reasoning(effort="medium"),
        max_tokens=4000,
        extra_headers={"x-run-id": run},
        store=False,
        response_include=["reasoning.encrypted_content"],
    )
    return agents.Agent(
        "clerk",
        instructions="Be brief.",
        model=model,
        model_settings=settings,
        tools=[crm_read, kb_search],
        **more,
    )


async def _run(agent: agents.Agent[None], text: str, *, stream: bool) -> tuple[Any, str]:
    """The final output, and the text that was streamed."""
    if not stream:
        return (await agents.Runner.run(agent, text)).final_output, ""
    running = agents.Runner.run_streamed(agent, text)
    streamed = ""
    async for event in running.stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            streamed += event.data.delta
    return running.final_output, streamed


@every_model
@every_upstream
@whole_and_streamed
async def test_an_agent_with_tools(
    house: House, sdk: openai.AsyncOpenAI, run: str, api: str, upstream: str, stream: bool
) -> None:
    asked: list[Any] = []
    agent = _agent(_model(api, f"m-{upstream}", sdk), run, asked)
    output, streamed = await _run(agent, ORDER, stream=stream)
    assert output == FINAL
    assert sorted(asked, key=str) == sorted(ASKED, key=str)
    assert streamed == ("One moment." + FINAL if stream else "")
    house.three_turns(run, api, upstream, stream=stream)


@every_model
@every_upstream
async def test_a_typed_output(sdk: openai.AsyncOpenAI, run: str, api: str, upstream: str) -> None:
    agent = _agent(_model(api, f"m-{upstream}", sdk), run, [], output_type=City)
    output, _ = await _run(agent, "Which city?", stream=False)
    assert output == City(name="Oslo", people=717710)


@every_model
@whole_and_streamed
async def test_refusals_come_through_the_runner(house: House, run: str, api: str, stream: bool) -> None:
    cases: list[tuple[str, str, type[openai.APIStatusError]]] = [
        (WRONG_KEY, "m-chat", openai.AuthenticationError),
        (KEY, "nothing", openai.NotFoundError),
        (POOR_KEY, "m-chat", openai.RateLimitError),
        (KEY, "refusing-messages", openai.BadRequestError),
        (KEY, "broken-messages", openai.InternalServerError),
    ]
    for key, name, kind in cases:
        async with house.proxy.sdk(key) as sdk:
            with pytest.raises(kind):
                await _run(_agent(_model(api, name, sdk), run, []), "hi", stream=stream)


@every_model
@every_upstream
async def test_a_stream_that_breaks_off_raises(
    house: House, sdk: openai.AsyncOpenAI, run: str, api: str, upstream: str
) -> None:
    agent = _agent(_model(api, f"cut-{upstream}", sdk), run, [])
    with pytest.raises(openai.APIError, match="stopped before its end"):
        await _run(agent, "hi", stream=True)
    house.failed(run, 502)
