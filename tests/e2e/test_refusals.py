"""What is refused gets the documented answer, costs nothing, never reaches the upstream, and is recorded."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.scripted_house import House
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, ask, config, headers, target

pytestmark = pytest.mark.asyncio(loop_scope="module")

MB = 1 << 20
LIMITS = [{"id": "all", "window": "day", "requests": 1000, "tokens": 10**9, "usd": 50}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script("default: {turns: [{text: Hello}]}")) as upstream:
        models = {
            "m": {"targets": [target("up", upstream.base_url)]},
            "secret": {"targets": [target("up2", upstream.base_url)]},
            "unpriced": {"targets": [target("up3", upstream.base_url, "no-such-price")]},
        }
        agents = {
            "bot": {"keys": [KEY], "models": ["m", "unpriced"]},
            "strict": {"keys": [OTHER_KEY], "models": ["m"], "require_run": True},
        }
        settings = config(upstream.base_url, models=models, agents=agents, budgets=LIMITS)
        folder: Path = tmp_path_factory.mktemp("refusals")
        async with ProxyProcess(folder, settings) as proxy:
            yield House(proxy, upstream)


@dataclass(frozen=True)
class Case:
    """A refused request: what is sent, the answer, words of its message, and who was known to call."""

    name: str
    status: int
    code: str
    says: str
    body: bytes | None = None
    key: str | None = KEY
    agent: str = "bot"
    path: str = "/chat/completions"


def _json(**more: Any) -> bytes:
    return json.dumps(ask() | more).encode()


CASES = [
    Case("invalid JSON", 400, "invalid_request", "JSON", body=b'{"model": "m", "messages": ['),
    Case("not UTF-8", 400, "invalid_request", "UTF-8", body=b'{"model": "m\xff"}'),
    Case("no body", 400, "invalid_request", "JSON", body=b""),
    Case("no messages", 400, "invalid_request", "messages is missing", body=b'{"model": "m"}'),
    Case("a key twice", 400, "invalid_request", "twice", body=b'{"model":"m","model":"m","messages":[{}]}'),
    Case("wrong type", 400, "invalid_request", "n has the wrong type", body=_json(n="two")),
    Case("unknown model", 404, "model_not_found", "GET /v1/models", body=_json(model="gpt-nope")),
    Case("model not allowed", 403, "model_not_allowed", "an operator adds", body=_json(model="secret")),
    Case("unpriced model", 429, "budget_exceeded", "prices:", body=_json(model="unpriced")),
    Case("no run", 400, "run_required", "x-run-id", body=_json(), key=OTHER_KEY, agent="strict"),
    Case(
        "not served",
        404,
        "unsupported_feature",
        "POST /v1/chat/completions",
        _json(),
        path="/beta/chat/completions",
    ),
    Case("wrong key", 401, "invalid_credential", "llm-proxy keys issue", _json(), key="sk-wrong", agent=""),
    Case("no key", 401, "invalid_credential", "api_key", _json(), key=None, agent=""),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_refusals(house: House, case: Case, stream: bool) -> None:
    body = case.body or b""
    if stream and body.endswith(b"}"):
        body = body[:-1] + b', "stream": true}'
    proxy, counted, before = house.proxy, house.proxy.refusals(), house.proxy.counters()
    house.upstream.reset()
    async with (
        aiohttp.ClientSession() as http,
        http.post(proxy.base_url + case.path, data=body, headers=headers(case.key)) as reply,
    ):
        said = await reply.read()
        assert (reply.status, reply.content_type) == (case.status, "application/json"), said
        call_id = reply.headers["x-call-id"]
        assert reply.headers["x-should-retry"] == "false"
    error = json.loads(said)["error"]
    assert error["code"] == case.code
    assert case.says in error["message"]
    assert "sk-" not in said.decode()
    assert house.upstream.stats.total == 0, "the upstream was asked"
    assert proxy.counters() == before, "something was charged"
    if case.agent:
        view = proxy.view(call_id)
        assert (view.status, view.agent_id, view.cost_micro_usd) == (Status.REFUSED, case.agent, 0)
        assert view.problem is not None
        assert (view.problem.kind, view.problem.status) == (case.code, case.status)
        assert proxy.kinds(call_id) == ["call.refused"]
        assert proxy.refusals() == counted
        if case.path == "/chat/completions":
            assert (view.request or b"") == body
    else:
        reason = "missing" if case.key is None else "unknown"
        assert proxy.refusals() == counted | {reason: counted.get(reason, 0) + 1}
        assert proxy.kinds(call_id) == []


async def _pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // MB):
        yield b" " * MB


@pytest.mark.parametrize("how", ["plain", "expect", "chunked", "chunked expect", "declared only"])
async def test_a_body_of_40_mb(house: House, how: str) -> None:
    proxy, before = house.proxy, house.proxy.counters()
    house.upstream.reset()
    if how == "declared only":
        status, call_id, code = await _declare(proxy, 40 * MB)
    else:
        data = _pieces(40 * MB) if "chunked" in how else io.BytesIO(bytes(40 * MB))
        async with (
            aiohttp.ClientSession() as http,
            http.post(proxy.url, data=data, headers=headers(), expect100="expect" in how) as reply,
        ):
            status, call_id = reply.status, reply.headers["x-call-id"]
            error = (await reply.json())["error"]
            code = error["code"]
            assert "server.max_body_mb" in error["message"]
    assert (status, code) == (413, "body_too_large")
    assert house.upstream.stats.total == 0
    assert proxy.counters() == before
    assert proxy.view(call_id).status is Status.REFUSED
    async with proxy.sdk() as sdk:  # and it goes on serving
        assert (await sdk.chat.completions.create(**ask())).choices[0].message.content == "Hello"


async def _declare(proxy: ProxyProcess, size: int) -> tuple[int, str, str]:
    """Announces a body with `Expect: 100-continue`, as curl does, and never sends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    lines = [f"{name}: {value}" for name, value in headers(host="x", expect="100-continue").items()]
    head = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", f"content-length: {size}", *lines, "", ""])
    writer.write(head.encode())
    said = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"content-length: (\d+)", said)
    found = re.search(r"x-call-id: (\S+)", said)
    assert length is not None
    assert found is not None
    body = await reader.readexactly(int(length[1]))
    writer.close()
    await writer.wait_closed()
    return int(said.split()[1]), found[1], json.loads(body)["error"]["code"]


async def test_a_body_within_the_limit_passes(house: House) -> None:
    async with house.proxy.sdk() as sdk:
        reply = await sdk.chat.completions.create(**ask("x " * (2 * MB)))
    assert reply.choices[0].message.content == "Hello"


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key", "x-litellm-api-key"])
async def test_every_header_for_a_key_works(house: House, header: str) -> None:
    value = f"Bearer {KEY}" if header == "authorization" else KEY
    async with (
        aiohttp.ClientSession() as http,
        http.post(house.proxy.url, json=ask(), headers={header: value}) as reply,
    ):
        assert reply.status == 200
        assert house.proxy.view(reply.headers["x-call-id"]).agent_id == "bot"


async def test_fifty_wrong_keys_at_once_are_all_counted(house: House) -> None:
    before = house.proxy.refusals().get("unknown", 0)
    async with aiohttp.ClientSession() as http:

        async def one(number: int) -> int:
            async with http.post(house.proxy.url, json=ask(), headers=headers(f"sk-{number}")) as reply:
                return reply.status

        assert set(await asyncio.gather(*map(one, range(50)))) == {401}
    assert house.proxy.refusals()["unknown"] == before + 50
