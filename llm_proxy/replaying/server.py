"""A replay on a port of its own, until it's finished or a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator

import uvicorn

from llm_proxy.replaying.report import Report
from llm_proxy.replaying.serve import Replay


class _Server(uvicorn.Server):
    def __init__(self, replay: Replay, ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            replay,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Left to `serve`: a signal ends the replay, whose report is still to be told."""
        yield

    def end(self) -> None:
        self.should_exit = True


def listening(host: str, port: int) -> socket.socket:
    """A port of our own. OSError where it's taken."""
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
    except BaseException:
        opened.close()
        raise
    return opened


async def serve(replay: Replay, at: socket.socket, ready: Callable[[], None]) -> Report:
    """Serves until it's finished, or SIGINT or SIGTERM comes; `ready` is called once the port answers."""
    server = _Server(replay, ready)
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for signum in signals:
        loop.add_signal_handler(signum, server.end)
    try:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(_end_when_finished(replay, server))
            await tasks.create_task(server.serve(sockets=[at]))
            waiting.cancel()
    finally:
        for signum in signals:
            loop.remove_signal_handler(signum)
    return replay.report()


async def _end_when_finished(replay: Replay, server: _Server) -> None:
    await replay.finished()
    server.end()
