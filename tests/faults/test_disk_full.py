"""The disk is full: calls are refused and none is lost, and service resumes by itself when there is room."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import Scripted, running
from tests.proxy import ProxyProcess, ask, config, headers, until
from tests.stores import faults_of_chain

SCRIPT = "default: {turns: [{text: Hello}]}"
BACK_S = 5.0


async def _call(proxy: ProxyProcess) -> tuple[int, str | None, str]:
    """Status, `retry-after` and the call's id."""
    body = ask("x" * 2_000 + os.urandom(2_000).hex())
    async with aiohttp.ClientSession() as http, http.post(proxy.url, json=body, headers=headers()) as reply:
        await reply.read()
        return reply.status, reply.headers.get("retry-after"), reply.headers["x-call-id"]


async def _answered(proxy: ProxyProcess, calls: int) -> set[str]:
    found = await asyncio.gather(*[_call(proxy) for _ in range(calls)])
    assert {status for status, _, _ in found} == {200}
    return {id_ for _, _, id_ in found}


async def _refused(proxy: ProxyProcess, upstream: Scripted) -> None:
    before = upstream.stats.total
    for _ in range(3):
        found = await asyncio.gather(*[_call(proxy) for _ in range(20)])
        assert {(status, wait) for status, wait, _ in found} == {(503, "2")}
    assert upstream.stats.total == before, "a call was sent that could not be recorded"
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{proxy.origin}/health/ready") as reply:
            assert reply.status == 503
        async with http.get(f"{proxy.origin}/health/live") as reply:
            assert reply.status == 200


async def _is_back(proxy: ProxyProcess) -> None:
    async def well() -> bool:
        return (await _call(proxy))[0] == 200

    await until(well, "calls are answered again", BACK_S)


async def _nothing_is_lost(proxy: ProxyProcess, answered: set[str]) -> None:
    # A call whose end could not be written is closed once its lease has run out.
    await until(lambda: not proxy.views(status="open") and not proxy.held(), "every call has ended", 60)
    assert answered <= {view.id for view in proxy.views(status="ok")}
    assert proxy.held_amounts() == 0
    with proxy.engine.connect() as connection:
        assert faults_of_chain(connection) == []


@contextmanager
def _may_not_write(pid: int) -> Generator[None]:
    """Whatever the process writes past a file's first bytes fails: its store, and its log too."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


async def test_nothing_can_be_written(tmp_path: Path) -> None:
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(upstream.base_url, budgets=[{"id": "day", "window": "day", "requests": 10_000}])
        async with ProxyProcess(tmp_path, settings, store_may_fail=True) as proxy:
            answered = await _answered(proxy, 20)
            with _may_not_write(proxy.pid):
                await _refused(proxy, upstream)
            await _is_back(proxy)
            answered |= await _answered(proxy, 20)
            await _nothing_is_lost(proxy, answered)


@contextmanager
def _small_disk(folder: Path, megabytes: int) -> Generator[Path]:
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.soak
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")
async def test_a_disk_runs_full_under_load(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk", 24) as disk:
        async with running(parse_script(SCRIPT)) as upstream:
            settings = config(upstream.base_url, store=f"sqlite:///{disk / 'store.db'}")
            async with ProxyProcess(tmp_path, settings, store_may_fail=True) as proxy:
                answered = await _answered(proxy, 50)
                (disk / "ballast").write_bytes(bytes(12 << 20))
                while True:
                    found = await asyncio.gather(*[_call(proxy) for _ in range(20)])
                    answered |= {id_ for status, _, id_ in found if status == 200}
                    if all(status == 503 for status, _, _ in found):
                        break
                await _refused(proxy, upstream)
                (disk / "ballast").unlink()
                await _is_back(proxy)
                answered |= await _answered(proxy, 20)
                await _nothing_is_lost(proxy, answered)
