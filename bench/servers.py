"""The processes of a benchmark, started and stopped: mock upstream, span sink, bare pass-through, proxy."""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where `bench` and `llm_proxy` are imported from."""

PROXY_CONFIG = ROOT / "bench" / "proxy.yaml"
_POLL_S = 0.01
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 30.0
_LOG_TAIL = 3000


class StartError(Exception):
    """A server ended, or never got ready. The message holds the end of what it logged."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A running server. `ready_s` is from its start to the first 200 of /health/ready."""

    name: str
    pid: int
    port: int
    ready_s: float
    key: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetch(port: int, path: str, timeout_s: float = 30.0) -> tuple[int, bytes]:
    """Status and body of one GET. OSError or HTTPException where there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


@contextmanager
def mock(directory: Path) -> Generator[Server]:
    with _module("mock", "bench.mock", [], {}, directory) as server:
        yield server


@contextmanager
def sink(directory: Path) -> Generator[Server]:
    with _module("sink", "bench.sink", [], {}, directory) as server:
        yield server


@contextmanager
def bare(directory: Path, upstream: Server) -> Generator[Server]:
    with _module("bare", "bench.bare", ["--upstream", upstream.url], {}, directory) as server:
        yield server


@contextmanager
def proxy(
    directory: Path,
    upstream: Server,
    spans: Server,
    config: Path = PROXY_CONFIG,
    module: str = "llm_proxy",
) -> Generator[Server]:
    """This proxy, every stage on unless `config` says otherwise, with a fresh store in `directory`."""
    key = f"bench-{secrets.token_urlsafe(32)}"
    environment = {
        "BENCH_KEY": key,
        "BENCH_UPSTREAM": f"{upstream.url}/v1",
        "BENCH_OTLP": spans.url,
        "BENCH_STORE": f"sqlite:///{directory / 'bench.db'}",
    }
    arguments = ["serve", "--config", str(config)]
    with _module("proxy", module, arguments, environment, directory) as server:
        yield msgspec.structs.replace(server, key=key)


@contextmanager
def _module(
    name: str, module: str, arguments: list[str], environment: dict[str, str], directory: Path
) -> Generator[Server]:
    """Run `python -m module arguments --port P` until the block ends, then stop it with SIGTERM."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = directory / f"{name}.log"
    begun = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments, "--port", str(port)],
            env={**os.environ, **environment},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_ready(name, process, port, log, begun + _START_LIMIT_S)
        yield Server(name=name, pid=process.pid, port=port, ready_s=time.perf_counter() - begun)
        if process.poll() is not None:
            raise StartError(f"{name} ended by itself with status {process.returncode}:\n{_tail(log)}")
    finally:
        _stop(process)


def _wait_ready(name: str, process: subprocess.Popen[bytes], port: int, log: Path, until: float) -> None:
    while process.poll() is None:
        if time.perf_counter() > until:
            raise StartError(f"{name} was not ready within {_START_LIMIT_S:.0f} s:\n{_tail(log)}")
        try:
            if fetch(port, "/health/ready", timeout_s=2.0)[0] == http.client.OK:
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(_POLL_S)
    raise StartError(f"{name} ended with status {process.returncode} before it was ready:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-_LOG_TAIL:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
