"""Facts about where a benchmark ran, so that two result files can be compared honestly."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

_PACKAGES = ("llm-proxy", "uvicorn", "uvloop", "httptools", "aiohttp", "msgspec", "sqlalchemy", "tiktoken")


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """`commit` is empty outside a checkout. `store_filesystem` matters: on tmpfs a sync costs nothing."""

    cores: int
    cpu: str
    memory_mb: int
    kernel: str
    python: str
    sqlite: str
    packages: dict[str, str]
    commit: str
    store_filesystem: str
    load_average: float
    """Of the minute before the start: over 1, something else was using the machine."""


def describe(store: Path) -> Machine:
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu=_field("/proc/cpuinfo", "model name"),
        memory_mb=int(_field("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        kernel=platform.release(),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        packages={name: _version(name) for name in _PACKAGES},
        commit=commit(Path(__file__).resolve().parent.parent / ".git"),
        store_filesystem=filesystem(store),
        load_average=os.getloadavg()[0],
    )


def commit(git: Path) -> str:
    """The commit that is checked out, read from its files: the benchmark needs no git."""
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        ref = head.removeprefix("ref: ")
        if (git / ref).exists():
            return (git / ref).read_text().strip()
        packed = (git / "packed-refs").read_text()
    except OSError:
        return ""
    found = re.search(rf"^([0-9a-f]+) {re.escape(ref)}$", packed, re.MULTILINE)
    return found[1] if found else ""


def filesystem(path: Path) -> str:
    """Type of the file system that holds `path`: the longest mount point that is its parent."""
    best, kind = "", "unknown"
    target = str(path.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, mount_kind, *_ = line.split(" ")
        inside = target == mount or target.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, mount_kind
    return kind


def _field(path: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", Path(path).read_text(), re.MULTILINE)
    return found[1].strip() if found else "0"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
