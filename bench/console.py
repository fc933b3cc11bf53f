"""`python -m bench.console`: the console over a million recorded calls, and load beside a person.

A SQLite store is filled (`bench.console_calls`), the real proxy is started on it and driven through a run of
50 turns, and every page is asked for ten times: the time is a client's on this machine, to the last byte.
A page that takes long is answered with a word first; how long it takes until it's there is told beside.
Then the proxy is put under load, in turn with and without a person who looks at a page a second.

Exit status 1 where an answer takes 300 ms or more at its worst, a page three seconds until it's there, or a
browsing person moves the load's p99 by 10% or more.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from bench import measure, servers
from bench.console_calls import seed
from bench.console_pages import ADMIN, Look, Visitor, every_page, long_run
from bench.spend import settings
from bench.usage import cpu_seconds
from bench.workload import Prompt, Reply, Workload
from llm_proxy.records.ids import now_us

TARGET_MS = 300.0
WHOLE_MS = 3_000.0
"""Until a page that was put off is there."""
MOST_MOVED = 1.10
TIMES = 10
CONNECTIONS = 32
_BENCH: dict[str, Any] = {
    "owner": "bench@example.com",
    "role": "support",
    "keys": ["${BENCH_KEY}"],
    "models": ["*"],
    "tools": ["*"],
}


def main() -> int:
    given = _parse()
    # A terminated benchmark must stop its servers too, which the context managers do on the way out.
    signal.signal(signal.SIGTERM, _terminate)
    with tempfile.TemporaryDirectory(prefix="bench-console-") as name, ExitStack() as stack:
        folder = Path(name)
        _filled(folder / "proxy" / "bench.db", given)
        upstream, sink = (stack.enter_context(one(folder)) for one in (servers.mock, servers.sink))
        config = _config(folder)
        proxy = stack.enter_context(servers.proxy(folder / "proxy", upstream, sink, config))
        long_run(proxy)
        visitor = Visitor(proxy.port)
        pages = every_page(visitor)
        met = True
        if given.times:
            answer, page = _pages(proxy, visitor, pages, given.times)
            met = _met("slowest answer", answer, TARGET_MS) & _met("slowest page", page, WHOLE_MS)
        if given.rounds:
            moved = _load(proxy, visitor, list(pages.values()), given.rounds, given.seconds, given.pause)
            met = met and moved < MOST_MOVED
    return 0 if met else 1


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _filled(file: Path, given: argparse.Namespace) -> None:
    file.parent.mkdir(parents=True)
    source: Path | None = given.use
    if source is None:
        began = time.perf_counter()
        seed(file, given.calls, now_us())
        print(f"{given.calls:,} calls recorded in {time.perf_counter() - began:.0f} s", flush=True)
        source = file
    for suffix in ("", "-search"):
        if source != file:
            shutil.copyfile(f"{source}{suffix}", f"{file}{suffix}")
        if given.keep is not None:
            shutil.copyfile(f"{file}{suffix}", f"{given.keep}{suffix}")


def _config(folder: Path) -> Path:
    told = settings("${BENCH_STORE}")
    target = {"id": "mock", "provider": "openai", "base_url": "${BENCH_UPSTREAM}", "api_key": "unused"}
    told["models"]["mock-1"] = {"targets": [target | {"model": "mock-1"}]}
    told["prices"]["mock-1"] = {"input_cost_per_token": 1.5e-7, "output_cost_per_token": 6e-7}
    told["agents"]["bench"] = _BENCH
    told |= {"server": {"admin_token": ADMIN, "drain_s": 2}, "policy": "policy.yaml"}
    told |= {"telemetry": {"otlp_endpoint": "${BENCH_OTLP}"}}
    (folder / "policy.yaml").write_text((servers.PROXY_CONFIG.parent / "policy.yaml").read_text())
    (folder / "proxy.yaml").write_text(json.dumps(told))
    return folder / "proxy.yaml"


def _met(what: str, took_ms: float, target_ms: float) -> bool:
    met = took_ms < target_ms
    print(f"{what}: {took_ms:.0f} ms, target {target_ms:.0f} ms: {'met' if met else 'MISSED'}")
    return met


def _pages(proxy: servers.Server, visitor: Visitor, pages: dict[str, str], times: int) -> Look:
    """The slowest of them all."""
    took: dict[str, list[Look]] = {name: [] for name in pages}
    cpu: dict[str, float] = dict.fromkeys(pages, 0.0)
    for _ in range(times):
        for name, path in pages.items():
            before = cpu_seconds(proxy.pid)
            took[name].append(visitor.look(path))
            cpu[name] += cpu_seconds(proxy.pid) - before
    heads = f"{'median':>8}{'worst':>8}"
    print(f"{'':54}{'answer':>16}{'the page itself':>16}")
    print(f"{'page (ms of server time; + was put off at times)':54}{heads}{heads}{'CPU':>8}")
    for name, found in sorted(took.items(), key=lambda one: -max(look.page for look in one[1])):
        answers, whole = [look.answer for look in found], [look.page for look in found]
        told = f"{name} +" if pages[name] in visitor.put_off else name
        figures = [f(kind) for kind in (answers, whole) for f in (statistics.median, max)]
        row = "".join(f"{figure:8.0f}" for figure in (*figures, cpu[name] / times * 1000))
        print(f"  {told:52}{row}", flush=True)
    print(f"CPU of a page on average: {sum(cpu.values()) / len(pages) / times * 1000:.0f} ms")
    looks = [look for found in took.values() for look in found]
    return Look(max(look.answer for look in looks), max(look.page for look in looks))


def _load(
    proxy: servers.Server,
    visitor: Visitor,
    paths: Sequence[str],
    rounds: int,
    seconds: float,
    pause_s: float,
) -> float:
    """How much the p99 moves while a person browses: the median over rounds, 1 for not at all."""
    workload = Workload(CONNECTIONS, Reply.STREAM, Prompt.SMALL)
    window = measure.Window(warmup_s=1.0, seconds=seconds, drain_s=3.0, pause_s=pause_s)
    measure.warm_up(proxy)
    alone, beside, seen = list[float](), list[float](), 0
    for number in range(rounds):
        # Whoever comes second has the store that the first one left: they take turns.
        for browses in (False, True) if number % 2 == 0 else (True, False):
            with Browsing(visitor, paths if browses else (), seen) as browsing:
                load = measure.take(proxy, workload, window).load
            if load.problems:
                raise measure.LoadError("; ".join(load.problems))
            seen = browsing.seen
            (beside if browses else alone).append(load.p99_ms)
            who = f"with a person browsing, {len(browsing.took)} pages" if browses else "alone"
            print(
                f"  {load.requests_per_s:6.0f} calls/s, p50 {load.p50_ms:6.1f} ms, "
                f"p99 {load.p99_ms:6.1f} ms {who}",
                flush=True,
            )
    moved = statistics.median(beside) / statistics.median(alone)
    print(
        f"p99 {statistics.median(alone):.1f} ms alone, {statistics.median(beside):.1f} ms "
        f"while a person browses: {moved:.3f}, target under {MOST_MOVED:.2f}: "
        f"{'met' if moved < MOST_MOVED else 'MISSED'}"
    )
    return moved


class Browsing:
    """A page a second through all of `paths`, as long as the block lasts; nothing where there are none."""

    def __init__(self, visitor: Visitor, paths: Sequence[str], seen: int, every_s: float = 1.0) -> None:
        self._visitor, self._paths, self.seen, self._every_s = visitor, paths, seen, every_s
        self.took: list[float] = []
        self._failed: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._browse)

    def __enter__(self) -> Browsing:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if kind is None and self._failed is not None:
            raise self._failed
        if kind is None and self._paths and not self.took:
            raise measure.LoadError("nobody browsed: the load lasted less than a page")

    def _browse(self) -> None:
        try:
            while self._paths and not self._over.wait(self._every_s):
                self.took.append(self._visitor.look(self._paths[self.seen % len(self._paths)]).page)
                self.seen += 1
        except Exception as error:  # noqa: BLE001  whatever it was, what was measured is worth nothing
            self._failed = error


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.console", description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000, help="recorded calls (1,000,000)")
    parser.add_argument(
        "--use", type=Path, metavar="FILE", help="a store that --keep left, in place of a new one"
    )
    parser.add_argument("--keep", type=Path, metavar="FILE", help="leave a copy of the filled store there")
    parser.add_argument("--times", type=int, default=TIMES, help="that every page is asked for (10); 0: none")
    parser.add_argument(
        "--rounds", type=int, default=4, help="of load, alone and beside a person (4); 0: none"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of load each (20)")
    parser.add_argument(
        "--pause", type=float, default=0.0, help="seconds between two calls of a connection (0)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
