"""SIGKILL at random moments under load, again and again: what clients got whole is on record, and chained."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from llm_proxy.records.view import Status
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.either_store import store as store
from tests.faults.killed_load import SCRIPT, Crowd, differences, recorded, settings
from tests.proxy import ProxyProcess, until
from tests.stores import faults_of_chain

pytest_plugins = ["tests.postgres"]

CLIENTS = 24
STUCK_S = 60.0


async def _killed(folder: Path, store: str, kills: int, *, settled: bool) -> None:
    """`settled`: waits until nothing of the killed is held any more, which takes a lease's 30 s."""
    chance = random.Random(77)
    async with (
        running(parse_script(SCRIPT)) as upstream,
        ProxyProcess(folder, settings(upstream, store), workers=2) as proxy,
    ):
        crowd = Crowd(proxy, chance)
        async with crowd.calling(CLIENTS):
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0, 2))
                proxy.kill9()
                await proxy.restart()
            await asyncio.sleep(1)
        sys.stdout.write(
            f"{kills} kills: {len(crowd.whole)} replies whole, {crowd.cut} cut, else {crowd.odd}\n"
        )
        assert not crowd.odd
        assert len(crowd.whole) >= kills
        assert differences(recorded(proxy, crowd.whole), crowd.whole) == []
        with proxy.engine.connect() as connection:
            assert faults_of_chain(connection) == []
        if settled:
            await _all_is_settled(proxy, kills)
        await _verifies(folder)


async def _verifies(folder: Path) -> None:
    """As an auditor would see it; what a killed process had not signed yet is no fault."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_proxy", "audit", "verify", "--json"),
        *("--config", str(folder / "proxy.yaml")),
        stdout=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    out, _ = await process.communicate()
    sys.stdout.write(f"audit verify: {out.decode()[:400]}\n")
    assert process.returncode == 0, out.decode()


async def _all_is_settled(proxy: ProxyProcess, kills: int) -> None:
    await until(lambda: not proxy.views(status="open") and not proxy.held(), "all has ended", STUCK_S)
    interrupted = proxy.views(status=Status.INTERRUPTED.value)
    sys.stdout.write(f"{len(interrupted)} calls are interrupted\n")
    assert len(interrupted) >= kills
    assert all(b"prompt " in (view.request or b"") for view in interrupted), (
        "an unfinished call lost its prompt"
    )
    assert proxy.held_amounts() == 0


async def test_killed_three_times(tmp_path: Path) -> None:
    await _killed(tmp_path, f"sqlite:///{tmp_path / 'store.db'}", 3, settled=False)


@pytest.mark.soak
async def test_killed_two_hundred_times(tmp_path: Path, store: str) -> None:
    await _killed(tmp_path, store, 200, settled=True)
