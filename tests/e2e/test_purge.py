"""A proxy clears away counters that ended long ago, from the store that it finds."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from budgets import METADATA
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.proxy import ProxyProcess, config, until
from tests.stores import store

SCRIPT = "default: {turns: [{text: Hello}]}"
counters = METADATA.tables["state_counters"]


async def test_a_proxy_that_starts_deletes_what_ended_long_ago(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    kept, old = "b|day:2020-01-01", ("b|minute:2020-01-01T00:00Z", "b|24h:2020-01-01T00:00:00Z")
    async with running(parse_script(SCRIPT)) as upstream:
        with store(url) as engine:
            with engine.begin() as connection:
                connection.execute(counters.insert(), [{"key": key} for key in (kept, *old)])
            async with ProxyProcess(tmp_path, config(upstream.base_url, store=url)):

                def left() -> list[str]:
                    with engine.connect() as connection:
                        return list(connection.execute(select(counters.c.key)).scalars())

                await until(lambda: left() == [kept], "what ended long ago is deleted")
