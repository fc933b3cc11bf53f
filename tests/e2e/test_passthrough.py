"""Paths that no dialect serves pass as they are, both ways, under the same identity, budgets and record."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from llm_proxy.pricing.book import PriceBook
from llm_proxy.records.view import CostLabel, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, Seen, running
from llm_proxy.wire.passthrough import Units
from tests.proxy import KEY, ProxyProcess, config, headers, target
from tests.raw_upstream import Answer, RawUpstream, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

MB = 1 << 20
SOUND = bytes(range(256)) * 40
SCRIPT = (
    "models: {m: {turns: [{text: Hi}]}, broken: {turns: [{status: 500, error: {message: boom sk-upstream}}]}}"
)
DRAWN, SPOKEN, RANKED = "medium/1024-x-1024/gpt-image-1", "tts-1", "rerank-v3.5"
"""Models with a price by the piece, which the table has."""
PRICES = {
    "m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
}


@dataclass
class House:
    proxy: ProxyProcess
    upstream: Scripted
    raw: RawUpstream
    answer: list[Answer] = field(default_factory=list)

    @property
    def seen(self) -> Seen:
        """The newest request that reached the scripted upstream."""
        return self.upstream.seen[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    answer: list[Answer] = []
    async with running(parse_script(SCRIPT)) as upstream, raw_upstream(lambda _: answer[0]) as raw:
        models = {name: {"targets": [target(name, upstream.base_url, name)]} for name in ("m", "broken")}
        models |= {
            name: {"targets": [target(name, raw.base_url, name)], "retries": 0}
            for name in ("raw", "raw-cut", DRAWN, SPOKEN, RANKED)
        }
        settings = config(
            upstream.base_url,
            models=models | {"renamed": {"targets": [target("renamed", upstream.base_url)]}},
            default_model="renamed",
            prices=PRICES,
            budgets=[{"id": "all", "window": "day", "requests": 10_000, "usd": 100}],
        )
        async with ProxyProcess(tmp_path_factory.mktemp("passing"), settings) as proxy:
            yield House(proxy, upstream, raw, answer)


@dataclass(frozen=True)
class Got:
    status: int
    type: str
    body: bytes
    headers: Any

    @property
    def call_id(self) -> str:
        return self.headers["x-call-id"]


async def _send(proxy: ProxyProcess, method: str, path: str, **more: Any) -> Got:
    sent = {"authorization": f"Bearer {KEY}"} | more.pop("headers", {})
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, proxy.origin + path, headers=sent, **more) as reply,
    ):
        return Got(reply.status, reply.headers.get("content-type", ""), await reply.read(), reply.headers)


FILE = ("name.jsonl", b'{"a": 1}\n' * 20)
CASES: dict[str, tuple[str, str, Any]] = {
    "images": ("POST", "/v1/images/generations", {"model": "m", "prompt": "an otter", "n": 2}),
    "speech": ("POST", "/v1/audio/speech", {"model": "m", "input": "Hello", "voice": "alloy"}),
    "moderations": ("POST", "/v1/moderations", {"model": "m", "input": ["a", "b"]}),
    "moderations without a model": ("POST", "/v1/moderations", {"input": "a"}),
    "rerank": ("POST", "/v1/rerank", {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1}),
    "files": ("GET", "/v1/files?purpose=batch&limit=3", None),
    "file": ("GET", "/v1/files/file-1", None),
    "file content": ("GET", "/v1/files/file-1/content", None),
    "file deleted": ("DELETE", "/v1/files/file-1", None),
    "batch": ("POST", "/v1/batches", {"input_file_id": "file-1", "endpoint": "/v1/chat/completions"}),
    "batches": ("GET", "/v1/batches?after=batch_1", None),
    "batch cancelled": ("POST", "/v1/batches/batch_1/cancel", None),
    "stored response": ("DELETE", "/v1/containers/c_1", None),
    "unknown": ("PATCH", "/v1/some/new_thing?a=b&&c=/&d", {"model": "m", "deep": [1.50, {"x": None}]}),
}


@pytest.mark.parametrize("name", CASES)
async def test_both_ways_verbatim(house: House, name: str) -> None:
    method, path, asked = CASES[name]
    body = json.dumps(asked, indent=1).encode() if asked is not None else b""
    direct = await _direct(house, method, path, body)
    used = house.proxy.used("all", "requests")
    typed = {"content-type": "application/json; charset=utf-8"} if body else {}
    got = await _send(house.proxy, method, path, data=body or None, headers=typed)
    assert (got.status, got.type, got.body) == direct
    seen = house.seen
    bare, _, query = path.partition("?")
    assert (seen.method, seen.path, seen.query, seen.body) == (method, bare, query, body)
    assert seen.headers["authorization"] == "Bearer sk-upstream"
    assert KEY not in json.dumps(seen.headers)
    if body:
        assert seen.headers["content-type"] == typed["content-type"]
    view = house.proxy.view(got.call_id)
    assert (view.status, view.emitted, view.released) == (Status.OK, got.body, None)
    assert (view.dialect, view.operation, view.agent_id) == ("passthrough", "passthrough", "bot")
    assert (view.request or b"", view.served_model) == (body, "m")
    assert house.proxy.used("all", "requests") == used + 1


async def _direct(house: House, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
    """What the upstream answers to the same request without the proxy between."""
    typed = {"content-type": "application/json"} if body else {}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, house.upstream.origin + path, data=body or None, headers=typed) as reply,
    ):
        return reply.status, reply.headers["content-type"], await reply.read()


async def test_a_model_of_another_name_is_renamed_and_nothing_else(house: House) -> None:
    got = await _send(
        house.proxy,
        "POST",
        "/v1/moderations",
        data=b'{ "input" : "a",\n "model":"renamed", "x":1.0 }',
        headers={"content-type": "application/json"},
    )
    assert got.status == 200
    assert house.seen.body == b'{ "input" : "a",\n "model":"m", "x":1.0 }'


async def test_forms(house: House) -> None:
    """With the SDK: a file uploaded, a recording transcribed; every byte of the form arrives."""
    async with house.proxy.sdk() as sdk:
        raw = await sdk.files.with_raw_response.create(file=FILE, purpose="batch")
        assert house.seen.headers["content-type"].startswith("multipart/form-data; boundary=")
        assert FILE[1] in house.seen.body
        assert house.proxy.view(raw.headers["x-call-id"]).request == house.seen.body
        assert raw.parse().purpose == "batch"
        text = await sdk.audio.transcriptions.create(model="renamed", file=("a.wav", SOUND))
        assert text.text == "This is what the recording says."
    assert SOUND in house.seen.body
    assert b"\r\n\r\nm\r\n" in house.seen.body, "the target's own name for the model"
    assert b"renamed" not in house.seen.body


async def test_sound_is_streamed_as_it_comes(house: House) -> None:
    """The first half is there while the upstream still waits to send the second; binary, byte by byte."""
    half = len(SOUND) // 2
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: %d\r\n\r\n" % len(SOUND)
    house.answer[:] = [[head + SOUND[:100], 0.05, SOUND[100:half], 1.5, SOUND[half:]]]
    asked = {"model": "raw", "input": "Hello", "voice": "alloy"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(house.proxy.base_url + "/audio/speech", json=asked, headers=headers()) as reply,
    ):
        assert (reply.status, reply.headers["content-type"]) == (200, "audio/mpeg")
        first = await reply.content.readany()
        assert SOUND.startswith(first)
        assert len(first) < half, "the reply waited for its end"
        rest = await reply.read()
    assert first + rest == SOUND
    view = house.proxy.view(reply.headers["x-call-id"])
    assert (view.status, view.emitted, view.released) == (Status.OK, SOUND, None)


async def test_a_reply_that_breaks_off_breaks_off_for_the_client(house: House) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: %d\r\n\r\n" % len(SOUND)
    house.answer[:] = [[head + SOUND[:100], 0.1, SOUND[100:200], 0.1]]
    asked = {"model": "raw-cut", "input": "Hello", "voice": "alloy"}
    async with aiohttp.ClientSession() as http:
        reply = await http.post(house.proxy.base_url + "/audio/speech", json=asked, headers=headers())
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read()
    await house.proxy.settled()
    view = house.proxy.view(reply.headers["x-call-id"])
    assert (view.status, view.attempts[-1].failure) == (Status.FAILED, "truncated")


@pytest.mark.parametrize(
    ("path", "asked", "units"),
    [
        ("/v1/images/generations", {"model": DRAWN, "prompt": "x", "n": 3}, Units(images=3)),
        ("/v1/images/generations", {"model": DRAWN, "prompt": "x"}, Units(images=1)),
        ("/v1/audio/speech", {"model": SPOKEN, "input": "x" * 200}, Units(characters=200)),
        ("/v1/rerank", {"model": RANKED, "query": "x", "documents": ["x"] * 101}, Units(queries=2)),
    ],
)
async def test_what_is_priced_by_the_piece(
    house: House, path: str, asked: dict[str, Any], units: Units
) -> None:
    price = PriceBook({}).find("openai", asked["model"])
    assert price is not None
    micro_usd = price.flat_micro_usd(units)
    assert micro_usd > 0
    house.answer[:] = [whole(b'{"created": 1, "data": []}')]
    before = house.proxy.used("all", "micro_usd")
    got = await _send(house.proxy, "POST", path, json=asked)
    view = house.proxy.view(got.call_id)
    assert (got.status, view.cost_micro_usd, view.cost_label) == (200, micro_usd, CostLabel.ESTIMATED)
    assert view.held["micro_usd"] >= micro_usd
    assert house.proxy.used("all", "micro_usd") - before == micro_usd


TRICKS = [
    "/v1/chat/completions/",
    "/v1//chat/completions",
    "/v1/chat//completions",
    "/v1/./chat/completions",
    "/v1/files/../chat/completions",
    "/v1/files/%2e%2e/chat/completions",
    "/v1/chat%2fcompletions",
    "/v1/chat%2Fcompletions",
    "/v1/chat/completions;x=1",
    "/v1/chat;/completions",
    "/v1/chat/%63ompletions",
    "/v1/Chat/Completions",
    "/v1/chat%5ccompletions",
    "/v1/chat/completions%00",
    "/v1/chat/completions%20",
    "/v1/responses/",
    "/v1/%72esponses",
    "/v1/RESPONSES",
    "/v1/messages/",
    "/v1/messages%3f",
    "/v1/beta/chat/completions",
    "/v1/openai/v1/chat/completions",
    "/v1/organization/admin_api_keys",
    "/v1/Organization/users",
    "/v1/organizations/api_keys",
    "/v1/projects/p/api_keys",
    "/v1/%6frganization/users",
    "/v1/organization",
    "/v1/chat/completions/%20",
    "/v1/%20chat/completions",
]


@pytest.mark.parametrize("path", TRICKS)
async def test_tricks_with_paths_reach_no_upstream(house: House, path: str) -> None:
    house.upstream.reset()
    status, body = await _bare(house.proxy, path)
    assert status in (400, 404), body
    assert json.loads(body)["error"]["code"] in ("invalid_request", "unsupported_feature")
    assert house.upstream.stats.total == 0, "the upstream was asked"


async def _bare(proxy: ProxyProcess, path: str) -> tuple[int, bytes]:
    """A request whose path no client library put in order."""
    body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {KEY}", "connection: close"]
    lines += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, said = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), said


async def test_a_404_of_the_upstream_passes(house: House) -> None:
    """With its body, however it came in pieces; the SDK raises what it would without a proxy."""
    said = json.dumps(
        {"error": {"message": "No such file: file-9", "type": "x", "pad": "y" * 40_000}}
    ).encode()
    head = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    house.answer[:] = [[head % len(said) + said[:50], 0.1, said[50:]]]
    got = await _send(house.proxy, "POST", "/v1/vector_stores/x/search", json={"model": "raw"})
    assert (got.status, got.type, got.body) == (404, "application/json", said)
    assert house.proxy.view(got.call_id).status is Status.FAILED
    house.answer[:] = [whole(said, "404 Not Found")]
    async with house.proxy.sdk() as sdk:
        with pytest.raises(openai.NotFoundError, match="No such file"):
            await sdk.post("/fine_tuning/jobs/x/pause", body={"model": "raw"}, cast_to=object)


async def test_a_500_of_the_upstream_is_a_502(house: House) -> None:
    got = await _send(house.proxy, "POST", "/v1/moderations", json={"model": "broken", "input": "x"})
    error = json.loads(got.body)["error"]
    assert (got.status, error["code"]) == (502, "upstream_failed")
    assert "sk-upstream" not in got.body.decode()
    assert "boom" not in got.body.decode()
    assert house.proxy.view(got.call_id).status is Status.FAILED


async def test_40_mb_are_too_much(house: House) -> None:
    house.upstream.reset()
    got = await _send(
        house.proxy,
        "POST",
        "/v1/files",
        data=io.BytesIO(bytes(40 * MB)),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert (got.status, json.loads(got.body)["error"]["code"]) == (413, "body_too_large")
    assert house.upstream.stats.total == 0
    assert house.proxy.view(got.call_id).status is Status.REFUSED


@pytest.mark.parametrize("key", ["sk-wrong", None])
async def test_no_path_without_a_key(house: House, key: str | None) -> None:
    house.upstream.reset()
    sent = {"authorization": f"Bearer {key}" if key else ""}
    for method, path, asked in CASES.values():
        got = await _send(house.proxy, method, path, json=asked, headers=sent)
        assert (got.status, json.loads(got.body)["error"]["code"]) == (401, "invalid_credential")
    assert house.upstream.stats.total == 0


async def test_a_model_that_is_not_for_the_caller(house: House) -> None:
    got = await _send(house.proxy, "POST", "/v1/moderations", json={"model": "nope", "input": "x"})
    assert (got.status, json.loads(got.body)["error"]["code"]) == (404, "model_not_found")
