"""`llm-proxy audit` on the store of a real proxy that was killed and restarted, while it runs and after."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.records.blobs import Codec
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import KEY, ProxyProcess, ask, config, headers

ADMIN, READER, SPENDER = (
    "an-admin-token-0123456789",
    "an-investigator-0123456789",
    "a-spend-reader-0123456789",
)
SECRET = "sk-live-Ab3dEf6hIj9kLm2nOp5qRs8tA"
SCRIPT = f"""
default: {{turns: [{{text: "Your key {SECRET} is fine, and so is the rest of what you asked for."}}]}}
"""


@dataclass
class Cli:
    config: Path

    async def __call__(self, *args: str) -> tuple[int, str, str]:
        environ = {"NO_COLOR": "1", "COLUMNS": "250", "LLM_PROXY_CONFIG": "", "LLM_PROXY_TOKEN": ADMIN}
        command = ["audit", *args, "--config", str(self.config)]
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
        return result.exit_code, result.stdout, result.stderr

    async def report(self, *args: str) -> Any:
        status, out, err = await self("verify", *args, "--json")
        assert out, err
        report = json.loads(out)
        assert status == (0 if report["intact"] else 1)
        return report


def told(base_url: str) -> dict[str, Any]:
    operators = [
        {"id": "ada@example.com", "roles": ["investigator"], "token": READER},
        {"id": "sam@example.com", "roles": ["spend-reader"], "token": SPENDER},
    ]
    return config(base_url, server={"drain_s": 1, "admin_token": ADMIN}, operators=operators)


async def calls(proxy: ProxyProcess, number: int, run: str) -> None:
    async with aiohttp.ClientSession() as http:
        for n in range(number):
            sent = headers(KEY, x_run_id=run)
            async with http.post(
                proxy.url, json=ask(f"{SECRET} and question {n} " * 20), headers=sent
            ) as answer:
                assert answer.status == 200, await answer.text()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[tuple[ProxyProcess, Cli]]:
    """Killed once, stopped once: three writers, the last of which runs."""
    async with (
        running(parse_script(SCRIPT), "127.0.0.1", 0) as upstream,
        ProxyProcess(tmp_path, told(f"{upstream.origin}/v1")) as proxy,
    ):
        await calls(proxy, 4, "first")
        proxy.kill9()
        await proxy.restart()
        await calls(proxy, 4, "second")
        await proxy.settled()
        yield proxy, Cli(tmp_path / "proxy.yaml")


async def get(proxy: ProxyProcess, path: str, token: str = READER) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as http:
        sent = {"authorization": f"Bearer {token}"}
        async with http.get(f"{proxy.origin}/admin/audit/{path}", headers=sent) as answer:
            return answer.status, await answer.read()


async def test_a_store_is_verified_while_it_is_written(house: tuple[ProxyProcess, Cli]) -> None:
    proxy, cli = house
    load = asyncio.create_task(calls(proxy, 25, "meanwhile"))
    reports = [await cli.report() for _ in range(2)]
    status, body = await get(proxy, "verify")
    await load
    assert status == 200
    whole = await cli.report()
    for report in [*reports, json.loads(body), whole]:
        assert (report["intact"], report["findings"]) == (True, [])
        assert report["checkpoints"] >= 1
    assert (await get(proxy, "verify", SPENDER))[0] == 403
    assert (await get(proxy, "export", SPENDER))[0] == 403
    status, body = await get(proxy, "checkpoints", SPENDER)
    assert status == 200
    newest = json.loads(body)[0]
    since = await cli.report("--since", newest["id"])
    assert since["intact"]
    assert since["records"] < whole["records"]
    status, out, _ = await cli("checkpoints", "--json", "--limit", "1")
    assert json.loads(out)[0]["signature"]


async def test_an_export_is_verified_with_no_store(house: tuple[ProxyProcess, Cli], tmp_path: Path) -> None:
    proxy, cli = house
    key = tmp_path / "jwks.json"
    async with aiohttp.ClientSession() as http, http.get(f"{proxy.origin}/.well-known/jwks.json") as answer:
        key.write_bytes(await answer.read())
    for name, options in {
        "whole": (),
        "content": ("--content",),
        "run": ("--run", "second", "--agent", "bot", "--content"),
        "checkpoints": ("--checkpoints",),
    }.items():
        file = tmp_path / f"{name}.jsonl"
        status, _, err = await cli("export", "-o", str(file), *options)
        assert (status, err) == (0, ""), err
        report = await cli.report("--file", str(file), "--key", str(key))
        assert report["intact"], report
        assert (report["contents"] > 0) is ("--content" in options)
        assert (await cli("export", "-o", str(file)))[0] == 2, "nothing is overwritten"
    whole = (tmp_path / "content.jsonl").read_bytes()
    assert SECRET.encode() not in whole
    status, body = await get(proxy, "export?content=true")
    streamed = tmp_path / "streamed.jsonl"
    streamed.write_bytes(body)
    assert (await cli.report("--file", str(streamed), "--key", str(key)))["intact"]
    with proxy.engine.connect() as connection:
        kinds = [row[0] for row in connection.exec_driver_sql("SELECT kind FROM records")]
    assert kinds.count("records.exported") == 5
    assert kinds.count("content.read") == 3
    assert kinds.count("config.loaded") == 1
    assert (await get(proxy, "readings", SPENDER))[0] == 403
    status, body = await get(proxy, "readings")
    told = json.loads(body)
    assert [(one["by"], one["what"]) for one in told[:1]] == [("ada@example.com", "audit export")]
    assert len(told) == 3
    status, out, _ = await cli("readings", "--json", "--before", told[0]["id"])
    assert json.loads(out) == told[1:]
    assert (await cli("readings", "--before", "nobody"))[0] == 2
    assert (await get(proxy, "readings?before=nobody"))[0] == 400
    # Any line changed, left out or exchanged.
    lines = (tmp_path / "run.jsonl").read_bytes().splitlines(keepends=True)
    bad = tmp_path / "bad.jsonl"
    for number, line in list(enumerate(lines))[:: len(lines) // 6]:
        exchanged = [*lines[:number], *lines[number + 1 : number + 2], line, *lines[number + 2 :]]
        for changed in (lines[:number] + lines[number + 1 :], exchanged):
            bad.write_bytes(b"".join(changed))
            status, _, _ = await cli("verify", "--file", str(bad), "--key", str(key))
            assert status in (1, 2) or changed == lines, number
    # The store has what a checkpoint signed that was kept elsewhere, or it doesn't.
    kept = ("--against", str(tmp_path / "checkpoints.jsonl"))
    assert (await cli.report(*kept))["intact"]


async def test_an_export_of_a_run_has_every_message_of_a_long_conversation(
    house: tuple[ProxyProcess, Cli], tmp_path: Path
) -> None:
    proxy, cli = house
    said = [f"number {n} of what was said" for n in range(80)]
    messages = [{"role": "user", "content": one} for one in said]
    async with aiohttp.ClientSession() as http:
        for many in (70, 80):
            asked = {"model": "m", "messages": messages[:many]}
            async with http.post(proxy.url, json=asked, headers=headers(KEY, x_run_id="long")) as answer:
                assert answer.status == 200, await answer.text()
    await proxy.settled()
    file = tmp_path / "long.jsonl"
    assert (await cli("export", "-o", str(file), "--run", "long", "--agent", "bot", "--content"))[0] == 0
    codec, found = Codec(), b""
    for line in file.read_bytes().splitlines():
        if blob := json.loads(line).get("blob"):
            found += codec.unpack(blob["codec"], base64.b64decode(blob["data"]), blob["size"])
    assert [one for one in said if one.encode() not in found] == []
    assert SECRET.encode() not in found
    assert b"question" not in found, "what others said is theirs"


async def test_what_was_changed_is_named(house: tuple[ProxyProcess, Cli], tmp_path: Path) -> None:
    proxy, cli = house
    await cli("export", "--checkpoints", "-o", str(tmp_path / "kept.jsonl"))
    await proxy.terminate()
    report = await cli.report()
    assert report["intact"], report["findings"]
    assert (report["writers"], report["unsigned"]) == (3, 1), "the last checkpoint itself"
    assert report["contents"] > 8

    store = sqlite3.connect(tmp_path / "store.db", isolation_level=None)

    async def found(sql: str, *values: Any) -> list[Any]:
        store.execute("BEGIN")
        store.execute("CREATE TABLE IF NOT EXISTS undo AS SELECT * FROM records")
        store.execute("CREATE TABLE IF NOT EXISTS unpack AS SELECT * FROM blobs")
        store.execute(sql, values)
        store.execute("COMMIT")
        report = await cli.report()
        for table, copy in (("records", "undo"), ("blobs", "unpack")):
            store.execute(f"DELETE FROM {table}")
            store.execute(f"INSERT INTO {table} SELECT * FROM {copy}")
        return [(finding["table"], finding["row"], finding["what"]) for finding in report["findings"]]

    writer, seq = store.execute(
        "SELECT writer, seq FROM records WHERE kind = 'call.closed' LIMIT 1"
    ).fetchone()
    [id_] = store.execute("SELECT id FROM blobs WHERE codec LIKE 'zstd%' LIMIT 1").fetchone()
    row = f"{writer}/{seq}"
    closing = "UPDATE records SET {} WHERE writer = ? AND seq = ?"
    assert ("records", row, "edited") in await found(closing.format("at_us = at_us + 1"), writer, seq)
    assert ("records", row, "edited") in await found(closing.format("kind = x'ff'"), writer, seq)
    assert ("records", row, "deleted") in await found(
        "DELETE FROM records WHERE writer = ? AND seq = ?", writer, seq
    )
    assert ("blobs", id_.hex(), "edited") in await found("UPDATE blobs SET size = size + 1 WHERE id = ?", id_)
    assert ("blobs", id_.hex(), "deleted") in await found("DELETE FROM blobs WHERE id = ?", id_)
    named = await found(f"DELETE FROM records WHERE writer = '{writer}'")
    assert any(what == "cut off at the end" and row.startswith(writer) for _, row, what in named)
    status, out, _ = await cli("verify")
    assert status == 0
    assert out.startswith("Intact: 3 chains,")
    # Everything of a store is gone, and it began anew: only what was kept elsewhere tells.
    for table in ("records", "blobs", "state_writers", "state_checkpoints", "state_covered"):
        store.execute(f"DELETE FROM {table}")
    assert (await cli.report())["intact"]
    assert not (await cli.report("--against", str(tmp_path / "kept.jsonl")))["intact"]
    store.close()
