"""What a process and its children use: memory and CPU, from /proc (Linux)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_QUIET_SAMPLE_S = 0.2
_QUIET_TICKS = 1


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Megabytes (10^6) over the process tree. Pages that the tree shares count for each process in `rss_mb`,
    once in `pss_mb`."""

    rss_mb: float
    pss_mb: float
    processes: int


def tree(pid: int) -> list[int]:
    """The process and every living descendant. Those that end meanwhile are left out."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return found


def memory(pid: int) -> Memory:
    pids = tree(pid)
    rss = sum(_kilobytes(f"/proc/{p}/status", "VmRSS") for p in pids)
    pss = sum(_kilobytes(f"/proc/{p}/smaps_rollup", "Pss") for p in pids)
    return Memory(rss_mb=rss * 1024 / 1e6, pss_mb=pss * 1024 / 1e6, processes=len(pids))


def _kilobytes(path: str, field: str) -> int:
    try:
        text = Path(path).read_text()
    except OSError:
        return 0
    match = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) if match else 0


def cpu_ticks(pid: int) -> int:
    """User and system time of the tree, its reaped children included, in clock ticks."""
    return sum(_ticks(p) for p in tree(pid))


def cpu_seconds(pid: int) -> float:
    return cpu_ticks(pid) / _TICKS_PER_S


def _ticks(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])


def wait_until_quiet(pid: int, limit_s: float, sleep: Callable[[float], None] = time.sleep) -> float:
    """Wait until the tree uses under 5% of a core, `limit_s` at most; the seconds it took to get there."""
    begun = time.perf_counter()
    before = cpu_ticks(pid)
    while True:
        waited = time.perf_counter() - begun
        if waited >= limit_s:
            return waited
        sleep(_QUIET_SAMPLE_S)
        after = cpu_ticks(pid)
        if after - before <= _QUIET_TICKS:
            return waited
        before = after
