"""Anthropic's and Gemini's own forms through the real litellm package: signatures, usage, ends, errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from llm_proxy.chat.events import Text, UsageSeen
from llm_proxy.upstream.litellm import LiteLLMProvider
from routing.failures import FailureKind
from tests.e2e.litellm_calls import TOOLS, USER, Got, ask, fail, sending
from tests.e2e.litellm_calls import provider as provider
from tests.raw_upstream import Answer, events, raw_upstream, whole

pytestmark = pytest.mark.filterwarnings("ignore")
"""litellm warns of its own use of pydantic, and treats a warning that raises as the target's failure."""

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
