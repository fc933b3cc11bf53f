"""A backend that fails in every way, at random, and is down for a while: every span is there in the end."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import select

from llm_proxy.records.tables import dead_letters
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.spans import spans_of
from tests.exported import NEVER_OPEN, POLICY, expected_spans, told_items, unsent
from tests.otlp_grpc_receiver import GrpcReceiver
from tests.otlp_receiver import OK, Answer, OtlpReceiver, attributes_of, encoded, partial
from tests.proxy import KEY, ProxyProcess, config, headers, target, until

SCRIPT = """
default:
  turns:
    - {when: {last_user_contains: fail}, status: 500}
    - when: {last_user_contains: tool}
      reasoning: I need the order.
      tool_calls: [{name: order_read, arguments: {id: o-7}}, {name: refund, arguments: {amount: 5}}]
    - {text: Hello}
"""
ADMIN = "an-admin-token-that-is-long-enough"
RETRY = {"retry-after": "0.1"}
FAULTS = (
    Answer(status=503),
    Answer(status=503, headers=RETRY),
    Answer(status=429, headers=RETRY),
    Answer(hang=True),
    Answer(close=True),
    Answer(store=True, close=True),
    Answer(store=True, cut=True, headers={"content-type": "application/x-protobuf"}),
    Answer(status=413),
    Answer(status=400),
    Answer(headers={"content-type": "application/x-protobuf"}, body=b"\xff\xff"),
    Answer(store=True, slow_s=0.2),
)


class Whims:
    """Every second request, or so, meets a fault; a partial success keeps a part of its spans."""

    def __init__(self, seed: int, share: float = 0.5) -> None:
        self._random, self._share = random.Random(seed), share

    def __call__(self, spans: list[Span]) -> Answer | None:
        if self._random.random() > self._share:
            return None
        at = self._random.randrange(len(FAULTS) + 1)
        if at < len(FAULTS):
            return FAULTS[at]
        rejected = self._random.randint(1, len(spans))
        told = partial(rejected)
        return Answer(headers=told.headers, body=told.body, keep=len(spans) - rejected)


@asynccontextmanager
async def _house(folder: Path, receiver: OtlpReceiver, protocol: str) -> AsyncGenerator[list[ProxyProcess]]:
    """Two proxies on one store."""
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            models={"m": {"targets": [target("up", upstream.base_url)], "retries": 0, "breaker": NEVER_OPEN}},
            telemetry={
                "otlp_endpoint": receiver.endpoint,
                "protocol": protocol,
                "timeout_s": 0.5,
                "metrics": False,
            },
            store=f"sqlite:///{folder / 'shared.db'}",
        )
        settings["server"] = settings.get("server", {}) | {"admin_token": ADMIN}
        folders = [folder / name for name in ("one", "two")]
        for one in folders:
            one.mkdir()
        async with (
            ProxyProcess(folders[0], settings, policy=POLICY) as one,
            ProxyProcess(folders[1], settings, policy=POLICY) as two,
        ):
            yield [one, two]


async def _calls(proxies: list[ProxyProcess], count: int, name: str) -> None:
    async with aiohttp.ClientSession() as http:
        room = asyncio.Semaphore(8)

        async def call(number: int) -> None:
            text = ("hi", "use a tool", "fail")[number % 3]
            body = {"model": "m", "messages": [{"role": "user", "content": f"{text} {number}"}]}
            head = headers(KEY, x_run_id=f"{name}-{number % 7}")
            async with room, http.post(proxies[number % 2].url, json=body, headers=head) as reply:
                await reply.read()

        await asyncio.gather(*(call(number) for number in range(count)))


def _letters(proxy: ProxyProcess) -> set[str]:
    with proxy.engine.connect() as connection:
        return set(connection.execute(select(dead_letters.c.call_id)).scalars())


def _check(proxy: ProxyProcess, receiver: OtlpReceiver) -> set[str]:
    """Each span exactly once in the set, none missing, none else; gives the dead letters' ids."""
    expected = expected_spans(proxy.engine)
    assert receiver.spans.keys() == expected.keys()
    letters, trimmed = _letters(proxy), dict[bytes, str]()
    for item in told_items(proxy.engine):
        bare = SpanSettings().without_content()
        for span, less in zip(spans_of(item, SpanSettings()), spans_of(item, bare), strict=True):
            allowed = {encoded(span)} | ({encoded(less)} if item.id in letters else set[bytes]())
            came = receiver.variants[span.span_id]
            assert came.keys() <= allowed, "a repeat differs from the span"
            if encoded(span) not in came:
                trimmed[span.span_id] = item.id
    assert set(trimmed.values()) <= letters, "what came without its content is no dead letter"
    return letters


@pytest.mark.parametrize(
    ("protocol", "seed", "kill"),
    [
        ("http/protobuf", 1, False),
        pytest.param("grpc", 2, False, marks=pytest.mark.soak),
        *(
            pytest.param(protocol, seed, True, marks=pytest.mark.soak)
            for protocol in ("http/protobuf", "grpc")
            for seed in range(3, 7)
        ),
    ],
)
async def test_every_span_is_there_once_whatever_the_backend_did(
    tmp_path: Path, protocol: str, seed: int, *, kill: bool
) -> None:
    receiver = GrpcReceiver() if protocol == "grpc" else OtlpReceiver()
    receiver.start()
    receiver.rule = Whims(seed)
    try:
        async with _house(tmp_path, receiver, protocol) as proxies:
            one, two = proxies
            await _calls(proxies, 12, "before")
            await asyncio.to_thread(receiver.stop)
            await _calls(proxies, 12, "down")
            if kill:
                one.kill9()
                await one.restart()
            await asyncio.to_thread(receiver.start)
            await _calls(proxies, 6, "after")
            await until(lambda: unsent(two.engine) == 0, "all was exported", 120)
            receiver.rule = None
            letters = _check(two, receiver)
            await _status_tells(tmp_path, two, letters)
            await _replayed_letters_come_whole(tmp_path, two, receiver)
            await _a_run_is_sent_again(tmp_path, two, receiver)
    finally:
        await asyncio.to_thread(receiver.stop)


async def _command(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    told = ("--json", "--config", str(folder / "two" / "proxy.yaml"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_proxy", "telemetry", *words, *told),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    assert out, err.decode()
    return process.returncode, json.loads(out)


def _admin() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"authorization": f"Bearer {ADMIN}"})


async def _status_tells(folder: Path, proxy: ProxyProcess, letters: set[str]) -> None:
    status, told = await _command(folder, "status", "--limit", "1000")
    assert status == 0
    assert {line["id"] for line in told["dead_letters"]} == letters
    assert (told["dead_letter_count"], told["unsent"], told["lag_s"]) == (len(letters), 0, 0.0)
    assert all(line["reason"] and line["run_id"] for line in told["dead_letters"])
    async with _admin() as http, http.get(f"{proxy.origin}/admin/telemetry?limit=1000") as reply:
        twin = await reply.json()
    assert twin["dead_letters"] == told["dead_letters"]


async def _replayed_letters_come_whole(folder: Path, proxy: ProxyProcess, receiver: OtlpReceiver) -> None:
    receiver.script(Answer(status=503))
    status, told = await _command(folder, "replay", "--dead-letters")
    assert (status, told["refused"], told["unsent"]) == (0, 0, ""), told
    assert _letters(proxy) == set()
    expected = expected_spans(proxy.engine)
    for span_id, span in expected.items():
        assert encoded(span) in receiver.variants[span_id]


async def _a_run_is_sent_again(folder: Path, proxy: ProxyProcess, receiver: OtlpReceiver) -> None:
    before = dict(receiver.seen)
    status, told = await _command(folder, "replay", "--run", "down-3")
    assert (status, told["refused"]) == (0, 0)
    again = {span_id for span_id, times in receiver.seen.items() if times > before[span_id]}
    of_run = {id_ for id_, span in receiver.spans.items() if attributes_of(span)["session.id"] == "down-3"}
    assert again == of_run
    assert told["spans"] == len(of_run) > 3
    receiver.rule = lambda _: Answer(status=400)
    status, told = await _command(folder, "replay", "--run", "down-3")
    assert (status, told["spans"], told["refused"]) == (1, 0, len(of_run))
    receiver.rule = None
    again_url = f"{proxy.origin}/admin/telemetry/replay"
    async with _admin() as http, http.post(again_url, json={"run": "down-3"}) as reply:
        twin = await reply.json()
    assert (twin["spans"], twin["refused"]) == (len(of_run), 0)


def test_the_faults_are_all_kinds_and_a_good_answer_stays() -> None:
    whims, span = Whims(1), Span(span_id=b"12345678")
    met = [whims([span, span]) or OK for _ in range(500)]
    assert {answer.status for answer in met} == {200, 400, 413, 429, 503}
    assert any(answer.keep for answer in met)
    assert 100 < sum(answer is OK for answer in met) < 400
