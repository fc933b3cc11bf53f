"""The load generator: keep-alive connections that each send the next request when the last reply is whole.

`python -m bench.load --port P --connections 32 --seconds 3 --reply stream --prompt 1k` prints a `LoadResult`
as JSON; exit status 1 where any reply was an error. A connection stops at its first error.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import time
from typing import cast

import msgspec
import uvloop

from bench.dialects import SHAPES, Dialect
from bench.figures import LoadResult
from bench.http1 import ReplyReader
from bench.mock import DELTAS
from bench.tally import Tally, Timing, problem_of
from bench.workload import Conversation, MessageSource, Prompt, Reply, Workload

STALL_S = 30.0
"""How long a load waits while no reply comes at all."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send where. With `count`, that many requests are sent and `warmup_s` and `seconds` don't apply.

    `seed` makes prompts and run ids differ from those of other loads in the same benchmark.
    """

    port: int
    workload: Workload
    key: str = ""
    seed: int = 1
    warmup_s: float = 0.0
    seconds: float = 0.0
    count: int = 0
    pause_s: float = 0.0
    """What an agent does between its calls."""


class Lane(asyncio.Protocol):
    """One connection: its conversation, and the reply that it waits for."""

    _transport: asyncio.Transport
    _reader: ReplyReader

    def __init__(self, driver: Driver, conversation: Conversation) -> None:
        self._driver = driver
        self._conversation = conversation
        self._waiting = False
        self._over = False
        self._sent = self._first = 0.0
        self._bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._next()

    def _next(self) -> None:
        if not self._driver.may_send():
            self._end()
            return
        run_id, body = self._conversation.next()
        request = self._driver.head % (run_id, len(body)) + body
        self._reader = ReplyReader()
        self._bytes = len(body)
        self._first = 0.0
        self._waiting = True
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self._waiting:
            self._fail("bytes came that nothing had asked for")
            return
        try:
            whole = self._reader.feed(data)
        except ValueError as error:
            self._fail(f"malformed reply: {error}")
            return
        if not self._first and self._reader.parts:
            self._first = time.perf_counter()
        if whole:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._over:
            return
        if self._waiting and exc is None and self._reader.ends_with_connection:
            self._finish()
        why = "the server closed the connection" if exc is None else f"connection lost: {exc}"
        self._fail(f"{why}, mid-reply" if self._waiting else why)

    def stalled(self) -> None:
        if not self._over:
            self._fail(f"no whole reply came for {STALL_S:.0f} s")

    def _finish(self) -> None:
        ended = time.perf_counter()
        self._waiting = False
        problem = problem_of(self._reader, self._driver.events, self._driver.dialect)
        if problem:
            self._fail(problem)
            return
        self._driver.tally.right(
            Timing(self._sent, self._first or ended, ended), self._driver.events, self._bytes
        )
        if self._driver.pause_s:
            asyncio.get_running_loop().call_later(self._driver.pause_s, self._go_on)
        else:
            self._next()

    def _go_on(self) -> None:
        if not self._over:
            self._next()

    def _fail(self, problem: str) -> None:
        if not self._over:
            self._driver.tally.wrong(problem)
            self._end()

    def _end(self) -> None:
        self._over = True
        self._waiting = False
        self._transport.close()
        self._driver.lane_ended()


class Driver:
    """Opens the lanes, decides whether another request may be sent, and ends when every lane has."""

    def __init__(self, load: Load) -> None:
        now = time.perf_counter()
        self._load = load
        self._to_send = load.count
        self._until = now + load.warmup_s + load.seconds
        self._active = load.workload.connections
        self._all_ended = asyncio.Event()
        self.tally = Tally(now if load.count else now + load.warmup_s)
        if not load.count:
            self.tally.close(self._until)
        self.events = load.workload.events
        self.pause_s = load.pause_s
        self.dialect = load.workload.caller
        authorization = f"authorization: Bearer {load.key}\r\n" if load.key else ""
        self.head = (
            f"POST {SHAPES[self.dialect].path} HTTP/1.1\r\nhost: 127.0.0.1:{load.port}\r\n{authorization}"
            "content-type: application/json\r\nx-run-id: %b\r\ncontent-length: %d\r\n\r\n"
        ).encode()

    def may_send(self) -> bool:
        if not self._load.count:
            return time.perf_counter() < self._until
        self._to_send -= 1
        return self._to_send >= 0

    def lane_ended(self) -> None:
        self._active -= 1
        if self._active == 0:
            self._all_ended.set()

    async def run(self) -> None:
        """Returns once every lane has ended. A refused connection is an error, a stalled reply too."""
        source = MessageSource(self._load.seed)
        lanes = [await self._open(source, n) for n in range(self._load.workload.connections)]
        while not await self._ended_within(self._until - time.perf_counter() + STALL_S):
            for lane in lanes:
                if lane:
                    lane.stalled()

    async def _ended_within(self, seconds: float) -> bool:
        """False once no reply has come for `STALL_S`; the first wait lasts at least `seconds`."""
        answered = -1
        while answered != self.tally.answered:
            answered = self.tally.answered
            try:
                await asyncio.wait_for(self._all_ended.wait(), max(seconds, STALL_S))
            except TimeoutError:
                seconds = 0.0
            else:
                return True
        return False

    async def _open(self, source: MessageSource, number: int) -> Lane | None:
        lane = Lane(self, Conversation(self._load.workload, source, self._load.seed, number))
        try:
            await asyncio.get_running_loop().create_connection(lambda: lane, "127.0.0.1", self._load.port)
        except OSError as error:
            self.tally.wrong(f"cannot connect to port {self._load.port}: {error}")
            self.lane_ended()
            return None
        return lane


async def run_load(load: Load) -> LoadResult:
    """Send the load and count what came back. CPU is that of this whole process meanwhile."""
    before = time.process_time()
    driver = Driver(load)
    await driver.run()
    return driver.tally.result(time.process_time() - before)


def _parse() -> Load:
    parser = argparse.ArgumentParser(description="load generator")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--reply", type=Reply, choices=list(Reply), default=Reply.WHOLE)
    parser.add_argument("--prompt", type=Prompt, choices=list(Prompt), default=Prompt.SMALL)
    parser.add_argument("--deltas", type=int, default=DELTAS, help="text deltas of a streamed reply")
    for side in ("caller", "upstream"):
        parser.add_argument(f"--{side}", type=Dialect, choices=list(Dialect), default=Dialect.CHAT)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warmup", type=float, default=0.3, help="seconds before the measured window")
    parser.add_argument("--count", type=int, default=0, help="send this many requests instead of for a time")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two calls of a connection")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    return Load(
        port=given.port,
        workload=Workload(
            given.connections, given.reply, given.prompt, given.deltas, given.caller, given.upstream
        ),
        key=os.environ.get("BENCH_KEY", ""),
        seed=given.seed,
        warmup_s=given.warmup,
        seconds=given.seconds,
        count=given.count,
        pause_s=given.pause,
    )


def main() -> int:
    load = _parse()
    gc.disable()
    result = uvloop.run(run_load(load))
    print(msgspec.json.encode(result).decode())
    return 1 if result.errors else 0


if __name__ == "__main__":
    sys.exit(main())
