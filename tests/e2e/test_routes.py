"""A target that rests is seen: on the command line, under /admin and in the metrics, with every try."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.otlp_receiver import OtlpReceiver
from tests.proxy import ProxyProcess, ask, config, headers, target, until
from tests.raw_upstream import raw_upstream, whole

ADMIN = "an-admin-token-0123456789"
CALLS = 6
REFUSAL = b'{"error": {"message": "slow down", "type": "rate_limit_error"}}'
LIMITED = whole(REFUSAL, "429 Too Many Requests\r\nretry-after: 600")


@dataclass(slots=True)
class Scene:
    """A proxy of two workers. Target `busy` asks for ten minutes of peace; `well` answers."""

    proxy: ProxyProcess
    http: aiohttp.ClientSession
    file: Path
    spans: OtlpReceiver

    async def cli(self, *args: str) -> tuple[int, str]:
        command = [*args, "--config", str(self.file)]
        environ = {"COLUMNS": "220", "NO_COLOR": "1"}
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
        return result.exit_code, result.stdout

    async def admin(self, path: str) -> Any:
        asked = {"authorization": f"Bearer {ADMIN}"}
        async with self.http.get(f"{self.proxy.origin}/admin{path}", headers=asked) as reply:
            assert reply.status == 200, await reply.text()
            return await reply.json()

    async def call(self, run: str, *, stream: bool) -> None:
        body = json.dumps(ask(stream=stream))
        asked = headers(x_run_id=run)
        async with self.http.post(self.proxy.url, data=body, headers=asked) as reply:
            assert reply.status == 200
            await reply.read()

    async def gauge(self, name: str, **labels: str) -> float | None:
        """Of the worker that answers; None where it has no such series."""
        async with self.http.get(f"{self.proxy.origin}/metrics") as reply:
            text = await reply.text()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return None


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        spans = stack.enter_context(OtlpReceiver())
        busy = await stack.enter_async_context(raw_upstream(lambda _: LIMITED))
        well = await stack.enter_async_context(running(parse_script("default: {turns: [{text: Hello.}]}")))
        models = {
            "m": {
                "targets": [target("busy", busy.base_url), target("well", well.base_url) | {"rpm": 600}],
                "retries": 0,
            },
            "alone": {"targets": [target("busy-too", busy.base_url)], "retries": 0},
        }
        told = config(
            "", models=models, server={"admin_token": ADMIN}, telemetry={"otlp_endpoint": spans.endpoint}
        )
        http = await stack.enter_async_context(aiohttp.ClientSession())
        proxy = await stack.enter_async_context(ProxyProcess(tmp_path, told, workers=2))
        yield Scene(proxy, http, tmp_path / "proxy.yaml", spans)


async def _all_asked(scene: Scene) -> None:
    """Half of the calls streamed, all of one run; ends once the store tells of every one."""
    for number in range(CALLS):
        await scene.call("r", stream=number % 2 == 0)

    async def told() -> bool:
        lines = {line["target"]: line for line in await scene.admin("/routes")}
        return lines["well"]["attempts"] == CALLS and lines["busy"]["state"] == "open"

    await until(told, "the workers told of their calls")


def _steady(line: dict[str, Any]) -> dict[str, Any]:
    """What doesn't change by the second."""
    return {name: value for name, value in line.items() if name not in ("open_for_s", "requests", "tokens")}


async def test_an_open_breaker_is_seen_everywhere(scene: Scene) -> None:
    await _all_asked(scene)
    status, out = await scene.cli("routes", "--json")
    assert status == 0
    shown, served = json.loads(out), await scene.admin("/routes")
    assert list(map(_steady, shown)) == list(map(_steady, served))
    busy, well, untouched = served
    assert (busy["state"], busy["after"], busy["last_failure"]) == ("open", "rate_limited", "rate_limited")
    assert 500 < busy["open_for_s"] <= 600
    assert 1 <= busy["attempts"] == busy["failures"] <= 2, "each worker may have found it out by itself"
    assert (well["state"], well["rpm"], well["in_flight"]) == ("closed", 600, 0)
    assert 0 < well["requests"] <= CALLS
    assert well["whole_s"] > 0
    assert well["streamed_s"] > 0
    assert (untouched["target"], untouched["attempts"]) == ("busy-too", 0)

    _, out = await scene.cli("routes")
    assert "open for 10 min after rate_limited" in out
    assert " of 600" in out


async def test_explain_is_what_then_happens(scene: Scene) -> None:
    await _all_asked(scene)
    shown = await scene.admin("/routes/m/explain?run=r&stream=true")
    assert [(t["turn"], t["target"], t["standing"]) for t in shown["targets"]] == [
        (1, "well", "asked"),
        (None, "busy", "passed_over"),
    ]
    assert shown["targets"][0]["why"] == "answered this run last"
    assert shown["agent_id"] == "bot"
    status, out = await scene.cli("routes", "explain", "m")
    assert status == 0
    assert "second in the list" in out
    assert "passed over: open for 10 min after rate_limited" in out
    await scene.call("r", stream=True)
    assert scene.proxy.views()[-1].target == "well"

    asked = headers(x_run_id="other")
    async with scene.http.post(
        scene.proxy.url, data=json.dumps(ask() | {"model": "alone"}), headers=asked
    ) as reply:
        assert reply.status == 503

    async def nobody() -> bool:
        return 500 < ((await scene.admin("/routes/alone/explain"))["wait_s"] or 0) <= 600

    await until(nobody, "the only target of the model is known to rest")
    status, out = await scene.cli("routes", "explain", "alone")
    assert (status, out.splitlines()[-1]) == (
        0,
        "No target may be asked now; the first may be asked in 10 min.",
    )


async def test_each_worker_measures_its_targets(scene: Scene) -> None:
    await _all_asked(scene)

    async def is_open() -> bool:
        return await scene.gauge("llm_proxy_target_open", target="busy") == 1

    for _ in range(4):  # whichever worker answers
        await until(is_open, "the worker knows that the target rests")
    assert await scene.gauge("llm_proxy_target_open", target="well") == 0
    assert await scene.gauge("llm_proxy_target_in_flight", target="well") == 0
    assert await scene.gauge("llm_proxy_target_requests_last_minute", target="busy-too") == 0
    assert await scene.gauge("llm_proxy_target_latency_seconds", target="busy-too", stream="true") is None


async def test_every_attempt_is_on_the_record_the_screen_and_the_span(scene: Scene) -> None:
    await scene.call("r", stream=False)
    (view,) = scene.proxy.views()
    assert [(a.target, a.failure, a.status) for a in view.attempts] == [
        ("busy", "rate_limited", 429),
        ("well", "", 200),
    ]
    _, out = await scene.cli("calls", "show", view.id)
    assert "attempt 1" in out
    assert "busy (openai m), " in out
    assert "status 429: rate_limited" in out
    assert "✖ busy rate_limited" in out

    def sent() -> list[Span]:
        return [span for span in scene.spans.spans.values() if span.name.startswith("chat ")]

    await until(sent, "the span has come")
    (span,) = sent()
    events = [{a.key: a.value for a in event.attributes} for event in span.events]
    assert [event.name for event in span.events] == ["llm_proxy.attempt"] * 2
    assert [event["llm_proxy.target"].string_value for event in events] == ["busy", "well"]
    assert [event["http.response.status_code"].int_value for event in events] == [429, 200]
    assert events[0]["error.type"].string_value == "rate_limited"
    assert "error.type" not in events[1]
