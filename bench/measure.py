"""Taking one measurement: a load in its own process against one server, and what the server used."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import msgspec

from bench.figures import LoadResult, Sample
from bench.results import Startup
from bench.servers import ROOT, Server
from bench.usage import cpu_seconds, memory, wait_until_quiet
from bench.workload import Prompt, Reply, Workload

_seeds = itertools.count(1)
FIRST_CALL = Workload(1, Reply.WHOLE, Prompt.SMALL)
MANY_CALLS = Workload(32, Reply.WHOLE, Prompt.SMALL)


class LoadError(Exception):
    """The load generator itself failed, which says nothing about the server."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """How long to measure. `drain_s` bounds the wait for what a server still does after the last reply."""

    warmup_s: float
    seconds: float
    drain_s: float


def take(server: Server, workload: Workload, window: Window) -> Sample:
    """Measure once. CPU includes the drain: work put off until after the reply is still the server's work."""
    arguments = [f"--seconds={window.seconds}", f"--warmup={window.warmup_s}"]
    before = cpu_seconds(server.pid)
    result = _load(server, workload, arguments)
    drained = wait_until_quiet(server.pid, window.drain_s)
    used = cpu_seconds(server.pid) - before
    return Sample(load=result, cpu_us=used / max(result.answered, 1) * 1e6, drain_s=drained)


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
        *(f"--reply={workload.reply}", f"--prompt={workload.prompt}", f"--seed={next(_seeds)}", *arguments),
    ]
    environment = {**os.environ, "BENCH_KEY": server.key}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=False)
    try:
        return msgspec.json.decode(done.stdout, type=LoadResult)
    except msgspec.DecodeError as error:
        raise LoadError(
            f"the load generator ended with status {done.returncode}: {done.stderr.decode()[-2000:]}"
        ) from error
