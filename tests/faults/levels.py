"""What a proxy takes and what waits in it while its store fails under load, and whether it serves again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
import psutil

from tests.proxy import ProxyProcess, ask, headers, until


@dataclass
class Levels:
    """What is sampled while a proxy serves."""

    proxy: ProxyProcess
    memory: list[float] = field(default_factory=list[float])
    queued: list[float] = field(default_factory=list[float])

    async def watch(self) -> None:
        """Until it is cancelled."""
        async with aiohttp.ClientSession() as http:
            while True:
                self.memory.append(self.now_mb())
                with suppress(aiohttp.ClientError):
                    async with http.get(f"{self.proxy.origin}/metrics") as reply:
                        for line in (await reply.text()).splitlines():
                            if line.startswith("llm_proxy_writer_queue_depth"):
                                self.queued.append(float(line.split()[-1]))
                await asyncio.sleep(0.25)

    def now_mb(self) -> float:
        """Resident memory of the server's processes."""
        parent = psutil.Process(self.proxy.pid)
        return sum(p.memory_info().rss for p in [parent, *parent.children(recursive=True)]) / 1e6


@asynccontextmanager
async def watched(proxy: ProxyProcess) -> AsyncGenerator[Levels]:
    levels = Levels(proxy)
    task = asyncio.create_task(levels.watch())
    try:
        yield levels
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def takes_calls(proxy: ProxyProcess) -> None:
    """Twenty new connections in a row, so that every worker is asked."""

    async def well() -> bool:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
            for _ in range(20):
                body = ask(model="chat-0")
                async with http.post(proxy.url, json=body, headers=headers()) as reply:
                    if reply.status != 200:
                        return False
        return True

    await until(well, "every worker takes calls", 60)
