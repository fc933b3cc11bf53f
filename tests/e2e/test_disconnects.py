"""Clients that leave: the upstream is stopped, what flowed is charged and recorded, nothing stays held."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView, CostLabel, Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, Stats, running
from tests.proxy import KEY, ProxyProcess, ask, config, target, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_S = 15.0
WORDS = 8
FRAMES = 1 + WORDS + 3
"""Role, words, finish, usage, end marker."""
TEXT = "one two three four five six seven eight"
_STALLS = "models:\n" + "".join(
    f"  stall-{n}: {{turns: [{{text: {TEXT}, usage: {{input: 40, output: 9}}, stall_after: {n}}}]}}\n"
    for n in range(FRAMES)
)
SCRIPT = f"""{_STALLS}
  slow: {{turns: [{{text: hi, latency_s: 60}}]}}
  busy: {{turns: [{{status: 500, retry_after: 7}}]}}
  calls: {{turns: [{{tool_calls: [{{name: f, arguments: {{q: a long enough argument}}}}], stall_after: 4}}]}}
  m: {{turns: [{{text: hello there, usage: none}}]}}
"""


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Scripted

    async def seen(self, holds: Callable[[Stats], bool]) -> None:
        """Waits until the upstream has seen that."""
        await _seen(self.upstream, holds)


async def _seen(upstream: Scripted, holds: Callable[[Stats], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await upstream.until(holds)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with running(parse_script(SCRIPT)) as upstream:
        names = [*(f"stall-{n}" for n in range(FRAMES)), "slow", "busy", "calls", "m"]
        price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
        settings = config(
            upstream.base_url,
            models={
                name: {
                    "targets": [target(name, upstream.base_url, name)],
                    "retries": 3 if name == "busy" else 0,
                }
                for name in names
            },
            prices=dict.fromkeys(names, price),
            budgets=[{"id": "day", "window": "day", "usd": 5, "requests": 900, "tokens": 10**7}],
        )
        policy = {"policy": {"id": "p", "version": 1}, "posture": {"fallback": "allow"}}
        async with ProxyProcess(tmp_path_factory.mktemp("leave"), settings, policy=policy) as proxy:
            yield House(proxy, upstream)


class Client:
    """A bare HTTP client that can leave at any byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.got = b""

    @classmethod
    async def send(cls, proxy: ProxyProcess, run: str, **asked: Any) -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", proxy.port))
        body = json.dumps(ask(**asked)).encode()
        lines = ["POST /v1/chat/completions HTTP/1.1", "host: x", f"authorization: Bearer {KEY}"]
        head = "\r\n".join([*lines, f"x-run-id: {run}", f"content-length: {len(body)}", "", ""])
        client._writer.write(head.encode() + body)
        return client

    async def read_frames(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.got.count(b"\n\n") < count:
                chunk = await self._reader.read(65_536)
                assert chunk, f"the proxy closed the connection after {self.got!r}"
                self.got += chunk

    async def leave(self, *, reset: bool) -> None:
        """Hangs up, as a killed process (reset) or as one that closes its socket."""
        if reset:
            self._writer.transport.abort()
        else:
            self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return

    @property
    def frames(self) -> bytes:
        """The events that came, without the chunked framing around them."""
        body = self.got.partition(b"\r\n\r\n")[2]
        frames = b""
        while body:
            size, _, rest = body.partition(b"\r\n")
            frames += rest[: int(size, 16)]
            body = rest[int(size, 16) + 2 :]
        return frames


async def _ended(house: House, run: str, gone: int) -> CallView:
    """The record of the run's one call, once it has ended and the upstream saw its connection close."""
    await house.seen(lambda stats: stats.client_gone > gone)
    await until(
        lambda: [v for v in house.proxy.views(run=run) if v.status is not Status.OPEN], f"{run} ended"
    )
    await until(lambda: house.proxy.held() == 0, "no hold is left")
    assert house.proxy.held_amounts() == 0
    (view,) = house.proxy.views(run=run)
    return view


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("sent", range(FRAMES))
async def test_a_client_leaves_at_every_frame(house: House, sent: int, reset: bool) -> None:
    """The upstream has sent so many frames, then is silent: who leaves then is the client."""
    run, before, gone = (
        f"frame-{sent}-{reset}",
        house.proxy.used("day", "micro_usd"),
        house.upstream.stats.client_gone,
    )
    requests = house.upstream.stats.total
    client = await Client.send(house.proxy, run, model=f"stall-{sent}", stream=True)
    visible = min(sent, 1 + WORDS)  # what ends the reply waits for the record
    if sent > 1:
        await client.read_frames(visible)
    else:
        await house.seen(lambda stats: stats.total > requests)
    await client.leave(reset=reset)
    view = await _ended(house, run, gone)
    said = max(0, min(sent - 1, WORDS))
    assert view.status is Status.CLIENT_GONE
    assert view.problem is not None
    assert view.problem.kind == "client_gone"
    assert view.usage is not None
    assert view.usage.input > 0
    assert view.usage.output >= said
    assert view.cost_label is CostLabel.PARTIAL
    assert view.cost_micro_usd == view.usage.input + 2 * view.usage.output
    assert house.proxy.used("day", "micro_usd") - before == view.cost_micro_usd
    if sent == FRAMES - 1:
        assert (view.usage.input, view.usage.output) == (40, 9), "what was reported counts"
    received = view.emitted if view.released is None else view.released
    assert (received or b"").startswith(client.frames), "the client received what is not recorded"
    assert [(a.failure, a.status) for a in view.attempts] == [("client_gone", 200 if sent else None)]


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_leaves_before_any_answer(house: House, reset: bool, stream: bool) -> None:
    run, gone, requests = (
        f"slow-{reset}-{stream}",
        house.upstream.stats.client_gone,
        house.upstream.stats.total,
    )
    client = await Client.send(house.proxy, run, model="slow", stream=stream)
    await house.seen(lambda stats: stats.total > requests)
    await client.leave(reset=reset)
    view = await _ended(house, run, gone)
    assert view.status is Status.CLIENT_GONE
    assert view.usage is not None
    assert view.usage.input > 0
    assert view.cost_micro_usd == view.usage.input, "the upstream had the prompt: it may charge for it"


async def test_a_client_leaves_while_a_tool_call_is_held(house: House) -> None:
    run, gone = "calls", house.upstream.stats.client_gone
    client = await Client.send(house.proxy, run, model="calls", stream=True)
    await client.read_frames(1)
    await client.leave(reset=True)
    view = await _ended(house, run, gone)
    assert view.status is Status.CLIENT_GONE
    assert view.usage is not None
    assert view.usage.output > 2, "tokens of the held call count"
    assert b"tool_calls" not in client.frames
    assert b"long" not in (view.released or b"")


async def test_a_client_leaves_between_two_attempts(house: House) -> None:
    requests = house.upstream.stats.total
    client = await Client.send(house.proxy, "busy", model="busy", stream=True)
    await house.seen(lambda stats: stats.total > requests and not stats.in_flight)
    await asyncio.sleep(0.1)
    await client.leave(reset=False)
    await until(lambda: house.proxy.views(run="busy")[0].status is not Status.OPEN, "the call ended", 5)
    await house.proxy.settled()
    (view,) = house.proxy.views(run="busy")
    assert (view.status, view.cost_micro_usd) == (Status.CLIENT_GONE, 0), "a 500 costs nothing"
    assert house.upstream.stats.total == requests + 1


async def test_a_hundred_clients_leave_at_once(house: House) -> None:
    gone = house.upstream.stats.client_gone
    clients = [
        await Client.send(house.proxy, f"many-{n}", model=f"stall-{2 + n % WORDS}", stream=True)
        for n in range(100)
    ]
    await asyncio.gather(*(client.read_frames(2) for client in clients))
    await asyncio.gather(*(client.leave(reset=n % 2 == 0) for n, client in enumerate(clients)))
    await house.seen(lambda stats: stats.client_gone >= gone + 100)
    await house.proxy.settled()
    views = [view for n in range(100) for view in house.proxy.views(run=f"many-{n}")]
    assert [view.status for view in views] == [Status.CLIENT_GONE] * 100
    assert min(view.cost_micro_usd for view in views) > 0
    assert house.proxy.held_amounts() == 0


async def test_a_client_leaves_while_its_reply_is_counted(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Without usage and without limits, tokens are first counted at the end, which loads the encoding."""
    async with running(parse_script(SCRIPT)) as upstream:
        folder = tmp_path_factory.mktemp("counted")
        async with ProxyProcess(folder, config(upstream.base_url)) as proxy:
            client = await Client.send(proxy, "counted")
            await _seen(upstream, lambda stats: stats.total == 1 and not stats.in_flight)
            await client.leave(reset=True)
            await until(lambda: proxy.views(run="counted"), "the call is recorded")
            await proxy.settled()
            (view,) = proxy.views(run="counted")
            assert view.status in (Status.CLIENT_GONE, Status.OK)
            assert view.usage is not None
            assert view.usage.output > 0
            assert view.cost_micro_usd > 0
