"""An OpenTelemetry Collector for tests: the real program, with otel-collector.yaml as it stands."""

from __future__ import annotations

import gzip
import os
import subprocess
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "otel-collector.yaml"
PROGRAM = Path(os.environ.get("OTELCOL") or ROOT / ".otelcol" / "otelcol")
"""An otelcol-contrib, or what `make test-collector` builds."""
START_S = 60.0


def host_of_our_own() -> str:
    """An address for its fixed ports that no other test process has; Linux listens on all of 127/8."""
    return f"127.{os.getpid() >> 16 & 127 | 64}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


def validated(**environ: str) -> subprocess.CompletedProcess[str]:
    """What the program itself says of the file."""
    assert PROGRAM.exists(), f"{PROGRAM} isn't there: run `make test-collector`, which builds it"
    return subprocess.run(
        [str(PROGRAM), "validate", "--config", str(CONFIG)],
        env={name: value for name, value in os.environ.items() if name != "OTLP_BACKEND"} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Collector:
    """One collector, its storage in `folder`. The file reads `environ`; `more` are settings over it."""

    def __init__(self, folder: Path, *more: str, **environ: str) -> None:
        self.host = host_of_our_own()
        self._folder = folder
        self._more = more
        self._environ = {"OTELCOL_STORAGE": str(folder / "queue"), "OTELCOL_HOST": self.host} | environ
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where it takes OTLP/HTTP."""
        return f"http://{self.host}:4318"

    @property
    def grpc_endpoint(self) -> str:
        return f"http://{self.host}:4317"

    def start(self) -> None:
        """Returns once it is healthy; fails the test where it isn't within `START_S`."""
        assert PROGRAM.exists(), f"{PROGRAM} isn't there: run `make test-collector`, which builds it"
        configs = ["--config", str(CONFIG), *(word for more in self._more for word in ("--config", more))]
        with (self._folder / "collector.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(PROGRAM), *configs], env=os.environ | self._environ, stdout=log, stderr=log
            )
        ends = time.monotonic() + START_S
        while not self._is_healthy():
            if self._process.poll() is not None or time.monotonic() > ends:
                pytest.fail(f"the collector did not come up:\n{self.log()[-4_000:]}")
            time.sleep(0.1)

    def kill9(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill9()
        self._process = None

    def log(self) -> str:
        return (self._folder / "collector.log").read_text()

    def queued(self, exporter: str) -> int:
        """How much waits in an exporter's queue, by the collector's own metrics."""
        with urllib.request.urlopen(f"http://{self.host}:8888/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        return sum(
            int(float(line.rsplit(" ", 1)[1]))
            for line in lines
            if line.startswith("otelcol_exporter_queue_size{") and f'exporter="{exporter}"' in line
        )

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.host}:13133/", timeout=5) as reply:
                return reply.status == 200
        except OSError:
            return False


@contextmanager
def collecting(collector: Collector) -> Generator[Collector]:
    """The collector runs until this ends, however it ends."""
    collector.start()
    try:
        yield collector
    finally:
        collector.stop()


class Paths:
    """A backend that takes anything: how many requests came to each path, and their bytes."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self._changed = threading.Condition()
        paths = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                with paths._changed:
                    paths.seen[self.path] += 1
                    paths.bytes[self.path] += len(body)
                    paths._changed.notify_all()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
                """Tests say what they need themselves."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Paths:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait_for(self, path: str, size: int) -> bool:
        """Waits until `size` bytes came to a path."""
        with self._changed:
            return self._changed.wait_for(lambda: self.bytes[path] >= size, 30)
