"""The demo's stage: a directory with config, policy and model, and the real server on a free port."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from llm_proxy.identity.keyring import hash_key

START_S = 30.0
STOP_S = 10.0
_LISTENING = re.compile(r"running on (http://[^ ]+)")
_MODEL = files("llm_proxy.scripted").joinpath("demo.yaml")


class DirectoryTaken(Exception):
    """The directory holds something already, and the demo overwrites nothing."""


class DemoFailed(Exception):
    """The demo could not be played; the message says why and, where the server did, what its log says."""


def prepare(directory: Path, agent_key: str, admin_token: str, otlp: str | None = None) -> None:
    """Writes everything that the server needs into `directory`: proxy.yaml and what it names.

    With `otlp`, a trace backend's base address, spans are sent there.
    Raises OSError, and `DirectoryTaken` before anything is written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise DirectoryTaken(f"{directory} is not empty, and nothing is overwritten: name another --dir.")
    token = directory / "admin-token"
    token.touch(0o600)
    token.write_text(admin_token, "utf-8")
    store = json.dumps(f"sqlite:///{directory.absolute() / 'llm-proxy.db'}").replace("$", "$$")
    config = _ours("proxy.yaml").replace("@STORE@", store).replace("@AGENT_KEY_SHA256@", hash_key(agent_key))
    if otlp is not None:
        config += f"\ntelemetry: {{otlp_endpoint: {json.dumps(otlp).replace('$', '$$')}}}\n"
    for name, text in (
        ("proxy.yaml", config),
        ("policy.yaml", _ours("policy.yaml")),
        ("model.yaml", _MODEL.read_text("utf-8")),
    ):
        (directory / name).write_text(text, "utf-8")


def _ours(name: str) -> str:
    return files("llm_proxy.demo").joinpath(name).read_text("utf-8")


@contextmanager
def serving(config: Path) -> Generator[str]:
    """The proxy's origin, such as `http://127.0.0.1:41234`; the server ends with this, however it ends.

    Raises `DemoFailed` where it does not come up.
    """
    log = config.with_name("server.log")
    with log.open("wb") as output:
        # A session of its own: Ctrl-C reaches this process, which then ends the server in order.
        server = subprocess.Popen(  # noqa: S603 (this very program)
            [sys.executable, "-m", "llm_proxy", "serve", "--config", str(config), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={name: value for name, value in os.environ.items() if not name.startswith("LLM_PROXY_")},
            start_new_session=True,
        )
    try:
        yield _origin(server, log)
    finally:
        _end(server)


def last_lines(config: Path, lines: int = 12) -> str:
    """The end of the server's log; empty where there is none."""
    log = config.with_name("server.log")
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:]) if log.exists() else ""


def _origin(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = _LISTENING.search(log.read_text("utf-8", "replace"))
        if found is not None:
            return found[1]
        if server.poll() is not None:
            raise DemoFailed(f"The server ended at once, with status {server.returncode}.")
        time.sleep(0.02)
    raise DemoFailed(f"The server did not come up within {START_S:.0f} s.")


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def command_name() -> str:
    """How the `llm-proxy` command is called from here, so that it can be pasted into this shell."""
    called = sys.argv[0]
    if Path(called).name != "llm-proxy":
        return f"{shlex.quote(sys.executable)} -m llm_proxy"
    found = shutil.which("llm-proxy")
    return "llm-proxy" if found and Path(found).samefile(called) else shlex.quote(called)
