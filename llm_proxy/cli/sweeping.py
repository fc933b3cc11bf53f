"""One turn of retention from the command line, where no proxy runs."""

from __future__ import annotations

import asyncio

from sqlalchemy import Engine

from llm_proxy import wiring
from llm_proxy.admin.retention import busy, stuck
from llm_proxy.cli.committing import short_lived, unlogged
from llm_proxy.config import Config
from llm_proxy.records.ids import now_us
from llm_proxy.retention.exporting import ExportFailed
from llm_proxy.retention.held import TooManyHeld
from llm_proxy.retention.keeper import Busy, DayDone, Retention


def turn(config: Config, engine: Engine, by: str) -> list[DayDone]:
    """What came of each day. Raises `Conflict`, and what the database raises."""
    try:
        with unlogged():
            return asyncio.run(_turn(config, engine, by))
    except Busy:
        raise busy() from None
    except (ExportFailed, TooManyHeld) as error:
        raise stuck(error) from None


async def _turn(config: Config, engine: Engine, by: str) -> list[DayDone]:
    async with short_lived(engine) as writer:
        return await Retention(engine, writer, now_us, wiring.retention(config)).turn(by)
