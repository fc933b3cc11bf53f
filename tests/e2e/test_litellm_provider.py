"""Providers through the real litellm package, against servers on a port: no proxy in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.create_embedding_response import CreateEmbeddingResponse

from llm_proxy.chat.events import Event, Text, Unreadable, UsageSeen
from llm_proxy.scripted.script import Script, parse_script
from llm_proxy.scripted.server import Scripted, running
from llm_proxy.upstream.litellm import LiteLLMProvider
from llm_proxy.upstream.provider import Endpoint, Sending, UpstreamFailure
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.sse import SseReader
from routing.failures import FailureKind
from tests.raw_upstream import Answer, events, raw_upstream, whole

pytestmark = pytest.mark.filterwarnings("ignore")
"""litellm warns of its own use of pydantic, and treats a warning that raises as the target's failure."""

KEY = "sk-t0p-s3cret"
USER = {"role": "user", "content": "hi"}
TOOLS = [
    {"type": "function", "function": {"name": "get", "parameters": {"type": "object", "properties": {}}}}
]


@pytest.fixture
async def provider() -> AsyncGenerator[LiteLLMProvider]:
    provider = LiteLLMProvider()
    provider.start()
    yield provider
    await provider.close()


def sending(model: str, *, stream: bool = False, **fields: Any) -> Sending:
    body = {"model": model, "messages": [USER]} | fields
    return Sending("/chat/completions", json.dumps(body).encode(), stream=stream)


class Got:
    """A reply that came."""

    def __init__(self, chunks: list[bytes], dropped: tuple[str, ...], *, streamed: bool) -> None:
        self.chunks = chunks
        self.dropped = dropped
        self.streamed = streamed

    @property
    def whole(self) -> dict[str, Any]:
        return json.loads(b"".join(self.chunks))

    @property
    def sent(self) -> list[dict[str, Any]]:
        """The stream's chunks; `[DONE]` must be the last."""
        frames = SseReader().feed(b"".join(self.chunks))
        assert frames[-1].data == b"[DONE]"
        read = [json.loads(frame.data) for frame in frames[:-1]]
        for chunk in read:
            ChatCompletionChunk.model_validate(chunk)
        return read

    @property
    def deltas(self) -> list[dict[str, Any]]:
        return [chunk["choices"][0]["delta"] for chunk in self.sent if chunk["choices"]]

    def joined(self, field: str) -> str:
        return "".join(delta.get(field) or "" for delta in self.deltas)

    @property
    def events(self) -> list[Event]:
        """As the chat dialect reads it."""
        if not self.streamed:
            return list(OPENAI_CHAT.read_body(b"".join(self.chunks)).events)
        frames = SseReader().feed(b"".join(self.chunks))
        return [event for frame in frames for event in OPENAI_CHAT.read_frame(frame).events]


async def ask(provider: LiteLLMProvider, name: str, url: str, request: Sending) -> Got:
    endpoint = Endpoint("t", name, url=url, api_key=KEY)
    async with provider.open(endpoint, request, 5.0) as reply:
        assert reply.status == 200
        chunks = []
        while chunk := await reply.chunk():
            chunks.append(chunk)
        assert await reply.chunk() == b""
        return Got(chunks, reply.dropped, streamed=reply.streamed)


async def fail(provider: LiteLLMProvider, name: str, url: str, request: Sending) -> UpstreamFailure:
    with pytest.raises(UpstreamFailure) as caught:
        await ask(provider, name, url, request)
    assert KEY not in repr(caught.value)
    assert KEY.encode() not in (caught.value.body or b"")
    return caught.value


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


ANTHROPIC: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-4-5",
    "content": [
        {"type": "thinking", "thinking": "Let me look.", "signature": "EqoB+/sig=="},
        {"type": "redacted_thinking", "data": "Emw+/data=="},
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "toolu_1", "name": "get", "input": {"q": "x"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 10,
        "output_tokens": 50,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 7,
    },
}
DETAILS = [
    {
        "type": "reasoning.text",
        "text": "Let me look.",
        "signature": "EqoB+/sig==",
        "format": "anthropic-claude-v1",
        "index": 0,
    },
    {"type": "reasoning.encrypted", "data": "Emw+/data==", "format": "anthropic-claude-v1", "index": 1},
]


def anthropic_stream(*, end: bool = True) -> list[bytes]:
    usage = ANTHROPIC["usage"]
    start = ANTHROPIC | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    thinking, redacted, text, call = ANTHROPIC["content"]
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [
                {"type": "thinking_delta", "thinking": "Let me "},
                {"type": "thinking_delta", "thinking": "look."},
                {"type": "signature_delta", "signature": thinking["signature"]},
            ],
        ),
        (redacted, []),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": text["text"]}]),
        (
            call | {"input": {}},
            [
                {"type": "input_json_delta", "partial_json": '{"q":'},
                {"type": "input_json_delta", "partial_json": '"x"}'},
            ],
        ),
    ]
    sent: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, (block, deltas) in enumerate(blocks):
        sent.append({"type": "content_block_start", "index": index, "content_block": block})
        sent += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        sent.append({"type": "content_block_stop", "index": index})
    if end:
        stop = {"stop_reason": "tool_use", "stop_sequence": None}
        sent.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 50}})
        sent.append({"type": "message_stop"})
    return [b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in sent]


def like_anthropic(body: bytes) -> Answer:
    if json.loads(body).get("stream"):
        return events(*anthropic_stream())
    return whole(json.dumps(ANTHROPIC).encode())


def details_of(got: Got) -> list[dict[str, Any]]:
    """OpenRouter's details, the deltas of a stream merged by index."""
    if not got.streamed:
        return got.whole["choices"][0]["message"]["reasoning_details"]
    merged: dict[int, dict[str, Any]] = {}
    for delta in got.deltas:
        for piece in delta.get("reasoning_details") or ():
            into = merged.setdefault(piece["index"], piece | {"text": ""} if "text" in piece else piece)
            if "text" in piece:
                into["text"] += piece["text"]
                into |= {"signature": piece["signature"]} if "signature" in piece else {}
    return [merged[index] for index in sorted(merged)]


@pytest.mark.parametrize("stream", [False, True])
async def test_signed_thinking_there_and_back(provider: LiteLLMProvider, stream: bool) -> None:
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096, "tools": TOOLS}
    async with raw_upstream(like_anthropic) as upstream:
        url = upstream.base_url.removesuffix("/v1")
        got = await ask(provider, "anthropic", url, sending("claude-opus-4-5", stream=stream, **thinking))
        assert details_of(got) == DETAILS
        history = [
            USER,
            {
                "role": "assistant",
                "content": "Looking.",
                "reasoning_content": "Let me look.",
                "reasoning_details": details_of(got),
                "tool_calls": [
                    {
                        "id": "toolu_1",
                        "type": "function",
                        "function": {"name": "get", "arguments": '{"q":"x"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_1", "content": "42"},
        ]
        again = sending("claude-opus-4-5", stream=stream, messages=history, **thinking)
        await ask(provider, "anthropic", url, again)
        sent = json.loads(upstream.bodies[-1])["messages"][1]["content"]
    assert sent[:2] == ANTHROPIC["content"][:2]
    assert [part["type"] for part in sent] == ["thinking", "redacted_thinking", "text", "tool_use"]


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_usage(provider: LiteLLMProvider, stream: bool) -> None:
    async with raw_upstream(like_anthropic) as upstream:
        url = upstream.base_url.removesuffix("/v1")
        got = await ask(provider, "anthropic", url, sending("claude-opus-4-5", stream=stream))
    (usage,) = [event.usage for event in got.events if isinstance(event, UsageSeen)]
    assert (usage.input, usage.cached, usage.cache_write, usage.output) == (117, 100, 7, 50)
    assert "".join(event.text for event in got.events if isinstance(event, Text)) == "Looking."


async def test_anthropics_stream_without_its_end(provider: LiteLLMProvider) -> None:
    async with raw_upstream(lambda body: events(*anthropic_stream(end=False))) as upstream:
        url = upstream.base_url.removesuffix("/v1")
        failed = await fail(provider, "anthropic", url, sending("claude-opus-4-5", stream=True))
    assert failed.kind is FailureKind.TRUNCATED


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_error(provider: LiteLLMProvider, stream: bool) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    answer = whole(json.dumps(error).encode(), status="529 Overloaded")
    async with raw_upstream(lambda body: answer) as upstream:
        url = upstream.base_url.removesuffix("/v1")
        failed = await fail(provider, "anthropic", url, sending("claude-opus-4-5", stream=stream))
    assert (failed.kind, failed.status) == (FailureKind.OVERLOADED, 529)


GEMINI: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True},
                    {"functionCall": {"name": "get", "args": {"q": "x"}}, "thoughtSignature": "R2Vt+/=="},
                ],
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 5,
        "candidatesTokenCount": 6,
        "thoughtsTokenCount": 4,
        "totalTokenCount": 15,
    },
    "modelVersion": "gemini-3-pro-preview",
    "responseId": "r1",
}


def gemini(stream: bool) -> Callable[[bytes], Sequence[bytes | float]]:
    data = json.dumps(GEMINI).encode()
    return lambda body: events(b"data: %b\r\n\r\n" % data) if stream else whole(data)


@pytest.mark.parametrize("stream", [False, True])
async def test_geminis_signature_there_and_back(provider: LiteLLMProvider, stream: bool) -> None:
    async with raw_upstream(gemini(stream)) as upstream:
        url = upstream.base_url.removesuffix("/v1")
        request = sending("gemini-3-pro-preview", stream=stream, tools=TOOLS)
        got = await ask(provider, "gemini", url, request)
        messages = got.deltas if stream else [got.whole["choices"][0]["message"]]
        (call,) = [call for message in messages for call in message.get("tool_calls") or ()]
        assert call["extra_content"] == {"google": {"thought_signature": "R2Vt+/=="}}
        assert "".join(message.get("reasoning_content") or "" for message in messages) == "Hm."
        said = {"role": "assistant", "content": None, "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "42"}
        again = sending("gemini-3-pro-preview", stream=stream, messages=[USER, said, result], tools=TOOLS)
        await ask(provider, "gemini", url, again)
        parts = json.loads(upstream.bodies[-1])["contents"][1]["parts"]
    assert [
        part["thoughtSignature"] for part in parts if "functionCall" in part or "function_call" in part
    ] == ["R2Vt+/=="]
    (usage,) = [event.usage for event in got.events if isinstance(event, UsageSeen)]
    assert (usage.input, usage.output, usage.reasoning) == (5, 10, 4)
