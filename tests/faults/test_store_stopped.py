"""A real PostgreSQL is stopped, paused and crowded out under load: 503 meanwhile, and it ends by itself."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.faults.killed_load import SCRIPT, Crowd, differences, recorded, settings
from tests.faults.levels import takes_calls, watched
from tests.faults.stopping_postgres import Server, stopping_postgres
from tests.proxy import ProxyProcess, until
from tests.stores import faults_of_chain

CLIENTS = 24
BACK_S = 5.0
SLOWEST_S = 30.0
"""No caller waits longer to be told: for an exchange with a server that hangs, and for one that can't be
reached, when its call opens and when it ends."""
MORE_MB = 64
"""What the processes may take on top while the store is down."""
REFUSED = (503, "store_unavailable", "2")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with stopping_postgres() as found:
        yield found


async def _through(folder: Path, server: Server, how: str, seconds: float) -> None:
    """Takes the store away under load for so long."""
    clock, store = asyncio.get_running_loop().time, server.database()
    async with (
        running(parse_script(SCRIPT)) as upstream,
        ProxyProcess(folder, settings(upstream, store), workers=2, store_may_fail=True) as proxy,
    ):
        crowd = Crowd(proxy, random.Random(3))
        async with crowd.calling(CLIENTS):
            await until(lambda: len(crowd.whole) > 300, "calls are answered", 60)
            assert crowd.odd == {}
            async with watched(proxy) as levels:
                before = levels.now_mb()
                await _taken_away(server, how, seconds, crowd)
                back = clock()
                await asyncio.sleep(BACK_S)
                await takes_calls(proxy)
                sys.stdout.write(
                    f"{how} for {seconds:g} s: {len(crowd.whole)} whole, {crowd.cut} cut, {crowd.odd};"
                    f" {before:.0f} MB before, {max(levels.memory):.0f} at most;"
                    f" {max(levels.queued):g} queued at most;"
                    f" last refused {crowd.refused_at - back:+.1f} s; slowest answer {crowd.slowest:.1f} s\n"
                )
        assert set(crowd.odd) == {REFUSED}
        assert crowd.refused_at < back + BACK_S
        assert crowd.slowest < SLOWEST_S
        assert max(levels.memory) < before + MORE_MB
        assert max(levels.queued) <= 2 * CLIENTS + 20
        assert differences(recorded(proxy, crowd.whole), crowd.whole) == []
        with proxy.engine.connect() as connection:
            assert faults_of_chain(connection) == []


async def _taken_away(server: Server, how: str, seconds: float, crowd: Crowd) -> None:
    match how:
        case "stopped":
            await server.stop()
            await asyncio.sleep(seconds)
            await server.start()
        case "paused":
            server.pause()
            await asyncio.sleep(seconds)
            server.resume()
        case _:
            with server.crowded():
                await asyncio.sleep(seconds)


@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        ("stopped", 2.0),
        pytest.param("stopped", 60.0, marks=pytest.mark.soak),
        pytest.param("paused", 60.0, marks=pytest.mark.soak),
        pytest.param("crowded", 20.0, marks=pytest.mark.soak),
    ],
)
async def test_the_store_is_taken_away_under_load(
    tmp_path: Path, server: Server, how: str, seconds: float
) -> None:
    await _through(tmp_path, server, how, seconds)
