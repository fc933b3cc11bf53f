"""What the ledger costs: CPU per call (one hold and one settlement) in batches, on a SQLite file.

Run as `python -m bench.ledger`. With `--url` it runs on a PostgreSQL database.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event

from budgets import (
    METADATA,
    Amount,
    Bound,
    Hold,
    Limit,
    LimitBook,
    Op,
    Scope,
    Settle,
    SqlLedger,
    Subject,
    Unit,
    window_named,
)

_NOW_US = 1_800_000_000_000_000
_ASKED = Amount(micro_usd=5_000, tokens=1_400, input_tokens=1_000, output_tokens=400, requests=1)
_USED = Amount(micro_usd=3_000, tokens=1_100, input_tokens=1_000, output_tokens=100, requests=1)
_FLOOR = Amount(requests=1)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--batches", type=int, default=300)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--url", help="a PostgreSQL URL with an empty database, instead of a SQLite file")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(chosen.url) if chosen.url else _sqlite(Path(folder) / "ledger.db")
        METADATA.create_all(engine)
        run = _Run(engine, chosen.batch)
        run.batches(50)
        rounds = (run.batches(chosen.batches) for _ in range(chosen.rounds))
        applied, cpu, wall = zip(*rounds, strict=True)
        bounds = run.bounds_cpu()
        engine.dispose()
    print(f"batches of {chosen.batch}, 3 limits, {chosen.rounds} rounds of {chosen.batches} batches")
    print(f"hold + settle: {statistics.median(applied):6.1f} us of CPU a call in SqlLedger.apply")
    print(f"               {statistics.median(cpu):6.1f} us of CPU with operations, begin and commit")
    print(f"               {statistics.median(wall):6.1f} us of wall time")
    print(f"bounds():      {bounds:6.1f} us of CPU a call")


class _Run:
    """Calls of ten agents, each with its day, its run and everyone's month to stay within."""

    def __init__(self, engine: Engine, batch: int) -> None:
        self.engine = engine
        self.batch = batch
        self.ledger = SqlLedger(engine.dialect)
        most = {Unit.USD: 10**12, Unit.TOKENS: 10**12, Unit.REQUESTS: 10**12}
        self.book = LimitBook(
            [
                Limit("daily", Scope(agent="*"), window_named("day"), most),
                Limit("per-run", Scope(agent="*"), window_named("run"), most),
                Limit("company", Scope(), window_named("month"), most),
            ]
        )
        self.calls = 0
        self.applied = 0.0

    def batches(self, count: int) -> tuple[float, float, float]:
        """Applying CPU, whole CPU and wall µs per call; each batch is held, committed, settled, committed."""
        self.applied = 0.0
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            calls = [(f"{self.calls + n:032x}", self.bounds(self.calls + n)) for n in range(self.batch)]
            self.calls += self.batch
            self.commit([Hold(id_, at, _ASKED, _FLOOR, _NOW_US + 30_000_000) for id_, at in calls])
            self.commit([Settle(id_, _USED) for id_, _ in calls])
        made = count * self.batch / 1e6
        return self.applied / made, (time.process_time() - cpu) / made, (time.perf_counter() - wall) / made

    def commit(self, ops: Sequence[Op]) -> None:
        with self.engine.begin() as conn:
            started = time.process_time()
            self.ledger.apply(conn, ops, _NOW_US)
            self.applied += time.process_time() - started

    def bounds(self, call: int) -> tuple[Bound, ...]:
        return self.book.bounds(Subject(agent=f"agent-{call % 10}", run=f"run-{call // 20}"), _NOW_US)

    def bounds_cpu(self) -> float:
        started = time.process_time()
        for call in range(20_000):
            self.bounds(call)
        return (time.process_time() - started) / 20_000 * 1e6


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}")

    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    begin: Callable[[Any], object] = lambda conn: conn.exec_driver_sql("BEGIN IMMEDIATE")  # noqa: E731
    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", begin)
    return engine


if __name__ == "__main__":
    main()
