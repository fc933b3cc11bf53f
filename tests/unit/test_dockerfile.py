"""The Dockerfile, read as instructions: what an image built from it would be. No engine is needed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction with its continuation lines joined: `RUN`, `["a", "b"]`."""

    name: str
    value: str

    def flags(self) -> list[str]:
        return [word for word in self.value.split() if word.startswith("--")]

    def argv(self) -> list[str]:
        """The exec form's words; raises where the instruction is in shell form."""
        _, _, after = self.value.rpartition("CMD ") if self.name == "HEALTHCHECK" else ("", "", self.value)
        words = json.loads(after)
        assert isinstance(words, list)
        return [str(word) for word in words]


def read_instructions() -> list[Instruction]:
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.split(None, 1) for line in joined.splitlines())
    return [Instruction(name.upper(), value.strip()) for name, value in pairs]


def read_stages() -> list[list[Instruction]]:
    stages: list[list[Instruction]] = []
    for instruction in read_instructions():
        if instruction.name == "FROM":
            stages.append([])
        stages[-1].append(instruction)
    return stages


def final(name: str) -> list[Instruction]:
    return [instruction for instruction in read_stages()[-1] if instruction.name == name]


def test_bases_are_pinned_to_one_python_and_nothing_is_fetched_over_http() -> None:
    bases = {stage[0].value.split()[0] for stage in read_stages()}
    assert len(read_stages()) == 2
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", bases.pop())
    for instruction in read_instructions():
        assert instruction.name != "ADD"
        assert "index" not in instruction.value
        assert not re.search(r"https?://", instruction.value)


def test_the_base_is_a_python_that_the_project_names() -> None:
    version = re.match(r"python:(3\.\d+)", read_stages()[-1][0].value)
    assert version is not None
    assert f"Python :: {version[1]}" in (ROOT / "pyproject.toml").read_text()


def test_requirements_are_installed_by_hash_and_the_project_without_dependencies() -> None:
    installs = [i.argv() for i in read_instructions() if i.name == "RUN" and "install" in i.argv()[1:]]
    locked, project = [argv for argv in installs if argv[0].endswith("pip")]
    assert locked[-2:] == ["-r", "requirements.txt"]
    assert {"--require-hashes", "--only-binary=:all:"} <= set(locked)
    assert {"--no-deps", "--no-build-isolation"} <= set(project)


def test_every_copied_source_is_in_the_tree_and_in_the_build_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = [i for i in read_instructions() if i.name == "COPY" and not i.flags()]
    sources = [source for copy in copies for source in shlex.split(copy.value)[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in allowed
    assert set(sources) == allowed


def test_the_stages_share_one_environment() -> None:
    (copy,) = final("COPY")
    (flag,) = copy.flags()
    assert f"AS {flag.removeprefix('--from=')}" in read_stages()[0][0].value
    source, target = copy.value.split()[1:]
    assert source == target
    assert any(i.name == "RUN" and i.argv() == ["python", "-m", "venv", source] for i in read_stages()[0])
    assert any(f"PATH={source}/bin:" in env.value for env in final("ENV"))


def test_the_server_runs_as_nobody_in_a_directory_that_is_its_own() -> None:
    (user,) = final("USER")
    uid, gid = user.value.split(":")
    assert int(uid) >= 1000
    assert int(gid) >= 1000
    (made,) = (run.argv() for run in final("RUN"))
    assert {f"--owner={uid}", f"--group={gid}"} <= set(made)
    assert [i.value for i in final("WORKDIR")] == [made[-1]]
    assert [i.argv() for i in final("VOLUME")] == [[made[-1]]]
    names = [i.name for i in read_stages()[-1]]
    assert not {"RUN", "COPY"} & set(names[names.index("USER") :])


def test_signals_reach_the_server() -> None:
    (entry,), (command,), (signal,) = final("ENTRYPOINT"), final("CMD"), final("STOPSIGNAL")
    assert entry.argv() == ["llm-proxy"]
    assert command.argv()[0] == "serve"
    assert signal.value == "SIGTERM"


def test_no_secret_and_no_bytecode_ban_in_the_environment() -> None:
    for env in [i for i in read_instructions() if i.name in {"ENV", "ARG"}]:
        assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD|DONTWRITEBYTECODE", env.value)


class _Health(BaseHTTPRequestHandler):
    statuses: ClassVar[dict[str, int]] = {}

    def do_GET(self) -> None:
        self.send_response(self.statuses.get(self.path, 404))
        self.end_headers()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """The test's output stays clean."""


@pytest.fixture
def health_port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), _Health)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1)])
def test_the_health_check_tells_alive_from_ill(
    health_port: int, status: int, exit_status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Health, "statuses", {"/health/live": status})
    (check,), (exposed,) = final("HEALTHCHECK"), final("EXPOSE")
    argv = check.argv()
    assert argv[0] == "python"
    assert exposed.value in argv[-1]
    code = argv[-1].replace(exposed.value, str(health_port))
    done = subprocess.run([sys.executable, *argv[1:-1], code], check=False, capture_output=True, timeout=20)
    assert done.returncode == exit_status


def test_the_health_check_asks_the_port_that_is_served() -> None:
    (command,), (exposed,) = final("CMD"), final("EXPOSE")
    argv = command.argv()
    assert argv[argv.index("--port") + 1] == exposed.value
    assert argv[argv.index("--host") + 1] == "0.0.0.0"
