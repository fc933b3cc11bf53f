"""Anthropic's official SDK: messages, signed thinking sent back, counts, whatever the upstream speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
import pytest_asyncio

from tests.clients.house import (
    ASKED,
    DIALECTS,
    FINAL,
    ORDER,
    POOR_KEY,
    SCHEMAS,
    THOUGHTS,
    WRONG_KEY,
    House,
    answer,
    said,
    thoughts,
)
from tests.proxy import KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")
every_upstream = pytest.mark.parametrize("upstream", list(DIALECTS))
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
TOOLS: list[Any] = [{"name": name, "input_schema": schema} for name, schema in SCHEMAS.items()]
HI: list[Any] = [{"role": "user", "content": "hi"}]


def _sdk(house: House, key: str = KEY, **more: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=house.origin, api_key=key, max_retries=0, **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sdk(house: House) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with _sdk(house) as sdk:
        yield sdk


async def _message(sdk: anthropic.AsyncAnthropic, *, stream: bool, **asked: Any) -> anthropic.types.Message:
    if not stream:
        return await sdk.messages.create(**asked)
    async with sdk.messages.stream(**asked) as events:
        async for _ in events:
            pass
        return await events.get_final_message()


@every_upstream
@whole_and_streamed
async def test_signed_thinking_goes_back_over_three_turns(
    house: House, sdk: anthropic.AsyncAnthropic, run: str, upstream: str, stream: bool
) -> None:
    messages: list[Any] = [{"role": "user", "content": ORDER}]
    proposed: list[Any] = []
    signatures: list[str] = []
    ends: list[str | None] = []
    for _ in range(3):
        reply = await _message(
            sdk,
            stream=stream,
            model=f"m-{upstream}",
            messages=messages,
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            tools=TOOLS,
            max_tokens=4000,
            thinking={"type": "enabled", "budget_tokens": 2000},
            extra_headers={"x-run-id": run},
        )
        ends.append(reply.stop_reason)
        assert reply.content[0].type == "thinking"
        signatures.append(reply.content[0].signature)
        messages.append({"role": "assistant", "content": [block.to_dict() for block in reply.content]})
        results: list[Any] = []
        for block in reply.content:
            if block.type == "tool_use":
                proposed.append((block.name, block.input))
                output = answer(block.name, dict(block.input))
                results.append({"type": "tool_result", "tool_use_id": block.id, "content": output})
        if results:
            messages.append({"role": "user", "content": results})
    assert ends == ["tool_use", "tool_use", "end_turn"]
    assert tuple(proposed) == ASKED
    assert messages[-1]["content"][-1]["text"] == FINAL
    house.three_turns(run, "messages", upstream, stream=stream)
    assert tuple(thoughts(call) for call in house.calls(run)) == THOUGHTS
    assert [bool(signature) for signature in signatures] == [upstream != "chat"] * 3
    if upstream == "messages":
        sent_back = house.upstream.seen[-1].body
        assert all(signature.encode() in sent_back for signature in signatures[:2])


@every_upstream
async def test_streams_come_as_typed_events(sdk: anthropic.AsyncAnthropic, upstream: str) -> None:
    async with sdk.messages.stream(model=f"m-{upstream}", max_tokens=100, messages=HI) as stream:
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert len(texts) > 1
    assert "".join(texts) == "Hello there, friend."
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 6)
    assert final.usage.input_tokens == 20


async def test_tokens_are_counted(house: House, sdk: anthropic.AsyncAnthropic, run: str) -> None:
    few = await sdk.messages.count_tokens(model="m-messages", messages=HI, extra_headers={"x-run-id": run})
    many = await sdk.messages.count_tokens(model="m-messages", messages=HI, tools=TOOLS, system="Be brief.")
    assert 0 < few.input_tokens < many.input_tokens
    (call,) = house.calls(run)
    assert (call.dialect, call.status) == ("anthropic_count_tokens", "ok")


@every_upstream
async def test_what_the_headers_say_is_recorded(
    house: House, sdk: anthropic.AsyncAnthropic, run: str, upstream: str
) -> None:
    raw = await sdk.messages.with_raw_response.create(
        model=f"m-{upstream}", max_tokens=100, messages=HI, extra_headers={"x-run-id": run}
    )
    (block,) = (await raw.parse()).content
    assert block.type == "text"
    assert block.text == "Hello there, friend."
    assert raw.headers["x-run-id"] == run
    assert raw.headers["x-served-by"] == f"to-m-{upstream}"
    assert said(house.proxy.view(raw.headers["x-call-id"])).text == block.text


async def test_the_bearer_token_and_the_beta_routes_work(house: House, run: str) -> None:
    """As coding agents call it: `ANTHROPIC_AUTH_TOKEN`, `?beta=true` and a list of betas."""
    async with anthropic.AsyncAnthropic(
        base_url=house.origin, auth_token=KEY, api_key=None, max_retries=0
    ) as sdk:
        reply = await sdk.beta.messages.create(
            model="m-messages",
            max_tokens=100,
            messages=HI,
            betas=["interleaved-thinking-2025-05-14", "context-management-2025-06-27"],
            extra_headers={"x-run-id": run},
            extra_query={"beta": "true"},
        )
    assert reply.content[0].type == "text"
    (call,) = house.calls(run)
    assert call.status == "ok"
    seen = house.upstream.seen[-1]
    assert seen.query == "beta=true"
    betas = "interleaved-thinking-2025-05-14,context-management-2025-06-27"
    assert seen.headers["anthropic-beta"].replace(" ", "") == betas
    assert KEY not in seen.headers.values()


async def _ask(sdk: anthropic.AsyncAnthropic, model: str, run: str, *, stream: bool) -> str:
    asked: dict[str, Any] = {"model": model, "max_tokens": 100, "messages": HI}
    asked["extra_headers"] = {"x-run-id": run}
    if not stream:
        (block,) = (await sdk.messages.create(**asked)).content
        return block.text if block.type == "text" else ""
    pieces: list[str] = []
    async for event in await sdk.messages.create(stream=True, **asked):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            pieces.append(event.delta.text)
    return "".join(pieces)


@whole_and_streamed
async def test_refusals_have_their_own_types(house: House, run: str, stream: bool) -> None:
    async with _sdk(house, WRONG_KEY) as sdk:
        with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
            await _ask(sdk, "m-messages", run, stream=stream)
    async with _sdk(house) as sdk:
        with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
            await _ask(sdk, "nothing", run, stream=stream)
    async with _sdk(house, POOR_KEY) as sdk:
        with pytest.raises(anthropic.RateLimitError, match="pence") as spent:
            await _ask(sdk, "m-messages", run, stream=stream)
    assert int(spent.value.response.headers["retry-after"]) > 0
    assert spent.value.response.headers["x-should-retry"] == "false"


@every_upstream
@whole_and_streamed
async def test_failures_of_the_upstream_have_their_own_types(
    house: House, sdk: anthropic.AsyncAnthropic, run: str, upstream: str, stream: bool
) -> None:
    with pytest.raises(anthropic.InternalServerError, match="api_error") as down:
        await _ask(sdk, f"broken-{upstream}", f"{run}-down", stream=stream)
    assert down.value.status_code == 502
    house.failed(f"{run}-down", 502)
    with pytest.raises(anthropic.BadRequestError, match="The vendor refuses this") as refused:
        await _ask(sdk, f"refusing-{upstream}", f"{run}-no", stream=stream)
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["type"] == "error"
    house.failed(f"{run}-no", 400)


@every_upstream
@pytest.mark.parametrize("helper", [False, True], ids=["create", "stream"])
async def test_a_stream_that_breaks_off_raises(
    house: House, sdk: anthropic.AsyncAnthropic, run: str, upstream: str, helper: bool
) -> None:
    model, extra = f"cut-{upstream}", {"x-run-id": run}
    streamed = (
        _message(sdk, stream=True, model=model, max_tokens=100, messages=HI, extra_headers=extra)
        if helper
        else _ask(sdk, model, run, stream=True)
    )
    with pytest.raises(anthropic.APIStatusError, match="api_error"):
        await streamed
    (call,) = house.calls(run)
    assert call.status == "failed"
    assert said(call).text.startswith("This sentence")
