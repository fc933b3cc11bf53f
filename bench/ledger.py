"""What the ledger costs a call: CPU of its hold and its settlement through the real writer, at 32 at once.

Run as `python -m bench.ledger`. Every round runs the same jobs twice, with ledger operations and without,
and what it prints is the difference in CPU of the whole process. With `--url` it runs on an empty PostgreSQL
database instead of a SQLite file.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from budgets import Amount, Bound, Hold, Limit, LimitBook, Op, Scope, Settle, Subject, Unit, window_named
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.engine import open_engine
from llm_proxy.records.ids import uuid7, writer_id
from llm_proxy.records.migrate import upgrade
from llm_proxy.records.writer import Writer

ASKED = Amount(
    micro_usd=5_000, tokens=1_400, input_tokens=1_000, output_tokens=400, requests=1, concurrency=1
)
USED = Amount(micro_usd=3_000, tokens=1_100, input_tokens=1_000, output_tokens=100, requests=1)
FLOOR = Amount(requests=1)
LEASE_US = 30_000_000
PLENTY = {Unit.USD: 10**12, Unit.TOKENS: 10**12, Unit.REQUESTS: 10**12}
WINDOWS = {
    "calendar": ("day", "run", "month"),
    "rolling": ("24h", "run", "30d"),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--calls", type=int, default=4_000, help="calls of a round, of each kind")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--windows", choices=list(WINDOWS), default="calendar")
    options.add_argument("--url", help="a PostgreSQL URL with an empty database, instead of a SQLite file")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = chosen.url or f"sqlite:///{Path(folder) / 'ledger.db'}"
        rounds = asyncio.run(_measure(url, chosen))
    with_ops, without = zip(*rounds, strict=True)
    costs = [a - b for a, b in rounds]
    print(
        f"{chosen.connections} at once, 3 {chosen.windows} limits, {chosen.rounds} rounds of {chosen.calls}"
    )
    print(f"with hold and settle:    {statistics.median(with_ops):6.1f} us of CPU a call")
    print(f"the same jobs without:   {statistics.median(without):6.1f} us of CPU a call")
    print(
        f"the ledger:              {statistics.median(costs):6.1f} us of CPU a call"
        f" (from {min(costs):.1f} to {max(costs):.1f})"
    )
    print(f"LimitBook.bounds:        {_bounds_cpu(_book(chosen.windows)):6.1f} us of CPU a call")


async def _measure(url: str, chosen: argparse.Namespace) -> list[tuple[float, float]]:
    """CPU µs per call with operations and without, once per round; the first round warms up."""
    book = _book(chosen.windows)
    async with _writer(url, book) as writer:
        load = _Load(writer, book, chosen.connections)
        await load.cpu_us(chosen.calls // 4, with_ops=True)
        await load.cpu_us(chosen.calls // 4, with_ops=False)
        found: list[tuple[float, float]] = []
        for turn in range(chosen.rounds):
            both: dict[bool, float] = {}
            for with_ops in (True, False) if turn % 2 else (False, True):
                both[with_ops] = await load.cpu_us(chosen.calls, with_ops=with_ops)
            found.append((both[True], both[False]))
        return found


class _Load:
    """Calls of ten agents, each with its day, its run and everyone's month to stay within."""

    def __init__(self, writer: Writer, book: LimitBook, connections: int) -> None:
        self._writer = writer
        self._book = book
        self._connections = connections
        self._serial = itertools.count()

    async def cpu_us(self, calls: int, *, with_ops: bool) -> float:
        made = self._calls(calls)
        jobs = [self._jobs(*call) for call in made] if with_ops else [((), ())] * calls
        left = iter(jobs)
        started = time.process_time()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._connections):
                tasks.create_task(self._caller(left))
        return (time.process_time() - started) / calls * 1e6

    async def _caller(self, left: Iterator[tuple[Sequence[Op], Sequence[Op]]]) -> None:
        for hold, settle in left:
            await self._writer.submit(Job(_nothing, ops=tuple(hold)))
            await self._writer.submit(Job(_nothing, ops=tuple(settle)))

    def _calls(self, count: int) -> list[tuple[str, tuple[Bound, ...]]]:
        now = _now_us()
        return [(uuid7(now), _bounds(self._book, next(self._serial), now)) for _ in range(count)]

    def _jobs(self, id_: str, bounds: tuple[Bound, ...]) -> tuple[Sequence[Op], Sequence[Op]]:
        lease = _now_us() + LEASE_US
        return (Hold(id_, bounds, ASKED, FLOOR, lease),), (Settle(id_, USED),)


def _now_us() -> int:
    return time.time_ns() // 1_000


def _nothing(found: Found) -> Wrote:
    return Wrote(found.results)


def _book(windows: str) -> LimitBook:
    agent, run, company = WINDOWS[windows]
    return LimitBook(
        [
            Limit("daily", Scope(agent="*"), window_named(agent), PLENTY, warn_at=0.8),
            Limit("per-run", Scope(agent="*"), window_named(run), PLENTY, warn_at=0.8),
            Limit("company", Scope(), window_named(company), PLENTY, warn_at=0.8),
        ]
    )


def _bounds(book: LimitBook, call: int, now_us: int) -> tuple[Bound, ...]:
    return book.bounds(Subject(agent=f"agent-{call % 10}", run=f"run-{call // 20}"), now_us)


def _bounds_cpu(book: LimitBook) -> float:
    now = _now_us()
    started = time.process_time()
    for call in range(20_000):
        _bounds(book, call, now)
    return (time.process_time() - started) / 20_000 * 1e6


@asynccontextmanager
async def _writer(url: str, book: LimitBook) -> AsyncGenerator[Writer]:
    engine = open_engine(url)
    upgrade(engine)
    writer = Writer(engine, writer_id(_now_us()), _now_us, watched=book)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.stop()
        engine.dispose()


if __name__ == "__main__":
    main()
