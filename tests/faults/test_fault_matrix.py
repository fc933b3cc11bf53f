"""Every failure of a target, whole and streamed, first and last in line: all that follows, on real sockets.

`fault_rows.ROWS` says what that is. Every cell has a model and targets of its own, and is called four times:
once to see what a call comes to, twice more for its breaker, and once for who is asked then. All cells are
called at the same time before the first test; the tests read what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio
from sqlalchemy import select

from llm_proxy.records.tables import breakers
from llm_proxy.records.view import CallView, CostLabel, Status
from tests.faults.fault_rows import CLOSED, COOL_DOWN_S, COUNTED, ROWS, THRESHOLD, Row
from tests.faults.fault_servers import ANSWERS, TEXT, FaultServers, fault_servers
from tests.heard import Heard, hear
from tests.proxy import KEY, ProxyProcess, config, target, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = 20 + 2 * 6
"""What the good target's reply costs, by the usage it reports."""
AT_ONCE = 16
CALLS = 4
NEAR_S = 3.0
"""How far a breaker's time may be from what the row says: two clocks, and whole seconds in headers."""


@dataclass(frozen=True)
class Cell:
    """One fault, streamed or not. `first`: a good target is behind it, else an absent model before it."""

    row: Row
    stream: bool
    first: bool

    @property
    def id(self) -> str:
        mode, place = "stream" if self.stream else "whole", "first" if self.first else "last"
        return f"{self.row.name}-{mode}-{place}".replace(" ", "-")

    @property
    def key(self) -> str:
        """Of the breaker of the target that fails."""
        return f"bad:{self.id}"


ANTHROPIC = ("Anthropic overload at the start", "Anthropic overload mid-stream")
CELLS = [Cell(row, stream, first) for row in ROWS for stream in row.modes for first in (True, False)]


@dataclass
class House:
    """What came of it all. Breakers: the time (Unix µs) until which each is open, by key."""

    proxy: ProxyProcess
    servers: FaultServers
    heard: dict[str, list[Heard]] = field(default_factory=dict[str, list[Heard]])
    after_one: dict[str, int | None] = field(default_factory=dict[str, int | None])
    after_three: dict[str, int | None] = field(default_factory=dict[str, int | None])
    views: dict[str, CallView] = field(default_factory=dict[str, CallView])

    def view(self, cell: Cell, call: int = 0) -> CallView:
        return self.views[self.heard[cell.id][call].call_id]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    folder: Path = tmp_path_factory.mktemp("matrix")
    async with fault_servers(folder) as servers, ProxyProcess(folder, _config(servers)) as proxy:
        house = House(proxy, servers)
        async with proxy.sdk() as sdk:
            await _call_all(house, sdk)
            house.after_one = await _breakers(proxy, sdk, "limit-1")
            await _call_all(house, sdk)
            await _call_all(house, sdk)
            house.after_three = await _breakers(proxy, sdk, "limit-2")
            await _call_all(house, sdk)
        await proxy.settled()
        house.views = {view.id: view for view in proxy.views()}
        yield house


def _config(servers: FaultServers) -> dict[str, Any]:
    models = {cell.id: _model(cell, servers) for cell in CELLS}
    for name in ("limit-1", "limit-2"):
        limited = target(name, servers.raw.base_url, "429 Retry-After in seconds")
        models[name] = {"targets": [limited], "retries": 0}
    for n, name in enumerate(ANTHROPIC):
        bad = target(f"messages:{n}", servers.raw.base_url, name) | {"provider": "anthropic"}
        models[name] = {"targets": [bad, target(f"good:{n}", servers.raw.base_url, "good")], "retries": 0}
    price = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    return config(
        "",
        models=models,
        prices=dict.fromkeys([*ANSWERS, *servers.elsewhere], price),
        budgets=[{"id": "day", "window": "day", "usd": 5, "requests": 9_000, "tokens": 10**8}],
    )


def _model(cell: Cell, servers: FaultServers) -> dict[str, Any]:
    row = cell.row
    bad = target(cell.key, servers.base_url(row.name), row.name) | {"provider": row.provider}
    good = target("good", servers.raw.base_url, "good")
    absent = target("absent", servers.raw.base_url, "absent")
    return {
        "targets": [bad, good | {"id": f"good:{cell.id}"}]
        if cell.first
        else [absent | {"id": f"absent:{cell.id}"}, bad],
        "retries": 1,
        "breaker": {"failures": THRESHOLD, "cool_down_s": COOL_DOWN_S},
        "timeouts": row.timeouts,
    }


async def _call_all(house: House, sdk: openai.AsyncOpenAI) -> None:
    """Every cell once; those that wait do so all at the same time, beside the others."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(cell: Cell) -> None:
        async with contextlib.nullcontext() if cell.row.waits else places:
            house.heard.setdefault(cell.id, []).append(await hear(sdk, cell.id, stream=cell.stream))

    async with asyncio.TaskGroup() as group:
        for cell in CELLS:
            group.create_task(one(cell))


async def _breakers(proxy: ProxyProcess, sdk: openai.AsyncOpenAI, limited: str) -> dict[str, int | None]:
    """Every breaker that the store knows, once it has heard of one that opens now: it's told in order."""

    def stored() -> dict[str, int | None]:
        with proxy.engine.connect() as connection:
            rows = connection.execute(select(breakers.c.key, breakers.c.until_us)).all()
        return {row.key: row.until_us for row in rows}

    heard = await hear(sdk, limited, stream=False)
    assert heard.told == (503, "upstream_unavailable")
    await until(lambda: limited in stored(), "the store knows the open breakers")
    return stored()


def _attempts(view: CallView) -> list[tuple[str, str]]:
    return [(attempt.target.split(":")[0], attempt.failure) for attempt in view.attempts]


def _ended_us(view: CallView) -> float:
    """When the last attempt at the failing target ended, in Unix µs."""
    return view.started_us + 1e6 * max(a.ended_s for a in view.attempts if a.target.startswith("bad:"))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
async def test_what_the_caller_sees(house: House, cell: Cell) -> None:
    row, heard, view = cell.row, house.heard[cell.id][0], house.view(cell)
    if cell.first and row.onward:
        assert (heard.error, heard.text) == (None, TEXT)
        assert view.status is Status.OK
        return
    assert heard.told == (row.status, row.code)
    assert heard.text == row.said
    assert view.status is Status.FAILED
    assert "sk-" not in str(heard.error)
    if isinstance(row.breaker, int):
        assert abs(int(heard.headers["retry-after"]) - row.breaker) <= NEAR_S
    elif row.status == 503:
        assert heard.headers["retry-after"] == "1"


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
async def test_who_is_asked_how_often(house: House, cell: Cell) -> None:
    row = cell.row
    failing = [("bad", row.failure)] * row.asked
    if not cell.first:
        expected = [("absent", "not_found"), *failing]
    else:
        expected = [*failing, ("good", "")] if row.onward else failing
    assert _attempts(house.view(cell)) == expected
    assert house.heard[cell.id][0].headers["x-attempts"] == str(len(expected))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
async def test_what_is_charged(house: House, cell: Cell) -> None:
    """An estimate of what a failed attempt used makes the whole sum partial; what it told itself doesn't."""
    row, view = cell.row, house.view(cell)
    answered = cell.first and row.onward
    assert view.cost_micro_usd == row.charged + (GOOD if answered else 0)
    if row.charged and not row.told:
        assert view.cost_label is CostLabel.PARTIAL
    else:
        assert view.cost_label is (CostLabel.REPORTED if answered or row.told else None)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
async def test_what_the_breaker_does(house: House, cell: Cell) -> None:
    row, views = cell.row, [house.view(cell, call) for call in range(CALLS)]
    asked = [sum(attempt.target == cell.key for attempt in view.attempts) for view in views]
    after_one, after_three = house.after_one.get(cell.key), house.after_three.get(cell.key)
    if row.breaker == CLOSED:
        assert (after_one, after_three) == (None, None)
        assert asked == [row.asked] * CALLS
        return
    if row.breaker == COUNTED:
        assert after_one is None
        assert asked == ([2, 1, 0, 0] if row.asked == 2 else [1, 1, 1, 0])
        opened, seconds = views[1 if row.asked == 2 else 2], COOL_DOWN_S
    else:
        assert isinstance(row.breaker, int)
        assert after_one == after_three
        assert asked == [1, 0, 0, 0]
        opened, seconds = views[0], row.breaker
    assert after_three is not None
    assert abs((after_three - _ended_us(opened)) / 1e6 - seconds) <= NEAR_S


async def test_the_ledger_has_what_the_records_have(house: House) -> None:
    views = house.proxy.views()
    assert len(views) >= CALLS * len(CELLS)
    assert house.proxy.used("day", "micro_usd") == sum(view.cost_micro_usd for view in views)
    assert house.proxy.held_amounts() == 0


async def test_every_request_that_arrived_is_an_attempt_on_record(house: House) -> None:
    made = Counter(attempt.model for view in house.proxy.views() for attempt in view.attempts)
    assert {name: house.servers.asked(name) for name in ANSWERS} == {name: made[name] for name in ANSWERS}


async def _on_messages(house: House, model: str) -> tuple[str, anthropic.APIStatusError | None, CallView]:
    """What an agent on Anthropic's SDK has of a stream in the end, and its call."""
    text, error = "", None
    async with anthropic.AsyncAnthropic(base_url=house.proxy.origin, api_key=KEY, max_retries=0) as sdk:
        raw = await sdk.messages.with_raw_response.create(
            model=model, max_tokens=50, messages=[{"role": "user", "content": "hi"}], stream=True
        )
        try:
            async for event in await raw.parse():
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    text += event.delta.text
        except anthropic.APIStatusError as raised:
            error = raised
    return text, error, house.proxy.view(raw.headers["x-call-id"])


async def test_messages_overloaded_before_a_word(house: House) -> None:
    """The agent speaks the failing target's own dialect; the next target takes over in it."""
    text, error, view = await _on_messages(house, ANTHROPIC[0])
    assert (text, error) == (TEXT, None)
    assert [(a.target, a.failure) for a in view.attempts] == [("messages:0", "overloaded"), ("good:0", "")]
    assert (view.cost_micro_usd, view.cost_label) == (22 + GOOD, CostLabel.REPORTED)


async def test_messages_overloaded_behind_words(house: House) -> None:
    """Nobody takes over, and the agent is told in the vendor's own way."""
    text, error, view = await _on_messages(house, ANTHROPIC[1])
    assert (text, error and error.type) == ("one two three", "overloaded_error")
    assert [(a.target, a.failure) for a in view.attempts] == [("messages:1", "overloaded")]
    assert (view.cost_micro_usd, view.cost_label) == (20 + 2 * 3, CostLabel.PARTIAL)
