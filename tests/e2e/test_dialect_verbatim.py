"""One dialect on both sides: for every fixture, both ways, whole and streamed, bytes pass."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.chat.reply import Assembly
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.sse import SseReader
from tests.golden.matrix.cells import FOLDER, SITUATIONS, ask
from tests.proxy import KEY, ProxyProcess, config, target
from tests.raw_upstream import Answer, events, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOLDEN = FOLDER.parent
PATHS = {
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
    "anthropic_messages": "/v1/messages",
    "openai_completions": "/v1/completions",
}
MATRIX = {"openai_chat": "chat", "openai_responses": "responses", "anthropic_messages": "messages"}
PLAIN: dict[str, dict[str, Any]] = {
    "openai_chat": {
        "model": "agent-model",
        "messages": [{"role": "user", "content": "é"}],
        "n": 1,
        "stream_options": {"include_usage": True},
    },
    "openai_responses": {"model": "agent-model", "input": "é"},
    "anthropic_messages": {
        "model": "agent-model",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "é"}],
    },
    "openai_completions": {
        "model": "agent-model",
        "prompt": "é",
        "stream_options": {"include_usage": True},
        "x": 1.50,
    },
}
FAILURES = {
    "anthropic_messages/overloaded.json",
    "anthropic_messages/overloaded.sse",
    "openai_chat/openrouter_error.sse",
    "openai_completions/cut_by_error.sse",
    "openai_responses/failed.json",
    "openai_responses/failed.sse",
}
"""Replies in which the vendor reports an error: those become errors of the proxy's own."""

UNJUDGED = {"anthropic_messages/max_tokens.sse"}
"""A call whose arguments were cut can't be judged, so it is denied."""


class Exchange(NamedTuple):
    """A request and the vendor's reply to it, as files and keys."""

    dialect: str
    reply: Path
    situation: str = ""

    @property
    def streamed(self) -> bool:
        return self.reply.suffix == ".sse"

    @property
    def id(self) -> str:
        return str(self.reply.relative_to(GOLDEN))

    def ask(self, model: bytes = b"agent-model") -> bytes:
        if self.situation:
            body = ask(self.situation, MATRIX[self.dialect], stream=self.streamed)
        else:
            given = PLAIN[self.dialect] | ({"stream": True} if self.streamed else {})
            body = json.dumps(given, indent=1).encode()
        assert body.count(b'"agent-model"') == 1
        return body.replace(b"agent-model", model)


def exchanges() -> Iterator[Exchange]:
    for dialect in PATHS:
        for path in sorted((GOLDEN / dialect).iterdir()):
            if path.suffix in (".json", ".sse"):
                yield Exchange(dialect, path)
    for situation in SITUATIONS:
        for dialect, short in MATRIX.items():
            for ending in ("json", "sse"):
                yield Exchange(dialect, FOLDER / situation / f"reply.{short}.{ending}", situation)


def _policy() -> dict[str, Any]:
    """One that lets every tool be called which a fixture calls, and every tool be offered."""
    names = {name for exchange in ALL for name in _called(exchange)}
    tool = {"effect": "read", "tier": "autonomous"}
    tools = dict.fromkeys(sorted(names), tool)
    return {"policy": {"id": "open", "version": 1}, "posture": {"fallback": "allow"}, "tools": tools}


def _called(exchange: Exchange) -> Iterator[str]:
    dialect, raw = DIALECTS[exchange.dialect], exchange.reply.read_bytes()
    assembly = Assembly()
    if exchange.streamed:
        sse, read = SseReader(), dialect.frame_reader()
        frames = [read(frame) for frame in (*sse.feed(raw), *sse.close())]
    else:
        frames = [dialect.read_body(raw)]
    for event in [event for frame in frames for event in frame.events]:
        assembly.add(event)
    yield from (call.name for call in assembly.calls())


EVERY = list(exchanges())
assert {exchange.id for exchange in EVERY} >= FAILURES | UNJUDGED
ALL = [exchange for exchange in EVERY if exchange.id not in FAILURES]


@dataclass
class House:
    """A proxy without a policy, one with a policy that denies nothing, and the upstream behind both."""

    origins: dict[str, str] = field(default_factory=dict[str, str])
    reply: bytes = b""
    streamed: bool = False
    sent: list[bytes] = field(default_factory=list[bytes])

    def answer(self, body: bytes) -> Answer:
        self.sent.append(body)
        if self.streamed:
            half = len(self.reply) // 2
            return events(self.reply[:half], self.reply[half:])
        return whole(self.reply)


def _targets(base_url: str) -> list[dict[str, Any]]:
    spoken = {"dialects": ["openai_chat", "openai_responses", "openai_completions"]}
    anthropic = target("anthropic", base_url.removesuffix("/v1")) | {"provider": "anthropic"}
    return [target("openai", base_url) | spoken, anthropic]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    house = House()
    async with raw_upstream(house.answer) as upstream:
        openai, anthropic = _targets(upstream.base_url)
        models = {
            "agent-model": {"targets": [openai | {"model": 'real "m"'}], "retries": 0},
            "claude-model": {"targets": [anthropic | {"model": 'real "m"'}], "retries": 0},
        }
        given = config(upstream.base_url, models=models, prices={})
        folders = [tmp_path_factory.mktemp(name) for name in ("open", "judged")]
        async with (
            ProxyProcess(folders[0], given) as plain,
            ProxyProcess(folders[1], given, policy=_policy()) as judged,
        ):
            house.origins = {"no policy": plain.origin, "a policy": judged.origin}
            yield house


CASES = [pytest.param(exchange, "no policy", id=exchange.id) for exchange in ALL] + [
    pytest.param(exchange, "a policy", id=f"{exchange.id}-judged")
    for exchange in ALL
    if exchange.id not in UNJUDGED
]


@pytest.mark.parametrize(("exchange", "proxy"), CASES)
async def test_bytes_pass_both_ways(house: House, exchange: Exchange, proxy: str) -> None:
    house.reply, house.streamed = exchange.reply.read_bytes(), exchange.streamed
    house.sent.clear()
    name = b"claude-model" if exchange.dialect == "anthropic_messages" else b"agent-model"
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            house.origins[proxy] + PATHS[exchange.dialect], data=exchange.ask(name), headers=headers
        ) as reply,
    ):
        body = await reply.read()
        assert reply.status == 200, body
    assert body == house.reply
    assert house.sent == [exchange.ask(b'real \\"m\\"')]
