"""Refusals are counted in the store once, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import func, select

from llm_proxy.census import Census
from llm_proxy.records.tables import refusals
from tests.stores import Clock, store, writing


async def test_a_count_whose_task_is_cancelled_is_written_once(tmp_path: Path) -> None:
    """What is submitted is written all the same: put back, it would be counted again at the worker's end."""
    clock = Clock()
    with store(f"sqlite:///{tmp_path / 'store.db'}") as engine:
        async with writing(engine, clock) as writer:
            census = Census(writer, clock)
            for _ in range(3):
                census.arrived()
                census.refused("client_gone")
            task = asyncio.create_task(census.flush())
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # it is submitted by now
            census.arrived()
            census.refused("client_gone")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert census.counts().unaccounted == 0
            await census.flush()
            told = census.counts()
        with engine.connect() as connection:
            written = connection.execute(select(func.sum(refusals.c.count))).scalar()
    assert (told.received, told.refused, told.waiting, written) == (4, 4, 0, 4)
