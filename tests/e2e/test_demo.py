"""`llm-proxy demo` from end to end: the story, the report, the commands, and a server that always ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llm_proxy.config import load_config
from llm_proxy.demo import stage
from llm_proxy.demo.stage import DemoFailed, DirectoryTaken, prepare, serving
from llm_proxy.policy.cases import run_cases
from llm_proxy.policy.load import load_policy
from tests.proxy import until

COMMAND = (sys.executable, "-m", "llm_proxy", "demo")


def environ(**more: str) -> dict[str, str]:
    """No key, and an HTTP proxy that leads nowhere: the demo needs neither key nor network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "ALL_PROXY")
    nowhere = dict.fromkeys(names, "http://127.0.0.1:9")
    return kept | nowhere | {"COLUMNS": "80"} | more


def play(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args], env=environ(**more), capture_output=True, text=True, timeout=120, check=False
    )


def port_of(directory: Path) -> int:
    """Where the demo's server listened, from its log."""
    found = re.search(r"running on http://127\.0\.0\.1:(\d+)", (directory / "server.log").read_text())
    assert found is not None
    return int(found[1])


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One demo, and the directory that it kept."""
    directory = tmp_path_factory.mktemp("demo") / "with a blank"
    return directory, play("--dir", str(directory))


def test_it_tells_the_story_to_its_end(played: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = played
    assert (done.returncode, done.stderr) == (0, "")
    told = (
        "Run refund-A-1042",
        "support-agent, team support",
        "My coffee machine (order",
        "The customer says that the coffee machine",
        "✔ allowed by tier:autonomous",
        'refund_create(order="A-1042", amount=240.0)',
        "✖ denied by rule no-approver",
        "received   instead: kb_search, and the text",
        "ticket_note(ticket=",
        "4 calls in",
        "4 tool calls proposed: 3 allowed, 1 denied by no-approver",
        "2 streamed   kb_search, ✖ refund_create   kb_search + a note (no-approver)",
        "a person has to approve the refund",
        "per-run        run    usd",
        "Where to look next",
    )
    places = [done.stdout.index(part) for part in told]
    assert places == sorted(places)


def test_in_a_pipe_it_is_plain_and_fits_80_columns(
    played: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    report, _, commands = played[1].stdout.partition("━━ Where to look next")
    assert "\x1b" not in report + commands
    assert max(map(len, report.splitlines())) <= 80
    assert [line for line in report.splitlines() if line != line.rstrip()] == []


def test_the_commands_that_it_prints_work_as_they_stand(
    played: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    directory, done = played
    _, _, rest = done.stdout.partition("Where to look next")
    commands = [line.strip() for line in rest.splitlines() if "-m llm_proxy" in line]
    assert [re.findall(r"llm_proxy (\w+)", command)[0] for command in commands] == [
        "runs",
        "calls",
        "audit",
        "agents",
        "keys",
        "serve",
    ]
    for command in commands[:-1]:
        again = subprocess.run(
            ["/bin/sh", "-c", command],
            env=environ(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert again.returncode == 0, (command, again.stderr)
        if "runs show" in command:
            assert again.stdout.strip() in done.stdout
        if "calls show" in command:
            verdicts = {d["tool"]: d["decision"] for d in json.loads(again.stdout)["decisions"]}
            assert verdicts == {"kb_search": "allow", "refund_create": "deny"}
        if "keys issue" in command:
            assert again.stdout.startswith("lp-")
    assert shlex.split(commands[-1])[-1] == str(directory / "proxy.yaml")


def test_its_files_are_sound_and_hold_no_agents_key(
    played: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    directory, _ = played
    config = load_config(directory / "proxy.yaml", {})
    assert config.warnings == ()
    assert config.policy is not None
    assert run_cases(load_policy(config.policy)).passed
    assert stat.S_IMODE((directory / "admin-token").stat().st_mode) == 0o600
    assert not [
        path for path in directory.iterdir() if b"lp-" in path.read_bytes().replace(b"llm-proxy", b"")
    ]


def test_its_server_is_gone_and_ended_in_order(
    played: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    directory, _ = played
    assert not listens(port_of(directory))
    assert "Finished server process" in (directory / "server.log").read_text()


def test_a_colour_terminal_gets_colour() -> None:
    done = play(FORCE_COLOR="1", COLUMNS="100")
    assert done.returncode == 0
    assert "\x1b[1;31m✖ denied\x1b[0m" in done.stdout
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in done.stdout.splitlines()[:90]) <= 100
    kept = re.findall(r"Everything is kept in (\S+)", re.sub(r"\x1b\[[0-9;]*m", "", done.stdout))
    for path in (directory := Path(kept[0])).iterdir():
        path.unlink()
    directory.rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_its_server_ends_with_it_whatever_ends_it(number: signal.Signals, tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "--dir", str(directory)),
        env=environ(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = directory / "server.log"
    await until(lambda: log.exists() and "running on" in log.read_text(), "the server listens")
    process.send_signal(number)
    assert await asyncio.wait_for(process.wait(), 30) != 0
    assert not listens(port_of(directory))


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = play("--dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not empty" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(DirectoryTaken):
        prepare(tmp_path, "key", "token")


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = play("--dir", str(tmp_path / "file" / "demo"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "Not a directory" in done.stderr


def test_a_server_that_does_not_come_up_fails_the_demo_with_its_log(tmp_path: Path) -> None:
    prepare(tmp_path / "demo", "a-key-of-the-tests-0001", "a-token-of-the-tests-01")
    config = tmp_path / "demo" / "proxy.yaml"
    config.write_text(config.read_text().replace("agents:", "agnets:"))
    with pytest.raises(DemoFailed, match="ended at once, with status 2"), serving(config):
        raise AssertionError("the server must not come up")
    assert "did you mean" in stage.last_lines(config)
