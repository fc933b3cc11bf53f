"""What recording a call costs: the server's CPU per call, against the same proxy that keeps no record.

`python -m bench.recording`. In turn, round by round: the bare pass-through, the proxy without records
(`bench.unrecorded`), the proxy without export, and the proxy with everything on. The export is told apart
since it works beside the calls, and is held to a share of a core.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import measure, servers
from bench.figures import Sample
from bench.workload import Prompt, Reply, Workload

TARGET = 0.40
"""Of a call's whole CPU."""
CELLS = (
    Workload(32, Reply.WHOLE, Prompt.SMALL),
    Workload(32, Reply.STREAM, Prompt.SMALL),
    Workload(32, Reply.WHOLE, Prompt.HISTORY),
)
BARE, UNRECORDED, RECORDED, EXPORTED = "bare", "no records", "records", "records and export"


def main() -> int:
    options = argparse.ArgumentParser(description="what recording a call costs")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=3.0)
    chosen = options.parse_args()
    window = measure.Window(warmup_s=0.5, seconds=chosen.seconds, drain_s=3.0)
    samples: dict[tuple[Workload, str], list[Sample]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-recording-") as name, ExitStack() as stack:
        running = _started(Path(name), stack)
        for server in running.values():
            measure.warm_up(server)
        for _ in range(chosen.rounds):
            for workload in CELLS:
                for kind, server in running.items():
                    samples[workload, kind].append(measure.take(server, workload, window))
    problems = [problem for taken in samples.values() for sample in taken for problem in sample.load.problems]
    _show(samples)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _started(folder: Path, stack: ExitStack) -> dict[str, servers.Server]:
    mock = stack.enter_context(servers.mock(folder))
    sink = stack.enter_context(servers.sink(folder))
    silent = folder / "silent.yaml"
    told = servers.PROXY_CONFIG.read_text()
    silent.write_text(told.replace('  otlp_endpoint: "${BENCH_OTLP:-http://127.0.0.1:4318}"\n', ""))
    (folder / "policy.yaml").write_text((servers.PROXY_CONFIG.parent / "policy.yaml").read_text())
    every = servers.PROXY_CONFIG
    return {
        BARE: stack.enter_context(servers.bare(folder, mock)),
        UNRECORDED: stack.enter_context(
            servers.proxy(folder / "unrecorded", mock, sink, silent, module="bench.unrecorded")
        ),
        RECORDED: stack.enter_context(servers.proxy(folder / "recorded", mock, sink, silent)),
        EXPORTED: stack.enter_context(servers.proxy(folder / "exported", mock, sink, every)),
    }


def _show(samples: dict[tuple[Workload, str], list[Sample]]) -> None:
    table = Table(title="CPU of the server per call, user and system, in µs (medians over rounds)")
    for column in ("", BARE, UNRECORDED, RECORDED, EXPORTED, "recording", "with export"):
        table.add_column(column, justify="left" if not column else "right")
    worst = 0.0
    for workload in CELLS:
        cost = {
            kind: statistics.median(sample.cpu_us for sample in samples[workload, kind])
            for kind in (BARE, UNRECORDED, RECORDED, EXPORTED)
        }
        share = 1 - cost[UNRECORDED] / cost[RECORDED]
        worst = max(worst, share)
        table.add_row(
            workload.name,
            *(f"{cost[kind]:.0f}" for kind in cost),
            f"{share:.0%}",
            f"{1 - cost[UNRECORDED] / cost[EXPORTED]:.0%}",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    verdict = "met" if worst < TARGET else "missed"
    print(f"Recording takes at most {worst:.0%} of a call's whole CPU; target under {TARGET:.0%}: {verdict}")


if __name__ == "__main__":
    sys.exit(main())
