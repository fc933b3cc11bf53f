"""Clients that leave at every frame, and upstreams cut at every frame, in every dialect.

Spend is never 0 where tokens flowed, never more than the hold, labelled, and the same in the record and the
ledger to the micro-dollar.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from llm_proxy.records.view import CallView, CostLabel, Status
from tests.e2e.cut_upstream import GOLDEN, Stop, Stops, asked, frames_of
from tests.e2e.dialect_agents import speaking
from tests.proxy import KEY, ProxyProcess, config
from tests.raw_upstream import raw_upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_ONCE = 24
PATIENCE_S = 30.0
MOST = 600
"""Tokens that a reply may have; no fixture reports more."""
PADDING = "word " * 3_000
LONG_PADDING = "word " * 12_000
READS_MUCH = "anthropic_messages/web_search"
PRICE = {
    "input_cost_per_token": 1e-6,
    "cache_read_input_token_cost": 1e-7,
    "output_cost_per_token": 2e-6,
    "output_cost_per_reasoning_token": 3e-6,
}
DIALECTS = ("openai_chat", "openai_responses", "anthropic_messages", "openai_completions")
FIXTURES = {
    dialect: sorted(f"{dialect}/{path.stem}" for path in (GOLDEN / dialect).glob("*.sse"))
    for dialect in DIALECTS
}
TRANSLATED = (
    ("openai_chat", "anthropic_messages/thinking"),
    ("openai_chat", "openai_responses/calls"),
    ("anthropic_messages", "openai_chat/deepseek"),
    ("openai_responses", "openai_chat/openai"),
    ("openai_responses", "anthropic_messages/redacted"),
)
FAILS_ITSELF = ("anthropic_messages/overloaded", "openai_responses/failed")
"""Streams that end in the server's own error."""


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    stops: Stops

    async def make(self, stop: Stop) -> None:
        """One call, to where it stops."""
        padding = LONG_PADDING if stop.fixture == READS_MUCH else PADDING
        path, body = asked(stop, stop.dialect, padding, MOST)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.port)
        lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {KEY}", f"x-run-id: {stop.run}"]
        writer.write("\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body)
        try:
            async with asyncio.timeout(PATIENCE_S):
                if stop.how == "cut":
                    await self._read_all(reader)
                else:
                    await self.stops.reached(stop).wait()
                    await self._read_until_silent(reader)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _read_all(self, reader: asyncio.StreamReader) -> None:
        """All of the reply, which ends without its last chunk where it failed under way."""
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            chunk = await reader.read(65_536)
            got += chunk
            if not chunk or b"HTTP/1.1 5" in got[:12]:
                return

    async def _read_until_silent(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.05):
                    if not await reader.read(65_536):
                        return

    async def make_all(self, stops: Iterable[Stop]) -> dict[str, CallView]:
        """All of them, many at once; their records, by run."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(stop: Stop) -> None:
            async with gate:
                await self.make(stop)

        await asyncio.gather(*map(one, stops))
        await self.proxy.settled()
        return {view.run_id: view for view in self.proxy.views()}

    def used(self) -> dict[str, dict[str, int]]:
        """What the ledger says each run used."""
        found: dict[str, dict[str, int]] = {}
        for key, row in self.proxy.counters().items():
            limit, *parts = key.split("|")
            if limit == "each":
                found[parts[-1].removeprefix("run:")] = {
                    name[5:]: most for name, most in row.items() if name.startswith("used_")
                }
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["plain", "judged"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    """`judged`: a policy is in force, so that tool calls wait until all of them have come."""
    stops = Stops()
    policy = {"policy": {"id": "p", "version": 1}, "posture": {"fallback": "allow"}}
    async with raw_upstream(stops) as upstream:
        origin = upstream.base_url.removesuffix("/v1")
        most = {"usd": 5, "tokens": 10**7, "input_tokens": 10**7, "output_tokens": 10**7, "requests": 10}
        settings = config(
            upstream.base_url,
            models={
                name: {
                    "targets": [speaking(name, name, origin)],
                    "retries": 0,
                    "breaker": {"failures": 1_000},
                }
                for name in DIALECTS
            },
            prices={"m": PRICE},
            budgets=[{"id": "each", "window": "run", **most}, {"id": "all", "window": "lifetime", **most}],
        )
        settings["budgets"][1] |= {"usd": 1_000, "tokens": 10**9, "input_tokens": 10**9, "requests": 10**6}
        folder = tmp_path_factory.mktemp("cuts")
        judged = policy if request.param == "judged" else None
        async with ProxyProcess(folder, settings, policy=judged) as proxy:
            yield House(proxy, stops)


def stops_of(callers: Iterable[tuple[str, str]], how: str) -> list[Stop]:
    return [
        Stop(fixture, frames, how, caller)
        for caller, fixture in callers
        for frames in range(len(frames_of(fixture)) + 1)
    ]


SETS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    dialect: lambda dialect=dialect: [(dialect, fixture) for fixture in FIXTURES[dialect]]
    for dialect in DIALECTS
} | {"translated": lambda: list(TRANSLATED)}


@pytest.mark.parametrize("how", ["cut", "stall"], ids=["upstream-cut", "client-leaves"])
@pytest.mark.parametrize("name", SETS)
async def test_spend_at_every_frame(house: House, name: str, how: str) -> None:
    stops = stops_of(SETS[name](), how)
    views = await house.make_all(stops)
    used = house.used()
    for stop in stops:
        check(stop, views[stop.run], used.get(stop.run, {}))
    labels = Counter(views[stop.run].cost_label for stop in stops)
    assert labels[CostLabel.PARTIAL] > len(stops) / 2
    assert house.proxy.held_amounts() == 0
    total = sum(view.cost_micro_usd for view in views.values())
    assert house.proxy.used("all", "micro_usd") == house.proxy.used("each", "micro_usd") == total


def check(stop: Stop, view: CallView, used: dict[str, int]) -> None:
    told = f"{stop.run}: {view.status} {view.problem} {view.usage} {view.cost_micro_usd} held {view.held}"
    assert view.status in (Status.OK, Status.FAILED, Status.CLIENT_GONE), told
    assert used.get("requests") == 1, told
    assert used.get("micro_usd", 0) == view.cost_micro_usd, told
    usage = view.usage
    assert used.get("tokens", 0) == (usage.total if usage else 0), told
    assert used.get("tokens", 0) == used.get("input_tokens", 0) + used.get("output_tokens", 0), told
    for unit in ("micro_usd", "input_tokens", "output_tokens"):
        assert used.get(unit, 0) <= view.held[unit], told
    whole = stop.frames == len(frames_of(stop.fixture))
    if stop.flowed() or not (whole and stop.fixture in FAILS_ITSELF):
        assert view.cost_micro_usd > 0, told
        assert used["input_tokens"] > 0, told
        assert view.cost_label in (CostLabel.REPORTED, CostLabel.ESTIMATED, CostLabel.PARTIAL), told
    if whole and stop.flowed() and view.status is Status.OK and usage is not None:
        assert usage.output > 0 or stop.fixture.endswith("refusal"), told
