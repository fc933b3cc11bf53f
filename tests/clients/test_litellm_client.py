"""The litellm package as a client: its chat, Messages and Responses calls, pointed at the proxy."""

from __future__ import annotations

import json
from typing import Any

import litellm
import openai
import pytest
from litellm.anthropic_interface import messages as its_messages
from litellm.exceptions import AuthenticationError, BadRequestError, NotFoundError, RateLimitError

from tests.clients.house import ASKED, DIALECTS, FINAL, ORDER, POOR_KEY, SCHEMAS, WRONG_KEY, House, answer
from tests.proxy import KEY

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # litellm warns of its own use of pydantic and of the event loop, and leaves connections to the collector.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydantic"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
every_upstream = pytest.mark.parametrize("upstream", list(DIALECTS))
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()
]
HI: list[Any] = [{"role": "user", "content": "hi"}]


def _to(house: House, model: str, run: str, key: str = KEY, *, provider: str = "openai") -> dict[str, Any]:
    return {
        "model": f"{provider}/{model}",
        "api_base": house.origin if provider == "anthropic" else house.base_url,
        "api_key": key,
        "extra_headers": {"x-run-id": run},
        "num_retries": 0,
        "max_retries": 0,
    }


async def _complete(*, stream: bool, **asked: Any) -> Any:
    if not stream:
        return await litellm.acompletion(**asked)
    chunks: Any = await litellm.acompletion(stream=True, **asked)
    return litellm.stream_chunk_builder([chunk async for chunk in chunks])


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@every_upstream
@whole_and_streamed
async def test_completions_with_tools(
    house: House, run: str, provider: str, upstream: str, stream: bool
) -> None:
    """`anthropic/` calls /v1/messages: litellm translates, and the proxy may translate back."""
    to = _to(house, f"m-{upstream}", run, provider=provider)
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ORDER}]
    proposed: list[Any] = []
    for _ in range(3):
        reply = await _complete(stream=stream, messages=messages, tools=TOOLS, max_tokens=4000, **to)
        message = reply.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls or []:
            arguments = json.loads(call.function.arguments)
            proposed.append((call.function.name, arguments))
            output = answer(call.function.name, arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output})
    assert (tuple(proposed), messages[-1]["content"]) == (ASKED, FINAL)
    caller = "messages" if provider == "anthropic" else "chat"
    house.three_turns(run, caller, upstream, stream=stream)


@every_upstream
async def test_its_messages_call(house: House, run: str, upstream: str) -> None:
    """Whole only: streamed, this call of litellm imports a package that litellm does not install."""
    to = _to(house, f"m-{upstream}", run, provider="anthropic")
    del to["num_retries"], to["max_retries"]
    reply: Any = await its_messages.acreate(messages=HI, max_tokens=100, **to)
    assert reply["content"][0]["text"] == "Hello there, friend."
    (call,) = house.calls(run)
    assert (call.dialect, call.stream, call.status) == ("anthropic_messages", False, "ok")


@every_upstream
@whole_and_streamed
async def test_its_responses_call(house: House, run: str, upstream: str, stream: bool) -> None:
    model = f"m-{upstream}"
    # Of a model that it doesn't know, litellm asks for a whole reply and pretends that it was streamed.
    litellm.register_model({model: {"litellm_provider": "openai", "supports_native_streaming": True}})
    to = _to(house, model, run)
    reply: Any = await litellm.aresponses(input="hi", stream=stream, **to)
    if stream:
        events = [event async for event in reply]
        assert events[-1].type == "response.completed"
        reply = events[-1].response
    assert reply.output[-1].content[0].text == "Hello there, friend."
    (call,) = house.calls(run)
    assert (call.dialect, call.stream, call.status) == ("openai_responses", stream, "ok")


async def test_its_embeddings(house: House, run: str) -> None:
    reply = await litellm.aembedding(input=["one", "two"], **_to(house, "m-chat", run))
    assert [len(vector["embedding"]) > 1 for vector in reply.data] == [True, True]
    (call,) = house.calls(run)
    assert call.dialect == "openai_embeddings"


@pytest.mark.parametrize(("provider", "upstream"), [("openai", "messages"), ("anthropic", "chat")])
@whole_and_streamed
async def test_refusals_have_litellm_s_types(
    house: House, run: str, provider: str, upstream: str, stream: bool
) -> None:
    cases: list[tuple[str, str, type[openai.APIStatusError]]] = [
        (WRONG_KEY, "m-chat", AuthenticationError),
        (KEY, "nothing", NotFoundError),
        (POOR_KEY, "m-chat", RateLimitError),
        (KEY, f"refusing-{upstream}", BadRequestError),
        (KEY, f"broken-{upstream}", openai.APIStatusError),
    ]
    for key, model, kind in cases:
        with pytest.raises(kind) as raised:
            await _complete(stream=stream, messages=HI, **_to(house, model, run, key, provider=provider))
        if model.startswith("broken"):
            assert raised.value.status_code in (500, 502)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@every_upstream
async def test_a_stream_that_breaks_off_raises(house: House, run: str, provider: str, upstream: str) -> None:
    to = _to(house, f"cut-{upstream}", run, provider=provider)
    with pytest.raises(openai.APIError):
        await _complete(stream=True, messages=HI, **to)
    house.failed(run, 502)
