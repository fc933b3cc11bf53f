"""Taking one measurement: a load in its own process against one server, and what the server used."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time

import msgspec

from bench.figures import LoadResult, Sample
from bench.results import Export, Startup
from bench.servers import ROOT, Server, fetch
from bench.sink import SpanCount
from bench.usage import cpu_seconds, memory, wait_until_quiet
from bench.workload import Prompt, Reply, Workload

_seeds = itertools.count(1)
_EXPORT_POLL_S = 0.1
FIRST_CALL = Workload(1, Reply.WHOLE, Prompt.SMALL)
MANY_CALLS = Workload(32, Reply.WHOLE, Prompt.SMALL)
WARM_UP_CALLS = 200


class LoadError(Exception):
    """The load generator itself failed, which says nothing about the server."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """How long to measure. `drain_s` bounds the wait for what a server still does after the last reply."""

    warmup_s: float
    seconds: float
    drain_s: float
    pause_s: float = 0.0
    """Between two calls of a connection."""


class Exported:
    """Waits until the sink holds a span for every call that the proxy has answered since this began."""

    def __init__(self, sink: Server) -> None:
        self._sink = sink
        self._before = self._count()
        self._due = self._before.spans
        self.calls = 0

    def wait(self, calls: int, limit_s: float) -> None:
        """`calls` more were answered. After `limit_s` it gives up on what is missing, for good."""
        self.calls += calls
        self._due += calls
        until = time.perf_counter() + limit_s
        while (seen := self._count().spans) < self._due:
            if time.perf_counter() >= until:
                self._due = seen
                return
            time.sleep(_EXPORT_POLL_S)

    def result(self, limit_s: float) -> Export:
        """The count, once every span has come, or `limit_s` have passed."""
        self._due = self._before.spans + self.calls
        self.wait(0, limit_s)
        now = self._count()
        return Export(
            calls=self.calls,
            spans=now.spans - self._before.spans,
            duplicates=now.duplicates - self._before.duplicates,
        )

    def _count(self) -> SpanCount:
        return msgspec.json.decode(fetch(self._sink.port, "/stats")[1], type=SpanCount)


def take(server: Server, workload: Workload, window: Window, exported: Exported | None = None) -> Sample:
    """Measure once. CPU includes the drain: work put off until after the reply is still the server's work."""
    arguments = [f"--seconds={window.seconds}", f"--warmup={window.warmup_s}", f"--pause={window.pause_s}"]
    before = cpu_seconds(server.pid)
    result = _load(server, workload, arguments)
    ended = time.perf_counter()
    if exported:
        exported.wait(result.answered, window.drain_s)
    waited = time.perf_counter() - ended
    drained = waited + wait_until_quiet(server.pid, max(window.drain_s - waited, 0.0))
    used = cpu_seconds(server.pid) - before
    return Sample(load=result, cpu_us=used / max(result.answered, 1) * 1e6, drain_s=drained)


def warm_up(server: Server) -> LoadResult:
    """The first calls of a server, which load what is loaded lazily."""
    return send(server, MANY_CALLS, WARM_UP_CALLS)


def send(server: Server, workload: Workload, count: int) -> LoadResult:
    """Send exactly `count` requests."""
    return _load(server, workload, [f"--count={count}"])


def startup(server: Server, ready_s: tuple[float, ...], calls: int) -> tuple[Startup, tuple[str, ...]]:
    """Memory of a server that has just started, over its first `calls` calls, and the errors among them."""
    before = memory(server.pid)
    first = send(server, FIRST_CALL, 1)
    wait_until_quiet(server.pid, 5.0)
    counted = memory(server.pid)
    many = send(server, MANY_CALLS, calls - 1)
    wait_until_quiet(server.pid, 5.0)
    found = Startup(
        ready_s=ready_s,
        before_first_call=before,
        after_first_call=counted,
        after_calls=memory(server.pid),
        calls=calls,
    )
    return found, (*first.problems, *many.problems)


def _load(server: Server, workload: Workload, arguments: list[str]) -> LoadResult:
    command = [
        *(
            sys.executable,
            "-m",
            "bench.load",
            f"--port={server.port}",
            f"--connections={workload.connections}",
        ),
        *(f"--reply={workload.reply}", f"--prompt={workload.prompt}", f"--deltas={workload.deltas}"),
        *(f"--caller={workload.caller}", f"--upstream={workload.upstream}"),
        *(f"--seed={next(_seeds)}", *arguments),
    ]
    environment = {**os.environ, "BENCH_KEY": server.key}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    try:
        return msgspec.json.decode(done.stdout, type=LoadResult)
    except msgspec.DecodeError as error:
        raise LoadError(
            f"the load generator ended with status {done.returncode}: {done.stderr.decode()[-2000:]}"
        ) from error
