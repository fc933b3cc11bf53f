"""What calls read of a store that doesn't answer: each of them is told so, and when to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.reads import Reads
from llm_proxy.records.engine import open_engine
from llm_proxy.records.runstate import RunKey

RUN = RunKey("bot", "r")
EVERY: dict[str, Callable[[Reads], Awaitable[object]]] = {
    "stored": lambda reads: reads.stored("bot", "resp_1"),
    "recall": lambda reads: reads.recall("bot", "resp_1"),
    "unseen": lambda reads: asyncio.to_thread(reads.unseen, RUN, {"key"}),
    "classified": lambda reads: asyncio.to_thread(reads.classified, RUN),
}


@pytest.mark.parametrize("read", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("file", ["missing/store.db", "empty.db"])
async def test_a_read_that_fails_is_the_stores_fault(
    read: Callable[[Reads], Awaitable[object]], file: str, tmp_path: Path
) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / file}")  # no folder, and no tables
    with pytest.raises(ProxyError) as refused:
        await read(Reads(engine, lambda: True))
    assert refused.value.kind is Kind.STORE_UNAVAILABLE
    assert refused.value.retry_after_s is not None


@pytest.mark.parametrize("read", EVERY.values(), ids=EVERY)
async def test_a_store_that_is_known_to_be_down_is_not_asked(
    read: Callable[[Reads], Awaitable[object]], tmp_path: Path
) -> None:
    file = tmp_path / "store.db"
    with pytest.raises(ProxyError) as refused:
        await read(Reads(open_engine(f"sqlite:///{file}"), lambda: False))
    assert refused.value.kind is Kind.STORE_UNAVAILABLE
    assert not file.exists()
