"""Retention by a real proxy: killed in the middle of a sweep, under load, with holds, a copy and commands."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import Engine, func, select
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.evidence import BlobDraft, Evidence
from llm_proxy.records.ids import now_us
from llm_proxy.records.tables import blobs
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.contract.aged import House, house
from tests.either_store import SQLITE_FIRST
from tests.either_store import store as store
from tests.proxy import KEY, ProxyProcess, ask, config, headers, until
from tests.stores import store as opened

pytest_plugins = ["tests.postgres"]

SCRIPT = "default: {turns: [{text: Hello, usage: {input: 9, output: 2}}]}"
ADMIN, READER = "admin-token-long-enough-0001", "spend-token-long-enough-0001"
MANY = 2_500


async def _fill(at: House) -> None:
    """Content of no call, as much as makes a sweep last."""
    for start in range(0, MANY, 500):
        drafts: list[BlobDraft] = []
        for n in range(start, start + 500):
            at.writer.addresser.draft(f"{n} of the things that were said".encode() * 20, drafts)
        evidence = Evidence(blobs=tuple(drafts))
        await at.writer.submit(Job(lambda _, evidence=evidence: Wrote(None, evidence)))


def _left(engine: Engine, older_than: int) -> int:
    query = select(func.count()).select_from(blobs).where(blobs.c.epoch < older_than)
    with engine.connect() as connection:
        return connection.execute(query).scalar_one()


class Commands:
    """The command line, beside a proxy at `port`."""

    def __init__(self, folder: Path, port: int) -> None:
        told = json.loads((folder / "proxy.yaml").read_text())
        told.setdefault("server", {})["port"] = port
        self._file = folder / "cli.yaml"
        self._file.write_text(json.dumps(told))

    async def __call__(self, *arguments: str, token: str = ADMIN, status: int = 0) -> Any:
        environ = {"NO_COLOR": "1", "COLUMNS": "250", "LLM_PROXY_CONFIG": "", "LLM_PROXY_TOKEN": token}
        command = [*arguments, "--json", "--config", str(self._file)]
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
        assert result.exit_code == status, (result.stdout, result.stderr)
        return json.loads(result.stdout) if result.stdout else result.stderr


async def _calls(proxy: ProxyProcess, over: asyncio.Event) -> list[float]:
    """Calls one after the other until it's over; how long each took."""
    took: list[float] = []
    async with aiohttp.ClientSession() as http:
        while not over.is_set():
            began = time.perf_counter()
            with contextlib.suppress(aiohttp.ClientError):
                async with http.post(proxy.url, json=ask("again"), headers=headers()) as reply:
                    assert reply.status == 200, await reply.text()
                    await reply.read()
                took.append(time.perf_counter() - began)
    return took


@SQLITE_FIRST
async def test_a_sweep_is_killed_resumed_and_loads_no_call(store: str, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    now = now_us() // 1_000_000 * 1_000_000  # what both calls leave begins with the same millisecond
    today = now // 86_400_000_000
    with opened(store) as engine:
        async with house(engine, 40, now=now) as old:
            held, gone = await old.call("held"), await old.call("gone", say="else")
            await _fill(old)
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            store=store,
            server={"drain_s": 1, "admin_token": ADMIN},
            records={"retention_days": 30, "export_before_delete": str(copies)},
            operators=[{"id": "sam@example.com", "roles": ["spend-reader"], "token": READER}],
        )
        proxy = ProxyProcess(tmp_path, settings)
        cli = Commands(tmp_path, proxy.port)
        # Nobody runs yet: the hold is placed in the store itself.
        placed = await cli("holds", "place", "held", "--reason", "request 7")
        assert (placed["changed"], placed["by"], placed["days_deleted"]) == (True, "admin_token", [])
        (due,) = await cli("retention", "run", "--dry-run")
        assert due["blobs"] == MANY + 5
        assert due["kept"] == 7
        await proxy.start()
        try:
            await until(lambda: 7 < _left(proxy.engine, today - 30) < MANY, "the sweep is under way", 30)
            proxy.kill9()
            left = _left(proxy.engine, today - 30)
            assert left > 7
            report = await cli("audit", "verify")
            assert report["intact"], report
            await proxy.restart()
            over = asyncio.Event()
            calling = asyncio.create_task(_calls(proxy, over))
            await until(lambda: _left(proxy.engine, today - 30) == 7, "the sweep went on to its end", 60)
            over.set()
            took = await calling
            assert len(took) > 3
            assert max(took) < 3
            await _told(cli, proxy, held.id, gone.id, copies)
        finally:
            await proxy.terminate()
            proxy.engine.dispose()
        report = await cli("audit", "verify")
        assert report["intact"], report
        assert report["deleted"] == MANY + 12


async def _told(cli: Commands, proxy: ProxyProcess, held: str, gone: str, copies: Path) -> None:
    """What commands and /admin say of it; then the hold is released."""
    (file,) = copies.iterdir()  # noqa: ASYNC240
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert {line["call"]["id"] for line in lines[1:-1]} == {held, gone}
    status = await cli("retention", "status")
    assert (status["holds"], status["held_runs"], status["due"]) == (1, 1, [])
    (day,) = status["deleted"]
    assert (day["blobs"], day["kept"]) == (MANY + 5, 7)
    shown = await cli("calls", "show", gone)
    # Of the same millisecond, and so at the same address as the held run's: its reply is kept.
    assert (shown["kept"], shown["request"]) == (False, None)
    assert (await cli("calls", "show", held))["kept"]
    async with aiohttp.ClientSession() as http:
        for token, path, expected in (
            (READER, "/retention", 403),
            (READER, "/legal-holds", 403),
            (KEY, "/retention", 403),
            (ADMIN, "/retention?limit=5", 200),
        ):
            bearer = {"authorization": f"Bearer {token}"}
            async with http.get(f"{proxy.origin}/admin{path}", headers=bearer) as reply:
                assert reply.status == expected
    await cli("retention", "run", token=READER, status=2)
    assert (await cli("retention", "run"))["days"] == []
    released = await cli("holds", "release", "held", "--reason", "settled")
    assert (released["changed"], released["days_deleted"]) == (True, [day["day"]])
    assert await cli("holds", "list") == []
    (line,) = (await cli("retention", "run"))["days"]
    assert (line["blobs"], line["kept"]) == (MANY + 12, 0)
    assert not (await cli("calls", "show", held))["kept"]
    await cli("holds", "release", "gone", "--reason", "none", status=1)
