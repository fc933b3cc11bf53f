"""Commits take seconds under load: calls are answered late or refused, and nothing recorded is lost."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import aiohttp
import pytest

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.either_store import store as store
from tests.faults.killed_load import SCRIPT, Crowd, differences, recorded, settings
from tests.faults.levels import takes_calls, watched
from tests.faults.relay import relayed
from tests.faults.slow_stores import slow_commits
from tests.proxy import ProxyProcess, ask, headers, until
from tests.stores import faults_of_chain

pytest_plugins = ["tests.postgres"]

CLIENTS = 24
BACK_S = 5.0
SLOWEST_S = 60.0
"""No caller waits longer: as its call opens, and as it ends, for the commit at hand and for its own."""
MORE_MB = 64
REFUSED = (503, "store_unavailable", "2")


@pytest.mark.parametrize(
    ("commit_s", "seconds"),
    [
        pytest.param(0.4, 2.0, id="slow"),
        pytest.param(3.0, 20.0, id="very slow", marks=pytest.mark.soak),
        pytest.param(12.0, 30.0, id="beyond patience", marks=pytest.mark.soak),
    ],
)
async def test_the_disk_is_slow_under_load(
    store: str, tmp_path: Path, commit_s: float, seconds: float
) -> None:
    clock = asyncio.get_running_loop().time
    async with (
        running(parse_script(SCRIPT)) as upstream,
        ProxyProcess(tmp_path, settings(upstream, store), store_may_fail=True) as proxy,
    ):
        crowd = Crowd(proxy, random.Random(7))
        async with crowd.calling(CLIENTS):
            await until(lambda: len(crowd.whole) > 50, "calls are answered", 60)
            assert crowd.odd == {}
            async with watched(proxy) as levels:
                before, answered = levels.now_mb(), len(crowd.whole)
                with slow_commits(store, commit_s):
                    await asyncio.sleep(seconds)
                    meanwhile = len(crowd.whole) - answered
                back = clock()
                await asyncio.sleep(min(BACK_S, commit_s))
                await takes_calls(proxy)
                await until(lambda: levels.queued, "what waits is told")
                ended = f"last refused {crowd.refused_at - back:+.1f} s" if crowd.odd else "none refused"
                sys.stdout.write(
                    f"commits of {commit_s:g} s for {seconds:g} s: {meanwhile} answered meanwhile,"
                    f" {crowd.cut} cut, {crowd.odd}; {before:.0f} MB before, {max(levels.memory):.0f} at most"
                    f"; {max(levels.queued):g} queued at most; slowest answer {crowd.slowest:.1f} s,"
                    f" {ended}\n"
                )
        assert set(crowd.odd) <= {REFUSED}
        if commit_s < 1:
            assert (crowd.odd, crowd.cut) == ({}, 0), "a slow disk is no reason to refuse"
            assert meanwhile > 0
        assert crowd.refused_at < back + BACK_S
        assert commit_s < crowd.slowest < SLOWEST_S
        assert max(levels.memory) < before + MORE_MB
        assert max(levels.queued) <= 2 * CLIENTS + 20
        assert differences(recorded(proxy, crowd.whole), crowd.whole) == []
        with proxy.engine.connect() as connection:
            assert faults_of_chain(connection) == []


async def test_a_commit_whose_answer_nobody_heard_leaves_one_record(
    tmp_path: Path, postgres_url: str
) -> None:
    """It opened the call, whose caller is refused: the call is closed, and nothing stays held for it."""
    async with (
        running(parse_script(SCRIPT)) as upstream,
        relayed(postgres_url) as (relay, url),
        ProxyProcess(tmp_path, settings(upstream, url), store_may_fail=True, read_from=postgres_url) as proxy,
    ):
        await takes_calls(proxy)
        await proxy.settled()
        sent, before = upstream.stats.total, proxy.used("day", "requests")
        with slow_commits(postgres_url, 1.0):
            call = asyncio.create_task(_asked(proxy))
            await until(lambda: _sleeping(proxy), "its opening is being committed")
            await relay.cut()
            assert await call == REFUSED
        (view,) = proxy.views(run="unheard")
        assert view.problem is not None
        assert (view.status, view.problem.kind) == (Status.FAILED, "store_unavailable")
        assert (upstream.stats.total, proxy.used("day", "requests")) == (sent, before)
        assert proxy.held_amounts() == 0
        with proxy.engine.connect() as connection:
            assert faults_of_chain(connection) == []


async def _asked(proxy: ProxyProcess) -> tuple[int, str, str | None]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(proxy.url, json=ask(model="chat-0"), headers=headers(x_run_id="unheard")) as reply,
    ):
        return reply.status, (await reply.json())["error"]["code"], reply.headers.get("retry-after")


def _sleeping(proxy: ProxyProcess) -> bool:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
    )
    with proxy.engine.connect() as connection:
        return bool(connection.exec_driver_sql(query).scalar_one())
