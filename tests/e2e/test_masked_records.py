"""Secrets are masked in what is kept of calls, in every dialect; agents and models get them as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import Engine, select

from llm_proxy.records.blobs import Codec
from llm_proxy.records.tables import METADATA, blobs
from llm_proxy.records.view import CallView, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from llm_proxy.telemetry.items import Item
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.spans import spans_of
from llm_proxy.wire.seal import unwrap
from tests.e2e.dialect_agents import AGENTS, UPSTREAMS, each_speaking
from tests.either_store import store as store
from tests.proxy import KEY as AGENT_KEY
from tests.proxy import ProxyProcess, config, headers

pytest_plugins = ["tests.postgres"]

KEY = "sk-live-Ab3dEf6hIj9kLm2nOp5qRs8t"
SAID, WANTED, GIVEN = KEY + "A", KEY + "B", KEY + "C"
IBAN = "DE89370400440532013000"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqh/kiG9w0+BAQEF\nAAS=\n-----END PRIVATE KEY-----"
SCRIPT = f"""
default:
  turns:
    - {{when: {{turn: 0}}, text: "Your key {SAID} é.", deltas: 40, reasoning: "They gave {SAID}.",
       tool_calls: [{{name: crm_read, arguments: {{id: "{WANTED}"}}}}]}}
    - {{when: {{last_tool_contains: "{GIVEN}"}}, text: "It is {IBAN}, key {GIVEN}.", deltas: 40}}
"""
POLICY: dict[str, Any] = {
    "policy": {"id": "records", "version": 1},
    "tools": {
        "crm_read": {
            "effect": "read",
            "tier": "autonomous",
            "args": {"type": "object"},
            "result": {"trust": "internal"},
        }
    },
    "redact": [{"id": "iban", "in": ["record"], "tool": "crm_*", "field": "$.iban", "with": "last4"}],
}
RESULT = json.dumps({"iban": IBAN, "note": f"key {GIVEN}", "pem": PEM})


def _texts(engine: Engine) -> Iterator[tuple[str, bytes]]:
    """Every value of every table, content unpacked."""
    codec = Codec()
    with engine.connect() as connection:
        for table in METADATA.sorted_tables:
            for row in connection.execute(select(table)):
                for value in row:
                    if isinstance(value, bytes | memoryview):
                        yield table.name, bytes(value)
                    else:
                        yield table.name, str(value).encode()
        c = blobs.c
        for codec_name, data, size in connection.execute(select(c.codec, c.data, c.size)):
            content = codec.unpack(codec_name, bytes(data), size)
            yield "content", content
            for carried in re.findall(rb"llmp1\.[\w-]+", content):
                part = unwrap(carried.decode())
                yield "carried", part.text.encode() if part else b""


def stands(engine: Engine, *secrets: str) -> set[str]:
    """The tables in which one of them is readable."""
    return {name for name, data in _texts(engine) if any(secret.encode() in data for secret in secrets)}


def _well_formed(view: CallView) -> None:
    json.loads(view.request or b"{}")
    if view.sent:
        json.loads(view.sent)
    assert view.reply is not None
    assert view.reply.complete
    spans: list[Span] = spans_of(Item(call=view), SpanSettings())
    told = b"".join(span.SerializeToString() for span in spans)
    assert KEY.encode() not in told
    (call_span, *_) = [span for span in spans if span.kind == Span.SPAN_KIND_CLIENT]
    assert {a.key: a.value.bool_value for a in call_span.attributes}["llm_proxy.masked"] is True


async def _recalled(proxy: ProxyProcess) -> None:
    """What the proxy itself tells another target of a conversation has its values masked."""
    async with proxy.sdk() as sdk:
        begun = await sdk.responses.create(model="openai_chat", input=f"Use {SAID}")
        (call,) = [item for item in begun.output if item.type == "function_call"]
        gone_on = await sdk.responses.with_raw_response.create(
            model="anthropic_messages",
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": RESULT}],
            previous_response_id=begun.id,
        )
    view = proxy.view(gone_on.headers["x-call-id"])
    assert view.status is Status.OK
    assert b"Use [redacted]" in (view.sent or b"")


async def test_no_secret_is_kept(store: str, tmp_path: Path) -> None:
    async with running(parse_script(SCRIPT)) as upstream:
        models = each_speaking(upstream.origin)
        settings = config(upstream.base_url, models=models, store=store)
        async with ProxyProcess(tmp_path, settings, policy=POLICY) as proxy:
            for kind in AGENTS:
                for model in UPSTREAMS:
                    for stream in (False, True):
                        run = f"{kind.dialect}-{model}-{stream}"
                        async with kind(proxy, model, run=run) as agent:
                            heard = await agent.say(f"Use {SAID}, and {PEM}!", stream=stream)
                            assert SAID in heard.text
                            assert heard.calls == [("crm_read", {"id": WANTED})]
                            first = proxy.view(agent.tape.call_id)
                            key = "output" if kind.dialect == "openai_responses" else "content"
                            agent.answers[0][key] = RESULT
                            heard = await agent.answer(stream=stream)
                            assert heard.text == f"It is {IBAN}, key {GIVEN}."
                            second = proxy.view(agent.tape.call_id)
                        for view in (first, second):
                            assert (view.status, view.masked) == (Status.OK, True)
                            _well_formed(view)
                        assert first.reply is not None
                        assert first.reply.choices[0].text == "Your key [redacted] é."
                        (decision,) = first.decisions
                        assert json.loads(decision.arguments) == {"id": "[redacted]"}
                        assert decision.masked
                        assert "****3000" in (second.request or b"").decode()
                        assert second.results[0].tool == "crm_read"
            await _recalled(proxy)
            await proxy.settled()
            assert stands(proxy.engine, KEY, json.dumps(PEM)[1:-1]) == set()
            assert stands(proxy.engine, f'iban\\": \\"{IBAN}') == set()
            assert f"{IBAN}" in "".join(  # what the model said of it is no result of the tool
                c.text for v in proxy.views() if v.reply for c in v.reply.choices
            )


async def test_what_holds_no_secret_is_kept_to_the_byte_beside_what_does(tmp_path: Path) -> None:
    async with (
        running(parse_script("default: {turns: [{text: Hello.}]}")) as upstream,
        ProxyProcess(tmp_path, config(upstream.base_url)) as proxy,
        aiohttp.ClientSession(headers=headers()) as http,
    ):
        for text, masked in (("plain", False), (f"key {KEY}", True), ("plain", False)):
            said = [{"role": "system", "content": "é"}, {"role": "user", "content": text}]
            body = json.dumps({"model": "m", "messages": said, "user": "u1"}, indent=2).encode()
            async with http.post(proxy.url, data=body) as reply:
                answer = await reply.read()
            view = proxy.view(reply.headers["x-call-id"])
            assert view.masked is masked
            assert (view.emitted, view.released) == (answer, None)
            assert view.request == (body.replace(KEY.encode(), b"[redacted]") if masked else body)
        # One that is refused, and one that is no JSON at all
        for body in (f'{{"model": "none", "messages": [], "x": "{KEY}"}}', f"not json {KEY}"):
            async with http.post(proxy.url, data=body.encode()) as reply:
                assert reply.status in (400, 404)
            view = proxy.view(reply.headers["x-call-id"])
            assert view.masked
            assert b"[redacted]" in (view.request or b"")
        assert stands(proxy.engine, KEY) == set()
        assert AGENT_KEY not in KEY


async def test_secrets_are_kept_where_the_config_says_so(tmp_path: Path) -> None:
    async with running(
        parse_script(f"default: {{turns: [{{text: 'Hello {KEY}.', deltas: 9}}]}}")
    ) as upstream:
        settings = config(upstream.base_url, records={"mask_secrets": False})
        async with ProxyProcess(tmp_path, settings) as proxy, proxy.sdk() as sdk:
            said: Any = [{"role": "user", "content": KEY}]
            got = await sdk.chat.completions.with_raw_response.create(model="m", messages=said)
            view = proxy.view(got.headers["x-call-id"])
            assert not view.masked
            assert (KEY.encode() in (view.request or b""), KEY.encode() in (view.emitted or b"")) == (
                True,
                True,
            )
