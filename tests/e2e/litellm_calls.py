"""Asking a provider through the real litellm package, and reading what comes back: its tests share it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from openai.types.chat import ChatCompletionChunk

from llm_proxy.chat.events import Event
from llm_proxy.upstream.litellm import LiteLLMProvider
from llm_proxy.upstream.provider import Endpoint, Sending, UpstreamFailure
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.sse import SseReader

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
