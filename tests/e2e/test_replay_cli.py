"""`llm-proxy runs replay` as a command: what it prints, how it ends, and that the reading is on record."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from sqlalchemy import select, text
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.records.content_reads import read_content_read
from llm_proxy.records.tables import records
from llm_proxy.replaying.from_file import run_in
from llm_proxy.replaying.recorded import NotReplayable
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.replay_house import SCRIPT
from tests.proxy import ProxyProcess, ask, config, headers

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXTS = ("one", "two", "three")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ProxyProcess]:
    """It has ended; its store holds run `told` of three calls."""
    async with running(parse_script(SCRIPT)) as upstream:
        async with ProxyProcess(tmp_path_factory.mktemp("proxy"), config(upstream.base_url)) as started:
            async with aiohttp.ClientSession() as http:
                for each in TEXTS:
                    asked = http.post(started.url, json=ask(each), headers=headers(x_run_id="told"))
                    async with asked as reply:
                        assert reply.status == 200
            await started.settled()
        yield started


async def _command(proxy: ProxyProcess, *args: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_proxy", "runs", "replay", "told", *args, *_config(proxy)),
        stdout=pipe,
        stderr=pipe,
    )


def _config(proxy: ProxyProcess) -> list[str]:
    return ["--config", str(Path(proxy.store.removeprefix("sqlite:///")).parent / "proxy.yaml")]


async def _opened(process: asyncio.subprocess.Process) -> tuple[str, str]:
    """Where it listens, and the key that it printed."""
    assert process.stderr is not None
    said = ""
    while "the key for this replay" not in said:
        line = (await process.stderr.readline()).decode()
        assert line, said
        said += line
    origin, key = re.search(r"at (http://127\.0\.0\.1:\d+)", said), re.search(r"replay-\S+", said)
    assert origin
    assert key
    return origin[1], key[0]


async def _ask(origin: str, key: str, *texts: str) -> list[str]:
    verdicts: list[str] = []
    async with aiohttp.ClientSession() as http:
        for each in texts:
            url = f"{origin}/v1/chat/completions"
            async with http.post(url, json=ask(each), headers=headers(key)) as reply:
                verdicts.append(reply.headers["x-replay"])
    return verdicts


async def test_it_ends_by_itself_where_the_agent_followed(proxy: ProxyProcess) -> None:
    process = await _command(proxy, "--json", "--linger", "0")
    assert await _ask(*await _opened(process), *TEXTS) == ["same"] * 3
    out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    report = json.loads(out)
    assert (report["followed"], report["calls"], report["replayed"]) == (True, 3, 3)
    with proxy.engine.connect() as connection:
        query = select(records.c.run_id, records.c.body).where(records.c.kind == "content.read")
        (row,) = connection.execute(query).all()
    read = read_content_read(bytes(row.body))
    assert (row.run_id, read.what, read.call_count, read.place) == ("told", "runs replay", 3, "cli")
    assert read.by.startswith("command line (OS user ")


async def test_a_signal_ends_it_with_the_report(proxy: ProxyProcess) -> None:
    process = await _command(proxy)
    assert await _ask(*await _opened(process), "one", "else") == ["same", "diverged"]
    process.send_signal(signal.SIGTERM)
    out, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().splitlines() == [
        "Request 2 diverged at call 2, message 1: asked something else.",
        "  messages[0].content",
        "    recorded: two",
        "    live:     else",
    ]
    assert out.decode().splitlines() == [
        "The agent did not follow run told: 1 of 3 calls replayed, 1 diverged.",
        "It first diverged at call 2, message 1: asked something else.",
        "It never asked for 1 of them: 3.",
    ]


async def test_an_export_is_replayed_without_the_store(proxy: ProxyProcess, tmp_path: Path) -> None:
    file, bare = tmp_path / "run.jsonl", tmp_path / "bare.jsonl"
    for args in (["--content", "--out", str(file)], ["--out", str(bare)]):
        command = ["runs", "export", "told", *args, *_config(proxy)]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert result.exit_code == 0, result.stderr
    run = run_in(file)
    assert ([call.call.status for call in run.calls], run.run_id, run.agent_id) == (["ok"] * 3, "told", "bot")
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    for path, said in (
        (bare, "without its content"),
        (cut, "was cut off"),
        (tmp_path / "no", "can't be read"),
    ):
        with pytest.raises(NotReplayable, match=said):
            run_in(path)
    process = await _command(proxy, "--file", str(file), "--linger", "0")
    assert await _ask(*await _opened(process), *TEXTS) == ["same"] * 3
    await process.communicate()
    assert process.returncode == 0


async def test_content_that_is_gone_is_said_before_anything_is_served(proxy: ProxyProcess) -> None:
    with proxy.engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept AS SELECT * FROM blobs"))
        connection.execute(text("DELETE FROM blobs"))
    result = await asyncio.to_thread(CliRunner().invoke, app, ["runs", "replay", "told", *_config(proxy)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is no longer kept" in result.stderr
    with proxy.engine.begin() as connection:
        connection.execute(text("INSERT INTO blobs SELECT * FROM kept"))
