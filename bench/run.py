"""`python -m bench.run`: this proxy with every stage on against a bare pass-through, round by round in turn.

Exit status 0, also where a performance target is not met; 1 where a request failed; 2 where a server or the
load did not run.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec
from rich.console import Console

from bench import measure, servers, translate
from bench.dialects import Dialect
from bench.figures import Sample, summarise
from bench.machine import describe
from bench.report import show
from bench.results import Cell, Export, Results, Startup
from bench.workload import LONG, TRANSLATED, Prompt, Reply, Workload

_EXPORT_LIMIT_S = 15.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure. `only` names the single server to measure; None is both."""

    quick: bool
    only: str | None
    rounds: int
    window: measure.Window
    cells: tuple[Workload, ...]
    starts: int
    memory_calls: int


def full_cells() -> tuple[Workload, ...]:
    matrix = [Workload(c, r, p) for p in Prompt for r in (Reply.WHOLE, Reply.STREAM) for c in (1, 32)]
    return (*matrix, *(Workload(c, Reply.TOOLS, Prompt.SMALL) for c in (1, 32)), *_long_cells())


def _long_cells() -> tuple[Workload, ...]:
    """Long streams: the same dialect on both sides, then translated."""
    same = [Workload(c, Reply.STREAM, Prompt.SMALL, deltas) for deltas in LONG for c in (1, 32)]
    pairs = [(Dialect.MESSAGES, Dialect.MESSAGES), *TRANSLATED]
    return (*same, *(Workload(32, Reply.STREAM, Prompt.SMALL, LONG[0], *pair) for pair in pairs))


def quick_cells() -> tuple[Workload, ...]:
    return tuple(
        w
        for w in full_cells()
        if w.prompt is not Prompt.UNIQUE
        and w != Workload(1, Reply.TOOLS, Prompt.SMALL)
        and (w.connections == 32 or not w.long)
    )


def make_plan(*, quick: bool, rounds: int | None, only: str | None) -> Plan:
    """The full plan takes about 7 minutes, the quick one about one and a half."""
    if quick:
        window = measure.Window(warmup_s=0.2, seconds=1.0, drain_s=2.0)
        return Plan(
            quick=True,
            only=only,
            rounds=rounds or 1,
            window=window,
            cells=quick_cells(),
            starts=1,
            memory_calls=2_000,
        )
    window = measure.Window(warmup_s=0.3, seconds=1.5, drain_s=5.0)
    return Plan(
        quick=False,
        only=only,
        rounds=rounds or 3,
        window=window,
        cells=full_cells(),
        starts=3,
        memory_calls=20_000,
    )


class Bench:
    """One run of a plan. Servers live in `stack` and stop with it."""

    def __init__(self, plan: Plan, directory: Path, stack: ExitStack, console: Console) -> None:
        self._plan = plan
        self._directory = directory
        self._console = console
        self._mock = stack.enter_context(servers.mock(directory))
        self._sink = stack.enter_context(servers.sink(directory))
        self._stack = stack
        self.errors: list[str] = []

    def startup(self) -> Startup | None:
        """Start the proxy a few times on fresh stores; the last start also gives memory."""
        if self._plan.only == "bare":
            return None
        ready: list[float] = []
        for n in range(1, self._plan.starts):
            self._console.log(f"start {n} of {self._plan.starts}")
            with servers.proxy(self._directory / f"start-{n}", self._mock, self._sink) as server:
                ready.append(server.ready_s)
        self._console.log(f"start {self._plan.starts}, then {self._plan.memory_calls:,} calls for memory")
        with servers.proxy(self._directory / "memory", self._mock, self._sink) as server:
            found, problems = measure.startup(server, (*ready, server.ready_s), self._plan.memory_calls)
        self.errors += problems
        return found

    def matrix(self) -> tuple[tuple[Cell, ...], Export | None]:
        """Every cell, every round: bare, proxy, bare, proxy …"""
        running = self._start()
        exported = None if self._plan.only == "bare" else measure.Exported(self._sink)
        for server in running:
            self._warm_up(server, exported if server.name == "proxy" else None)
        samples: dict[tuple[Workload, str], list[Sample]] = defaultdict(list)
        for round_number, workload in itertools.product(range(1, self._plan.rounds + 1), self._plan.cells):
            self._console.log(f"round {round_number} of {self._plan.rounds}: {workload.name}")
            for server in running:
                if workload.translated and server.name == "bare":
                    continue  # it translates nothing
                spans = exported if server.name == "proxy" else None
                samples[workload, server.name].append(self._take(server, workload, spans))
        cells = tuple(_cell(w, samples[w, "bare"], samples[w, "proxy"]) for w in self._plan.cells)
        return cells, exported.result(_EXPORT_LIMIT_S) if exported else None

    def _warm_up(self, server: servers.Server, exported: measure.Exported | None) -> None:
        result = measure.warm_up(server)
        self.errors += [f"{server.name}, warming up: {problem}" for problem in result.problems]
        if exported:
            exported.wait(result.answered, self._plan.window.drain_s)

    def _take(self, server: servers.Server, workload: Workload, exported: measure.Exported | None) -> Sample:
        sample = measure.take(server, workload, self._plan.window, exported)
        self.errors += [f"{server.name}, {workload.name}: {problem}" for problem in sample.load.problems]
        return sample

    def _start(self) -> list[servers.Server]:
        running: list[servers.Server] = []
        if self._plan.only != "proxy":
            running.append(self._stack.enter_context(servers.bare(self._directory, self._mock)))
        if self._plan.only != "bare":
            directory = self._directory / "matrix"
            running.append(self._stack.enter_context(servers.proxy(directory, self._mock, self._sink)))
        return running


def _cell(workload: Workload, bare: list[Sample], proxy: list[Sample]) -> Cell:
    return Cell(
        workload=workload,
        bare=summarise(bare) if bare else None,
        proxy=summarise(proxy) if proxy else None,
        bare_rounds=tuple(bare),
        proxy_rounds=tuple(proxy),
    )


def run(plan: Plan, console: Console) -> Results:
    """Start everything, measure, stop everything. StartError or LoadError where something did not run."""
    begun, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory(prefix="llm-proxy-bench-") as name, ExitStack() as stack:
        directory = Path(name)
        machine = describe(directory)
        bench = Bench(plan, directory, stack, console)
        startup = bench.startup()
        cells, export = bench.matrix()
    return Results(
        started_at=started_at,
        took_s=time.monotonic() - begun,
        quick=plan.quick,
        rounds=plan.rounds,
        seconds=plan.window.seconds,
        machine=machine,
        startup=startup,
        cells=cells,
        export=export,
        translation=translate.measure() if plan.only is None else {},
        errors=tuple(bench.errors),
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.run", description="this proxy against a bare pass-through"
    )
    parser.add_argument("--quick", action="store_true", help="about one and a half minutes, one round")
    parser.add_argument("--rounds", type=int, help="rounds in turn; default 3, quick 1")
    parser.add_argument("--only", choices=["bare", "proxy"], help="measure one server alone")
    parser.add_argument(
        "--out", type=Path, default=servers.ROOT / "bench" / "results" / "latest.json", help="JSON result"
    )
    return parser.parse_args()


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main() -> int:
    given = _parse()
    # A terminated benchmark must stop its servers too, which the context managers do on the way out.
    signal.signal(signal.SIGTERM, _terminate)
    progress = Console(stderr=True, quiet=not sys.stderr.isatty(), log_path=False)
    try:
        results = run(make_plan(quick=given.quick, rounds=given.rounds, only=given.only), progress)
    except (servers.StartError, measure.LoadError) as error:
        print(error, file=sys.stderr)
        return 2
    out: Path = given.out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2))
    width = None if sys.stdout.isatty() else 200
    show(results, Console(width=width))
    print(f"written to {out}")
    return 1 if results.errors else 0


if __name__ == "__main__":
    sys.exit(main())
