"""Caller and upstream speak the same dialect: bytes pass as they are, both ways, however odd."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.proxy import ProxyProcess, ask, config, headers, target
from tests.raw_upstream import Answer, RawUpstream, events, raw_upstream, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")

USAGE = b'{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}'
DONE = b"data: [DONE]\n\n"

BODIES: dict[str, bytes] = {
    "unknown fields": b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi","x_sig":"AbC=="},'
    b'"finish_reason":"stop","x":{"deep":[1,null]}}],"usage":%b,"provider_extra":{"a":1.50}}' % USAGE,
    "logprobs": b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"logprobs":{"content":'
    b'[{"token":"hi","logprob":-1.25e-05,"bytes":[104,105],"top_logprobs":[]}]},"finish_reason":"stop"}]}',
    "two choices": b'{"choices":[{"index":1,"message":{"content":"b"},"finish_reason":"stop"},'
    b'{"index":0,"message":{"content":"a"},"finish_reason":"length"}],"usage":%b}' % USAGE,
    "escaped unicode": b'{"choices":[{"index":0,"message":{"content":'
    b'"\\u00e9\\ud83d\\ude00\\/\\u0000 \xc3\xa9"},"finish_reason":"stop"}]}',
    "white space": b'\n{ "choices" :\t[ {"index": 0,\r\n "message" : { "content":"hi" } ,'
    b'"finish_reason":"stop"} ] }\n\n',
    "numbers": b'{"created":1.0,"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],'
    b'"x":[1e400,-0,123456789012345678901234567890]}',
    "reasoning": b'{"choices":[{"index":0,"message":{"content":"hi","reasoning_details":[{'
    b'"type":"reasoning.encrypted","data":"gAAA=="}]},"finish_reason":"stop"}]}',
    "tool calls": b'{"choices":[{"index":0,"message":{"content":null,"tool_calls":[{"id":"c1",'
    b'"type":"function","function":{"name":"f","arguments":"{ \\"a\\" : 1.0 }"},"x_signature":"s"}]},'
    b'"finish_reason":"tool_calls"}]}',
    "no content": b'{"choices":[{"index":0,"message":{"content":""},"finish_reason":"stop"}]}',
}


def _chunk(choices: bytes, more: bytes = b"") -> bytes:
    return b'data: {"id":"c","choices":[%b]%b}\n\n' % (choices, more)


SAY = _chunk(b'{"index":0,"delta":{"content":"hi"},"finish_reason":null}')
STOP = _chunk(b'{"index":0,"delta":{},"finish_reason":"stop"}')
STREAMS: dict[str, list[bytes]] = {
    "unknown fields": [
        _chunk(b'{"index":0,"delta":{"role":"assistant","x":1}}', b',"p":"abc","obfuscation":"xx"'),
        SAY,
        STOP,
        DONE,
    ],
    "logprobs": [
        _chunk(
            b'{"index":0,"delta":{"content":"hi"},"logprobs":{"content":[{"token":"hi","logprob":-1.5}]}}'
        ),
        STOP,
        DONE,
    ],
    "two choices": [
        _chunk(b'{"index":1,"delta":{"content":"b"}}'),
        _chunk(b'{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"bb"}}'),
        _chunk(b'{"index":1,"delta":{},"finish_reason":"stop"}'),
        _chunk(b'{"index":0,"delta":{"content":"aa"}}'),
        STOP,
        DONE,
    ],
    "escaped unicode": [
        _chunk(b'{"index":0,"delta":{"content":"\\u00e9\\ud83d\\ude00 \xc3\xa9\xe2\x80\xa8"}}'),
        STOP,
        DONE,
    ],
    "CRLF": [frame.replace(b"\n", b"\r\n") for frame in (SAY, STOP, DONE)],
    "no space": [frame.replace(b"data: ", b"data:") for frame in (SAY, STOP, DONE)],
    "comments and ids": [
        b": ping\n\n",
        b"id: 7\nretry: 10\n" + SAY,
        b": ping\n\n",
        b"event: message\n" + STOP,
        DONE,
    ],
    "data over two lines": [SAY.replace(b',"choices"', b',\ndata: "choices"'), STOP, DONE],
    "all at once": [SAY + SAY + STOP + DONE],
    "byte by byte": [bytes([byte]) for byte in SAY + STOP + DONE],
    "no end marker": [SAY, STOP],
    "an end marker without its blank line": [SAY, STOP, b"data: [DONE]"],
    "null usage": [SAY.replace(b'"choices"', b'"usage":null,"choices"'), STOP, DONE],
    "usage beside the finish": [
        SAY,
        _chunk(b'{"index":0,"delta":{},"finish_reason":"stop"}', b',"usage":%b' % USAGE),
        DONE,
    ],
    "no text": [STOP, DONE],
    "tool calls": [
        _chunk(
            b'{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}}]}}'
        ),
        _chunk(b'{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{ }"},"x":1}]}}'),
        _chunk(b'{"index":0,"delta":{},"finish_reason":"tool_calls"}'),
        DONE,
    ],
    "reasoning": [_chunk(b'{"index":0,"delta":{"reasoning_content":"hm","x_sig":"s"}}'), SAY, STOP, DONE],
}
USAGE_CHUNK = _chunk(b"", b',"usage":%b' % USAGE)


def _answer(body: bytes) -> Answer:
    asked = json.loads(body)
    name = asked["messages"][0]["content"]
    if not isinstance(name, str) or name not in (STREAMS if asked.get("stream") else BODIES):
        name = "unknown fields"
    if asked.get("stream"):
        frames = STREAMS[name]
        if name == "with usage" or asked["messages"][-1]["content"] == "with usage":
            frames = [*frames[:-1], USAGE_CHUNK, frames[-1]]
        return events(*frames)
    return whole(BODIES[name])


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: RawUpstream


POLICY = {
    "policy": {"id": "lenient", "version": 1},
    "posture": {"default": "allow", "fallback": "allow"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["no policy", "policy"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    async with raw_upstream(_answer) as upstream:
        models = {
            "m": {"targets": [target("up", upstream.base_url)], "retries": 0},
            "alias": {"targets": [target("up2", upstream.base_url, 'real "m"')], "retries": 0},
        }
        settings = config(
            upstream.base_url,
            models=models,
        )
        policy = POLICY if request.param == "policy" else None
        async with ProxyProcess(tmp_path_factory.mktemp("verbatim"), settings, policy=policy) as proxy:
            yield House(proxy, upstream)


async def _post(proxy: ProxyProcess, body: bytes) -> tuple[int, bytes, str]:
    async with aiohttp.ClientSession() as http, http.post(proxy.url, data=body, headers=headers()) as reply:
        return reply.status, await reply.read(), reply.headers["x-call-id"]


@pytest.mark.parametrize("name", BODIES)
async def test_a_whole_reply_is_the_upstreams_own_bytes(house: House, name: str) -> None:
    status, got, call_id = await _post(
        house.proxy, json.dumps(ask(name, n=2 if name == "two choices" else 1)).encode()
    )
    assert (status, got) == (200, BODIES[name])
    view = house.proxy.view(call_id)
    assert (view.status, view.emitted, view.released) == ("ok", BODIES[name], None)


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_is_the_upstreams_own_bytes(house: House, name: str) -> None:
    body = ask(name, stream=True, n=2 if name == "two choices" else 1, stream_options={"include_usage": True})
    status, got, call_id = await _post(house.proxy, json.dumps(body).encode())
    assert (status, got) == (200, b"".join(STREAMS[name]))
    view = house.proxy.view(call_id)
    assert (view.status, view.emitted, view.released) == ("ok", got, None)


@pytest.mark.parametrize("asked", [True, False])
async def test_only_the_usage_chunk_that_nobody_asked_for_is_left_out(house: House, asked: bool) -> None:
    body = ask("reasoning", stream=True)
    body["messages"].append({"role": "user", "content": "with usage"})
    if asked:
        body["stream_options"] = {"include_usage": True}
    _, got, call_id = await _post(house.proxy, json.dumps(body).encode())
    *frames, last = STREAMS["reasoning"]
    assert got == b"".join([*frames, USAGE_CHUNK, last] if asked else STREAMS["reasoning"])
    view = house.proxy.view(call_id)
    assert view.usage is not None
    assert view.usage.total == 8
    assert view.emitted == b"".join([*frames, USAGE_CHUNK, last])
    assert view.released == (None if asked else got)


_ODD: dict[str, Any] = {"x_unknown": {"a": [1.0, None]}, "temperature": 0.70, "seed": 10**17, "user": "é"}


_IMAGE = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "x": 1}}]
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"x": 1.0}}}
ASKS: dict[str, bytes] = {
    "odd fields": json.dumps(ask() | _ODD).encode(),
    "white space": b'\n{ "messages":[ {"role":"user","content":"\\u00e9 \\/"} ] ,"model" :\t"m" , "x": 1.50,'
    b' "tools" : [] }\n',
    "images": json.dumps(
        {"messages": [{"role": "user", "content": _IMAGE}], "model": "m"}, indent=1
    ).encode(),
    "structured": json.dumps(ask(response_format=_SCHEMA)).encode(),
    "raw utf-8": json.dumps(ask("é 😀"), ensure_ascii=False).encode(),
    "a text like a key": b'{"messages":[{"role":"user","content":"\\"model\\":\\"m\\""}],"model":"m"}',
}
"""Requests in which the model's name stands once, as `"m"`."""


def _for(model: bytes, name: str) -> bytes:
    return ASKS[name].replace(b'"m"', b'"%b"' % model)


@pytest.mark.parametrize("name", ASKS)
async def test_the_upstream_gets_the_callers_own_bytes(house: House, name: str) -> None:
    assert (await _post(house.proxy, ASKS[name]))[0] == 200
    assert house.upstream.bodies[-1] == ASKS[name]


@pytest.mark.parametrize("name", ASKS)
async def test_only_the_models_name_is_another_where_the_target_knows_it_by_another(
    house: House, name: str
) -> None:
    status, _, call_id = await _post(house.proxy, _for(b"alias", name))
    assert status == 200
    assert house.upstream.bodies[-1] == _for(b'real \\"m\\"', name)
    assert house.proxy.view(call_id).sent == house.upstream.bodies[-1]
    assert house.proxy.view(call_id).request == _for(b"alias", name)


ASKED = [
    (b"", b',"stream_options":{"include_usage":true}'),
    (b', "stream_options": null', b', "stream_options": {"include_usage":true}'),
    (b', "stream_options": {}', b', "stream_options": {"include_usage":true}'),
    (b', "stream_options" : { "include_usage" : false }', b', "stream_options" : { "include_usage" : true }'),
    (b',"stream_options":{"x": 1}', b',"stream_options":{"x": 1,"include_usage":true}'),
    (b',"stream_options":{"include_usage":true}', b',"stream_options":{"include_usage":true}'),
]


@pytest.mark.parametrize(("asked", "sent"), ASKED)
async def test_a_stream_is_asked_for_its_usage(house: House, asked: bytes, sent: bytes) -> None:
    body = b'{"messages": [{"role":"user","content":"x"}], "model":"m", "stream": true%b}'
    assert (await _post(house.proxy, body % asked))[0] == 200
    assert house.upstream.bodies[-1] == body % sent
