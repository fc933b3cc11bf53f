"""A tree of runs as its spans tell it: roots, sub-runs, tool calls and their results, effects, an end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from llm_proxy.telemetry.ids import run_span_id, run_trace_id, span_id_of, tool_span_id
from llm_proxy.telemetry.items import RunRef
from tests.exported import expected_spans, unsent
from tests.otlp_receiver import OtlpReceiver, attributes_of
from tests.proxy import KEY, ProxyProcess, config, headers, until

SCRIPT = """
default:
  turns:
    - when: {last_user_contains: tool, turn: 0}
      tool_calls: [{name: read, arguments: {path: a}}, {name: pay, arguments: {to: me}}]
    - {text: Hello}
"""
POLICY = {
    "policy": {"id": "p", "version": 1},
    "on_deny": "replace",
    "tools": {
        "read": {"effect": "read", "tier": "autonomous", "result": {}, "args": {"type": "object"}},
        "pay": {"effect": "write", "tier": "prohibited"},
    },
}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class House:
    def __init__(self, proxy: ProxyProcess, http: aiohttp.ClientSession) -> None:
        self.proxy, self.http = proxy, http

    async def post(self, path: str, body: dict[str, Any], key: str = KEY, **head: str) -> dict[str, Any]:
        url = f"{self.proxy.origin}{path}"
        async with self.http.post(url, json=body, headers=headers(key, **head)) as reply:
            answer = await reply.json()
            assert reply.status < 300, answer
            return {**answer, "call_id": reply.headers.get("x-call-id", "")}

    async def ask(self, text: str, *more: dict[str, Any], key: str = KEY, **head: str) -> dict[str, Any]:
        messages = [{"role": "user", "content": text}, *more]
        return await self.post("/v1/chat/completions", {"model": "m", "messages": messages}, key, **head)


async def test_a_tree_of_runs_is_one_trace_and_nothing_hangs_in_the_air(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver:
        async with running(parse_script(SCRIPT)) as upstream:
            telemetry = {"otlp_endpoint": receiver.endpoint, "metrics_interval_s": 1}
            settings = config(upstream.base_url, telemetry=telemetry)
            async with (
                ProxyProcess(tmp_path, settings, policy=POLICY) as proxy,
                aiohttp.ClientSession() as http,
            ):
                calls = await _happens(House(proxy, http))
                await until(lambda: unsent(proxy.engine) == 0, "all was exported")
                assert receiver.spans == expected_spans(proxy.engine)
                spans = receiver.spans
                _check_tree(spans, calls)
                _check_tools(spans, calls)
                _check_happenings(spans)
                metrics = {"gen_ai.client.operation.duration", "llm_proxy.requests_unaccounted"}
                assert await asyncio.to_thread(receiver.wait_until, lambda: metrics <= _measured(receiver))


def _measured(receiver: OtlpReceiver) -> set[str]:
    return {
        metric.name
        for request in receiver.metrics
        for resource in request.resource_metrics
        for scoped in resource.scope_metrics
        for metric in scoped.metrics
    }


async def _happens(house: House) -> dict[str, str]:
    """Opens a run, goes through it and one below it, and ends it; ids of calls by what they were."""
    opened = await house.post("/v1/runs", {"run_id": "top", "purpose": "triage", "trigger": {"kind": "cron"}})
    token = opened["token"]
    proposing = await house.ask("use a tool", key=token)
    message = proposing["choices"][0]["message"]
    answers = [
        {"role": "tool", "tool_call_id": call["id"], "content": "paid"} for call in message["tool_calls"]
    ]
    bringing = await house.ask("use a tool", message, *answers, key=token)
    below = await house.ask("hi", x_run_id="below", x_parent_run_id="top")
    deeper = await house.ask("hi", x_run_id="deeper", x_parent_run_id="below", traceparent=TRACEPARENT)
    action = await house.post(
        "/v1/actions/check", {"tool": "pay", "arguments": {}, "tool_call_id": "a-1"}, key=token
    )
    called = message["tool_calls"][0]["id"]
    effect = {"kind": "issue", "url": "https://git.example/7", "tool_call_id": called}
    await house.post("/v1/runs/top/effects", effect)
    await house.post("/v1/runs/top/end", {"why": "done"})
    ids = {"proposing": proposing, "bringing": bringing, "below": below, "deeper": deeper, "action": action}
    return {name: answer["call_id"] for name, answer in ids.items()}


def _check_tree(spans: dict[bytes, Span], calls: dict[str, str]) -> None:
    runs = {name: spans[run_span_id(RunRef("bot", name))] for name in ("top", "below", "deeper")}
    trace = run_trace_id(RunRef("bot", "top"))
    assert {span.trace_id for span in runs.values()} == {trace}
    assert runs["top"].parent_span_id == b""
    assert runs["below"].parent_span_id == runs["top"].span_id
    assert runs["deeper"].parent_span_id == runs["below"].span_id
    told = attributes_of(runs["top"])
    assert told["llm_proxy.run.purpose"] == "triage"
    assert json.loads(str(told["llm_proxy.run.trigger"]))["kind"] == "cron"
    places = {"proposing": "top", "bringing": "top", "below": "below", "action": "top"}
    for name, run in places.items():
        span = spans[span_id_of(calls[name])]
        assert (span.trace_id, span.parent_span_id) == (trace, runs[run].span_id)
    remote = spans[span_id_of(calls["deeper"])]
    assert (remote.trace_id.hex(), remote.parent_span_id.hex()) == tuple(TRACEPARENT.split("-")[1:3])
    assert [(link.trace_id, link.span_id) for link in remote.links] == [(trace, runs["deeper"].span_id)]
    parents = {span.parent_span_id for span in spans.values()} - {b"", remote.parent_span_id}
    assert parents <= set(spans), "a parent never arrived"


def _check_tools(spans: dict[bytes, Span], calls: dict[str, str]) -> None:
    allowed, denied = (spans[tool_span_id(calls["proposing"], 0, index)] for index in (0, 1))
    assert {allowed.parent_span_id, denied.parent_span_id} == {span_id_of(calls["proposing"])}
    assert attributes_of(allowed)["llm_proxy.decision"] == "allow"
    assert json.loads(str(attributes_of(allowed)["gen_ai.tool.call.arguments"])) == {"path": "a"}
    assert attributes_of(denied)["error.type"] == "policy_denied"
    (link,) = spans[span_id_of(calls["bringing"])].links
    assert (link.trace_id, link.span_id) == (allowed.trace_id, allowed.span_id)
    action = spans[span_id_of(calls["action"])]
    assert (action.name.split()[0], attributes_of(action)["gen_ai.tool.name"]) == ("execute_tool", "pay")


def _check_happenings(spans: dict[bytes, Span]) -> None:
    told = [(span.name, attributes_of(span)) for span in spans.values() if span.name.startswith("run.")]
    (effect,) = [said for name, said in told if name == "run.effect"]
    assert (effect["llm_proxy.run.effect.url"], effect["session.id"]) == ("https://git.example/7", "top")
    ends = {
        str(said["session.id"]): said["llm_proxy.run.ended.why"] for name, said in told if name == "run.ended"
    }
    assert ends == dict.fromkeys(("top", "below", "deeper"), "done"), "it ended with those below it"
