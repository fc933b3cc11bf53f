"""Providers through the real litellm package, against servers on a port: no proxy in between.

What is the same for every provider: replies, refusals, faults, leaving, and parameters. What Anthropic and
Gemini send in their own forms is in `test_litellm_vendors.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from openai.types.chat import ChatCompletion
from openai.types.create_embedding_response import CreateEmbeddingResponse

from llm_proxy.chat.events import Unreadable, UsageSeen
from llm_proxy.scripted.script import Script, parse_script
from llm_proxy.scripted.server import Scripted, running
from llm_proxy.upstream.litellm import LiteLLMProvider
from llm_proxy.upstream.provider import Endpoint, Sending
from routing.failures import FailureKind
from tests.e2e.litellm_calls import KEY, TOOLS, ask, fail, sending
from tests.e2e.litellm_calls import provider as provider
from tests.raw_upstream import raw_upstream, whole

pytestmark = pytest.mark.filterwarnings("ignore")
"""litellm warns of its own use of pydantic, and treats a warning that raises as the target's failure."""

SCRIPT = parse_script(
    """
models:
  ok:
    turns:
      - reasoning: I think so
        text: hello there
        tool_calls: [{name: get, arguments: {q: x}, id: call_1}]
        usage: {input: 20, output: 9, cached: 4, reasoning: 3}
        extra: {service_tier: default}
  bare: {turns: [{text: a b c, usage: none}]}
  e401: {turns: [{status: 401, error: {message: "Incorrect API key: sk-t0p-s3cret", code: invalid_api_key}}]}
  e429: {turns: [{status: 429, retry_after: 7, error: {message: slow, code: rate_limit_exceeded}}]}
  e400:
    turns:
      - status: 400
        error: {message: "not with sk-t0p-s3cret", type: invalid_request_error, code: context_length_exceeded}
  e500: {turns: [{status: 500}]}
  e503: {turns: [{status: 503, retry_after: 2}]}
  cut: {turns: [{text: a b c d e f, cut_after: 3}]}
  short: {turns: [{text: a b c d e f, truncate: true}]}
  torn: {turns: [{text: a b c d e f, malformed_after: 3}]}
  slow: {turns: [{text: a b c d e f, stall_after: 3}]}
  silent: {turns: [{text: a, latency_s: 3600}]}
"""
)
assert isinstance(SCRIPT, Script)
LIKE_OPENAI = ["hosted_vllm", "deepseek", "groq", "mistral"]


@pytest.fixture
async def upstream() -> AsyncGenerator[Scripted]:
    async with running(SCRIPT) as scripted:
        yield scripted


@pytest.mark.parametrize("name", LIKE_OPENAI)
async def test_a_whole_reply(provider: LiteLLMProvider, upstream: Scripted, name: str) -> None:
    got = await ask(provider, name, upstream.base_url, sending("ok", tools=TOOLS))
    reply = ChatCompletion.model_validate(got.whole)
    choice = reply.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("hello there", "tool_calls")
    assert got.whole["choices"][0]["message"]["reasoning_content"] == "I think so"
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "get", '{"q":"x"}')
    assert reply.usage is not None
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.completion_tokens_details is not None
    assert (reply.usage.prompt_tokens, reply.usage.prompt_tokens_details.cached_tokens) == (20, 4)
    assert (reply.usage.completion_tokens, reply.usage.completion_tokens_details.reasoning_tokens) == (9, 3)
    assert upstream.seen[-1].headers["authorization"] == f"Bearer {KEY}"
    assert (got.streamed, got.dropped) == (False, ())


@pytest.mark.parametrize("name", LIKE_OPENAI)
async def test_a_streamed_reply(provider: LiteLLMProvider, upstream: Scripted, name: str) -> None:
    got = await ask(provider, name, upstream.base_url, sending("ok", stream=True, tools=TOOLS))
    assert got.joined("content") == "hello there"
    assert got.joined("reasoning_content") == "I think so"
    calls = [call for delta in got.deltas for call in delta.get("tool_calls") or ()]
    assert (calls[0]["id"], calls[0]["function"]["name"]) == ("call_1", "get")
    assert "".join(call["function"]["arguments"] for call in calls) == '{"q":"x"}'
    finishes = [c["finish_reason"] for chunk in got.sent for c in chunk["choices"] if c["finish_reason"]]
    assert finishes == ["tool_calls"]
    assert len(got.chunks) > 8
    assert not any(isinstance(event, Unreadable) for event in got.events)


async def test_usage_comes_last_and_alone(provider: LiteLLMProvider, upstream: Scripted) -> None:
    got = await ask(provider, "hosted_vllm", upstream.base_url, sending("ok", stream=True))
    assert got.sent[-1]["choices"] == []
    (seen,) = [event for event in got.events if isinstance(event, UsageSeen)]
    usage = seen.usage
    assert (usage.input, usage.cached, usage.output, usage.reasoning) == (20, 4, 9, 3)
    assert seen.only


async def test_usage_that_no_one_reported_is_not_made_up(
    provider: LiteLLMProvider, upstream: Scripted
) -> None:
    got = await ask(provider, "hosted_vllm", upstream.base_url, sending("bare", stream=True))
    assert got.joined("content") == "a b c"
    assert not any(isinstance(event, UsageSeen) for event in got.events)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "kind", "status", "wait"),
    [
        ("e401", FailureKind.AUTH, 401, None),
        ("e429", FailureKind.RATE_LIMITED, 429, 7.0),
        ("e400", FailureKind.CONTEXT_LENGTH, 400, None),
        ("e500", FailureKind.SERVER_ERROR, 500, None),
        ("e503", FailureKind.SERVER_ERROR, 503, 2.0),
    ],
)
@pytest.mark.parametrize("name", ["hosted_vllm", "mistral"])
async def test_refusals(
    provider: LiteLLMProvider,
    upstream: Scripted,
    name: str,
    model: str,
    kind: FailureKind,
    status: int,
    wait: float | None,
    stream: bool,
) -> None:
    failed = await fail(provider, name, upstream.base_url, sending(model, stream=stream))
    assert (failed.kind, failed.status, failed.retry_after_s) == (kind, status, wait)
    assert upstream.stats.total == 1  # nothing is tried again in there
    if status == 400:
        error = json.loads(failed.body or b"")["error"]
        assert (error["message"], error["code"]) == ("not with ***", "context_length_exceeded")


@pytest.mark.parametrize(
    ("model", "stream", "kind"),
    [
        ("cut", False, FailureKind.TRUNCATED),
        ("cut", True, FailureKind.CUT),
        ("short", False, FailureKind.TRUNCATED),
        ("short", True, FailureKind.TRUNCATED),
        ("torn", False, FailureKind.MALFORMED),
    ],
)
async def test_broken_replies(
    provider: LiteLLMProvider, upstream: Scripted, model: str, stream: bool, kind: FailureKind
) -> None:
    failed = await fail(provider, "hosted_vllm", upstream.base_url, sending(model, stream=stream))
    assert (failed.kind, failed.status) == (kind, None)


async def test_nobody_there(provider: LiteLLMProvider) -> None:
    failed = await fail(provider, "hosted_vllm", "http://127.0.0.1:1/v1", sending("ok"))
    assert failed.kind is FailureKind.CONNECT_REFUSED


@pytest.mark.parametrize(("stream", "model"), [(False, "silent"), (True, "silent"), (True, "slow")])
async def test_leaving_closes_the_connection(
    provider: LiteLLMProvider, upstream: Scripted, stream: bool, model: str
) -> None:
    call = asyncio.create_task(ask(provider, "hosted_vllm", upstream.base_url, sending(model, stream=stream)))
    await upstream.until(lambda stats: stats.in_flight == 1 and (model == "silent" or stats.bytes_out > 0))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await upstream.until(lambda stats: stats.client_gone == 1 and stats.in_flight == 0)


async def test_leaving_early_without_being_cancelled(provider: LiteLLMProvider, upstream: Scripted) -> None:
    endpoint = Endpoint("t", "hosted_vllm", url=upstream.base_url)
    async with provider.open(endpoint, sending("slow", stream=True), 5.0) as reply:
        assert await reply.chunk()
    await upstream.until(lambda stats: stats.client_gone == 1)


async def test_unknown_parameters_never_leave(provider: LiteLLMProvider, upstream: Scripted) -> None:
    evil = sending("ok", api_base="http://127.0.0.1:1")
    failed = await fail(provider, "mistral", upstream.base_url, evil)
    assert (failed.kind, failed.status) == (FailureKind.BAD_REQUEST, 400)
    assert upstream.stats.total == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_parameters_that_a_provider_can_not_take_are_named(
    provider: LiteLLMProvider, upstream: Scripted, stream: bool
) -> None:
    request = sending("ok", stream=stream, logit_bias={"1": 1}, temperature=1)
    failed = await fail(provider, "mistral", upstream.base_url, request)
    error = json.loads(failed.body or b"")["error"]
    assert (failed.kind, failed.status, error["param"]) == (FailureKind.BAD_REQUEST, 400, "logit_bias")
    assert "'logit_bias'" in error["message"]
    assert "'temperature'" not in error["message"]


async def test_hints_that_were_left_out_are_listed(provider: LiteLLMProvider, upstream: Scripted) -> None:
    request = sending("ok", metadata={"a": "b"}, store=True)
    got = await ask(provider, "mistral", upstream.base_url, request)
    assert got.dropped == ("metadata", "store")
    assert set(json.loads(upstream.seen[-1].body)) == {"model", "messages"}


@pytest.mark.parametrize("messages", ["x", [7], [{"role": "assistant", "tool_calls": "x"}]])
async def test_what_can_not_be_put_in_a_vendors_form_is_the_callers(
    provider: LiteLLMProvider, upstream: Scripted, messages: Any
) -> None:
    failed = await fail(provider, "anthropic", upstream.origin, sending("claude-x", messages=messages))
    assert (failed.kind, failed.status) == (FailureKind.BAD_REQUEST, 400)
    assert json.loads(failed.body or b"")["error"]["message"]


async def test_headers_go_along(provider: LiteLLMProvider, upstream: Scripted) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    endpoint = Endpoint("t", "hosted_vllm", url=upstream.base_url, headers={"x-team": "a"}, api_key=KEY)
    body = sending("ok").body
    async with provider.open(
        endpoint, Sending("/chat/completions", body, headers={"traceparent": trace}), 5.0
    ) as reply:
        await reply.chunk()
    seen = upstream.seen[-1].headers
    assert (seen["x-team"], seen["traceparent"]) == ("a", trace)


async def test_calls_at_once(provider: LiteLLMProvider, upstream: Scripted) -> None:
    url = upstream.base_url
    replies = await asyncio.gather(
        *(ask(provider, "groq", url, sending("ok", stream=True)) for _ in range(8))
    )
    assert {reply.joined("content") for reply in replies} == {"hello there"}


async def test_a_closed_provider_opens_again(upstream: Scripted) -> None:
    provider = LiteLLMProvider()
    for _ in range(2):
        await ask(provider, "hosted_vllm", upstream.base_url, sending("bare"))
        await provider.close()
    await provider.close()


async def test_other_paths_are_refused(provider: LiteLLMProvider, upstream: Scripted) -> None:
    failed = await fail(provider, "mistral", upstream.base_url, Sending("/responses", b"{}"))
    assert (failed.kind, failed.status) == (FailureKind.BAD_REQUEST, 400)


async def test_embeddings(provider: LiteLLMProvider) -> None:
    reply = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -1.5]}],
        "model": "mistral-embed",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
    async with raw_upstream(lambda body: whole(json.dumps(reply).encode())) as upstream:
        body = json.dumps({"model": "mistral-embed", "input": ["a", "b"]}).encode()
        got = await ask(provider, "mistral", upstream.base_url, Sending("/embeddings", body))
    read = CreateEmbeddingResponse.model_validate(got.whole)
    assert (read.data[0].embedding, read.usage.prompt_tokens, read.model) == (
        [0.25, -1.5],
        3,
        "mistral-embed",
    )
    assert json.loads(upstream.bodies[0]) == {"model": "mistral-embed", "input": ["a", "b"]}
