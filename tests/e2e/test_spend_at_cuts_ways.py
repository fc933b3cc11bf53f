"""Cuts in every way that a call can go: two targets at once or one after the other, drained, not counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView, CostLabel, Status
from tests.proxy import KEY, OTHER_KEY, ProxyProcess, config, headers, target
from tests.raw_upstream import Answer, raw_upstream
from tests.unit.pictures import encoded, png

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = ["one ", "two ", "three ", "four"]
MOST = 50
PRICE = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PICTURE = "data:image/png;base64," + encoded(png(1_024, 1_024))


def _chunk(delta: dict[str, Any]) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


FRAMES = [_chunk({"role": "assistant", "content": ""}), *[_chunk({"content": word}) for word in WORDS]]


def answer(body: bytes) -> Answer:
    """`cut N` hangs up behind so many frames, `stall N` falls silent, and the first may be slow to begin."""
    asked = json.loads(body)
    name: str = asked["model"]
    if "input" in asked:
        return [30.0]
    told = json.dumps(asked["messages"])
    how = "stall" if "stall" in told else "cut"
    count = int(told.partition(how + " ")[2][0])
    silent: list[bytes | float] = [0.15] if name == "slow" else []
    return [*silent, HEAD, *FRAMES[:count], *([30.0] if how == "stall" else [])]


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess

    async def ask(self, model: str, said: Any, *, run: str, key: str = KEY, leaves: bool = False) -> CallView:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": said}],
            "stream": True,
            "max_completion_tokens": MOST,
        }
        return await self.send("/chat/completions", body, run=run, key=key, leaves=leaves)

    async def send(self, path: str, body: dict[str, Any], *, run: str, key: str, leaves: bool) -> CallView:
        async with aiohttp.ClientSession() as http:
            asking = http.post(self.proxy.base_url + path, json=body, headers=headers(key, x_run_id=run))
            with contextlib.suppress(TimeoutError, aiohttp.ClientError):
                async with asyncio.timeout(0.6 if leaves else 20), asking as reply:
                    await reply.read()
        await self.proxy.settled()
        (view,) = self.proxy.views(run=run)
        return view

    def used(self, run: str) -> dict[str, int]:
        rows = [row for key, row in self.proxy.counters().items() if key.endswith(f"|run:{run}")]
        (row,) = rows
        return row


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with raw_upstream(answer) as upstream:

        def model(name: str, *served: str, **more: Any) -> dict[str, Any]:
            targets = [target(f"{name}-{each}", upstream.base_url, each) for each in served]
            return {name: {"targets": targets, "retries": 0, "breaker": {"failures": 1_000}, **more}}

        most = {"usd": 5, "tokens": 10**6, "input_tokens": 10**6, "output_tokens": 10**6}
        settings = config(
            upstream.base_url,
            models=model("plain", "fast")
            | model("hedged", "slow", "fast", hedge_after=0.05)
            | model("continued", "fast", "other", on_cut="continue")
            | model("drained", "fast", on_leave="drain", timeouts={"first_event_s": 1, "idle_s": 1})
            | model("again", "fast", retries=2),
            agents={
                "bot": {"keys": [KEY], "models": ["*"]},
                "uncounted": {"keys": [OTHER_KEY], "models": ["*"]},
            },
            prices=dict.fromkeys(("fast", "slow", "other"), PRICE),
            budgets=[
                {"id": "bot-run", "agent": "bot", "window": "run", **most},
                {"id": "other-run", "agent": "uncounted", "window": "run", "requests": 9},
            ],
        )
        async with ProxyProcess(tmp_path_factory.mktemp("ways"), settings) as proxy:
            yield House(proxy)


def check(house: House, view: CallView) -> None:
    used, told = house.used(view.run_id), f"{view.run_id}: {view.usage} {view.cost_micro_usd} of {view.held}"
    assert view.usage is not None, told
    assert view.cost_label is CostLabel.PARTIAL, told
    assert 0 < used["used_micro_usd"] == view.cost_micro_usd <= view.held["micro_usd"], told
    assert 0 < used["used_input_tokens"] == view.usage.input <= view.held["input_tokens"], told
    assert used["used_tokens"] == view.usage.total, told
    assert view.usage.output <= view.held.get("output_tokens", 0), told
    assert house.proxy.held_amounts() == 0


@pytest.mark.parametrize("frames", range(len(FRAMES) + 1))
@pytest.mark.parametrize("how", ["cut", "stall"])
@pytest.mark.parametrize("model", ["plain", "hedged", "continued", "drained", "again"])
async def test_spend_at_every_frame(house: House, model: str, how: str, frames: int) -> None:
    run = f"{model}-{how}-{frames}"
    view = await house.ask(model, f"{how} {frames} please", run=run, leaves=how == "stall")
    assert view.status in (Status.CLIENT_GONE, Status.FAILED)
    check(house, view)
    if frames > 1:
        assert view.usage is not None
        assert view.usage.output >= frames - 1 or model in ("continued", "again")


async def test_a_prompt_of_pictures_alone(house: House) -> None:
    parts = [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "stall 2"}]
    view = await house.ask("plain", parts, run="pictures", leaves=True)
    check(house, view)
    assert view.usage is not None
    assert view.usage.input > 765


@pytest.mark.parametrize("frames", [0, 3])
async def test_what_was_not_counted_before_is_counted_at_the_cut(house: House, frames: int) -> None:
    run = f"uncounted-{frames}"
    view = await house.ask("plain", f"stall {frames} " + "word " * 40, run=run, key=OTHER_KEY, leaves=True)
    assert (view.status, view.cost_label) == (Status.CLIENT_GONE, CostLabel.PARTIAL)
    assert view.usage is not None
    assert view.usage.input > 40
    assert (view.usage.output == 0) is (frames == 0)
    assert view.cost_micro_usd == view.usage.input + 2 * view.usage.output


async def test_embeddings_that_nobody_waits_for(house: House) -> None:
    asked = {"model": "plain", "input": ["word " * 30, "more"]}
    view = await house.send("/embeddings", asked, run="embedded", key=KEY, leaves=True)
    assert view.status is Status.CLIENT_GONE
    check(house, view)
    assert view.usage is not None
    assert (view.usage.input > 30, view.usage.output) == (True, 0)
