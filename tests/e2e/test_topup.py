"""Streams hold what is expected of them, and more as they go: many run at once, and no limit is passed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import URL

from llm_proxy.records.view import CostLabel, Status
from tests.e2e.growing_house import CALLERS, LARGEST, LONG, REPORTED, House, growing, watched
from tests.proxy import until

pytest_plugins = ["tests.postgres"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

CROWD = 20
ROOM = 60_000
"""Tokens of a limit which two worst cases would pass."""
TIGHT = 3_000
WIDE = 20_000
BUDGETS: list[dict[str, Any]] = [
    *({"agent": f"crowd-{caller}", "tokens": ROOM} for caller in CALLERS),
    {"agent": "worst", "tokens": ROOM},
    *({"agent": f"long-{caller}", "tokens": WIDE} for caller in CALLERS),
    *({"agent": f"tight-{caller}", "tokens": TIGHT} for caller in CALLERS),
    {"agent": "dollars", "usd": 0.006},
    {"agent": "several", "output_tokens": 20_000},
    {"agent": "gate", "tokens": TIGHT, "tool_calls": 9},
    {"agent": "drained", "tokens": WIDE},
    {"agent": "capped", "tokens": WIDE},
    {"agent": "fallen", "tokens": WIDE},
    {"agent": "hedged", "tokens": 10**6},
    {"agent": "small", "tokens": 500},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite-1", "postgresql-2"])
async def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("growing")
    if request.param == "sqlite-1":
        async with growing(folder, BUDGETS) as made:
            yield made
        return
    from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

    server: URL = request.getfixturevalue("postgres_server")
    with fresh_database(server) as url:
        store = url.render_as_string(hide_password=False)
        async with growing(folder, BUDGETS, workers=2, store=store) as made:
            yield made


@pytest.mark.parametrize("dialect", CALLERS)
async def test_a_crowd_runs_where_worst_cases_would_not(house: House, dialect: str) -> None:
    callers = [house.caller(f"crowd-{dialect}", dialect) for _ in range(CROWD)]
    await asyncio.gather(*(caller.asks("short") for caller in callers))
    assert {(caller.said, caller.error) for caller in callers} == {("so on " * 100, None)}
    await house.proxy.settled()
    views = house.proxy.views(agent=f"crowd-{dialect}")
    assert {view.held["output_tokens"] for view in views} == {1_024}
    assert {tuple(view.topped_up) for view in views} == {()}
    assert house.tokens(f"crowd-{dialect}") == (sum(v.usage.total for v in views if v.usage), 0)


async def test_worst_cases_are_refused_where_a_crowd_runs(house: House) -> None:
    callers = [house.caller("worst", CALLERS[0], "w") for _ in range(CROWD)]
    await asyncio.gather(*(caller.asks("short") for caller in callers))
    answered = [caller for caller in callers if caller.error is None]
    assert 1 <= len(answered) <= 2
    assert {caller.error.code for caller in callers if caller.error} == {"budget_exceeded"}
    assert max(view.held.get("output_tokens", 0) for view in house.proxy.views(agent="worst")) == LARGEST


@pytest.mark.parametrize("dialect", CALLERS)
async def test_a_long_stream_holds_more_and_more(house: House, dialect: str) -> None:
    agent = f"long-{dialect}"
    caller = house.caller(agent, dialect)
    held = await watched(house, agent, asyncio.create_task(caller.asks("go on")), WIDE)
    assert (caller.said, caller.error) == ("so on " * (LONG // 2), None)
    assert held == sorted(held)
    assert len(held) >= 3, "it was topped up several times"
    await house.proxy.settled()
    view = house.only_view(agent)
    assert view.usage is not None
    assert (view.usage.output, view.cost_label) == (REPORTED, CostLabel.REPORTED)
    assert house.tokens(agent) == (view.usage.total, 0)
    assert view.held["output_tokens"] == 1_024
    assert view.topped_up["output_tokens"] == held[-1] - held[0]
    assert view.topped_up["micro_usd"] == 2 * view.topped_up["output_tokens"]


@pytest.mark.parametrize("dialect", CALLERS)
async def test_a_refused_top_up_ends_the_stream_in_band(house: House, dialect: str) -> None:
    agent, gone = f"tight-{dialect}", house.upstream.stats.client_gone
    caller = house.caller(agent, dialect)
    await watched(house, agent, asyncio.create_task(caller.asks("go on")), TIGHT)
    assert len(caller.said) > 1_000
    assert f"'{agent}'" in str(caller.error.message)
    assert "The reply ends here" in str(caller.error.message)
    assert "budget_exceeded" in str(caller.error.body)
    await house.proxy.settled()
    await until(lambda: house.upstream.stats.client_gone > gone, "the upstream was hung up on")
    view = house.only_view(agent)
    assert (view.status, view.cost_label) == (Status.FAILED, CostLabel.PARTIAL)
    assert view.problem is not None
    assert (view.problem.kind, view.problem.status) == ("budget_exceeded", 429)
    used, held = house.tokens(agent)
    assert held == 0
    assert len(caller.said) / 3 <= used <= TIGHT
    assert view.usage is not None
    assert view.usage.total == used


async def test_a_limit_in_dollars_ends_it_too(house: House) -> None:
    """$0.006 are 3,000 tokens less the prompt."""
    caller = await house.caller("dollars", CALLERS[0]).asks("go on")
    assert caller.error.code == "budget_exceeded"
    assert 2_900 <= len(caller.said) / 3 <= 3_000
    await house.proxy.settled()
    assert house.proxy.used("dollars", "micro_usd") <= 6_000


async def test_several_streams_share_what_is_left(house: House) -> None:
    """20,000 tokens for five streams of 6,000: whoever is refused ends, and what ends gives back the rest."""
    callers = [house.caller("several", CALLERS[0]) for _ in range(5)]
    await asyncio.gather(*(caller.asks("go on") for caller in callers))
    whole = [caller for caller in callers if caller.error is None]
    assert {caller.said for caller in whole} <= {"so on " * (LONG // 2)}
    assert {caller.error.code for caller in callers if caller.error} == {"budget_exceeded"}
    assert sum(len(caller.said) / 3 for caller in callers) >= 10_000
    await house.proxy.settled()
    assert house.proxy.used("several", "output_tokens") <= 20_000
    assert house.proxy.held_amounts() == 0


async def test_a_tool_call_that_waits_is_held_for_as_it_comes(house: House) -> None:
    """6,000 tokens of arguments against 3,000: nobody has seen any of them when the stream ends."""
    caller = await house.caller("gate", CALLERS[0]).asks("tool")
    assert (caller.said, caller.error.code) == ("", "budget_exceeded")
    await house.proxy.settled()
    view = house.only_view("gate")
    assert view.cost_label is CostLabel.PARTIAL
    assert b"tool_calls" not in (view.released or b"tool_calls")
    assert 1_000 <= house.proxy.used("gate", "tokens") <= TIGHT
    assert house.proxy.used("gate", "tool_calls") == 0


async def test_a_reply_whose_caller_left_is_drained_and_held_for(house: House) -> None:
    caller = house.caller("drained", CALLERS[0], "d")
    asking = asyncio.create_task(caller.asks("go on"))
    await asyncio.wait_for(caller.began.wait(), 10)
    asking.cancel()
    await house.proxy.settled()
    view = house.only_view("drained")
    assert view.usage is not None
    assert (view.status, view.usage.output) == (Status.CLIENT_GONE, REPORTED)
    assert view.topped_up["output_tokens"] > LONG // 2


async def test_a_cap_below_what_is_expected_is_all_that_is_held(house: House) -> None:
    caller = await house.caller("capped", CALLERS[0]).asks("warm", max_completion_tokens=300)
    assert caller.error is None
    assert house.only_view("capped").held["output_tokens"] == 300


async def test_where_the_first_hold_does_not_fit_the_call_is_cut_to_what_is_left(house: House) -> None:
    caller = await house.caller("small", CALLERS[0]).asks("warm")
    assert caller.error is None
    view = house.only_view("small")
    assert view.held["output_tokens"] < 500
    assert b"max_completion_tokens" in (view.sent or b"")


async def test_a_fallback_goes_on_with_what_is_held(house: House) -> None:
    """The first target fails before it said anything; nothing was ever heard of how long its replies are."""
    caller = await house.caller("fallen", CALLERS[0], "f").asks("go on")
    assert (caller.said, caller.error) == ("so on " * (LONG // 2), None)
    await house.proxy.settled()
    view = house.only_view("fallen")
    assert [attempt.target for attempt in view.attempts] == ["broken", "f"]
    assert view.held["output_tokens"] == 1_024
    assert view.topped_up["output_tokens"] >= LONG - 1_024
    assert house.tokens("fallen")[1] == 0


async def test_two_tries_at_once_hold_the_worst_case_of_both(house: House) -> None:
    caller = await house.caller("hedged", CALLERS[0], "h").asks("warm")
    assert caller.error is None
    view = house.only_view("hedged")
    assert (view.held["output_tokens"], view.topped_up) == (2 * LARGEST, {})
