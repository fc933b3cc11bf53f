"""What a long run leaves in the store, held against the bytes of its messages: each counts once."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import Engine, text

from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.either_store import store as store
from tests.proxy import ProxyProcess, config, headers

pytest_plugins = ["tests.postgres"]

TURNS = 50
HISTORY = 100_000
"""Bytes of what the run begins with and resends each time."""
DOCS = Path(__file__).parents[2] / "docs"
SENTENCES = sorted(
    {one.strip() for page in DOCS.rglob("*.md") for one in page.read_text().split(". ") if len(one) > 20}
)
SCRIPT = "default: {turns: [{text: 'I looked into that, and there is more to be done.'}]}"


def _bytes(engine: Engine) -> int:
    """All that the records take: tables and indexes, less what is free in a file, and the search index."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            pages, free, size = (
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("page_count", "freelist_count", "page_size")
            )
            return (pages - free) * size
        tables = (
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c WHERE c.relkind = 'r'"
        )
        mine = " AND c.relnamespace = 'public'::regnamespace AND c.relname <> 'state_texts'"
        return int(connection.execute(text(tables + mine)).scalar_one())


def _vacuum(engine: Engine) -> None:
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM FULL"))


def _prose(random_: random.Random, size: int) -> str:
    """Sentences of this project's own documents, in an order that hardly comes twice."""
    said, length = list[str](), 0
    while length < size:
        said.append(random_.choice(SENTENCES))
        length += len(said[-1].encode()) + 1
    return " ".join(said)


async def test_a_run_that_resends_its_history_takes_twice_its_messages_at_most(
    store: str, tmp_path: Path
) -> None:
    random_ = random.Random(7)
    history: list[dict[str, Any]] = [
        {"role": ("user", "assistant")[n % 2], "content": _prose(random_, HISTORY // 20)} for n in range(20)
    ]
    async with running(parse_script(SCRIPT)) as upstream:  # noqa: SIM117
        async with ProxyProcess(tmp_path, config(upstream.base_url, store=store)) as proxy:
            _vacuum(proxy.engine)
            before = _bytes(proxy.engine)
            async with aiohttp.ClientSession(headers=headers(x_run_id="long")) as http:
                for _ in range(TURNS):
                    history.append({"role": "user", "content": _prose(random_, 600)})
                    body = json.dumps({"model": "m", "messages": history}, ensure_ascii=False).encode()
                    async with http.post(proxy.url, data=body) as reply:
                        said = (await reply.json())["choices"][0]["message"]["content"]
                    history.append({"role": "assistant", "content": said})
            await proxy.settled()
            _vacuum(proxy.engine)
            grown = _bytes(proxy.engine) - before
    distinct = {json.dumps(message, ensure_ascii=False) for message in history}
    size = sum(len(message.encode()) for message in distinct)
    print(f"grown {grown:,} for {size:,} bytes of distinct messages: {grown / size:.2f}")  # noqa: T201
    assert size > HISTORY
    assert grown < 2 * size
